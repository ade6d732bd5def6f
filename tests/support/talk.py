"""Short ways to fill a message store with conversations."""

import itertools
import sqlite3
from contextlib import closing
from pathlib import Path

import msgspec

from shared.ids import UserId, conversation_id
from ws_gateway.conversations import (
    Appended,
    Change,
    Deletion,
    Draft,
    Edit,
    Erasure,
    Event,
    Mark,
    Message,
    Outcome,
    Unfinished,
)
from ws_gateway.ports import MessageStore

__all__ = [
    "ANN",
    "BOB",
    "CID",
    "delete",
    "edit",
    "erase",
    "every_event",
    "mark",
    "say",
    "search_index_is_sound",
]

ANN, BOB, CID = UserId("u_ann"), UserId("u_bob"), UserId("u_cid")

_numbers = itertools.count()


async def say(
    store: MessageStore, sender: UserId, to: UserId, *texts: str, at_ms: int = 1
) -> list[Message]:
    """Store messages in one batch. Returns them."""
    drafts = [Draft(sender, to, f"said-{next(_numbers)}", text) for text in texts]
    outcomes = await store.append_batch(drafts, at_ms)
    assert all(isinstance(o, Appended) and not o.duplicate for o in outcomes), outcomes
    return [o.event.message for o in outcomes if isinstance(o, Appended)]


async def edit(
    store: MessageStore, message: Message, text: str, *, request_id: str = "", at_ms: int = 2
) -> Outcome:
    """Have the author edit a message."""
    request_id = request_id or f"edit-{next(_numbers)}"
    change = Edit(message.sender, request_id, message.conversation, message.seq, text)
    return await _one(store, change, at_ms)


async def delete(
    store: MessageStore, message: Message, *, request_id: str = "", at_ms: int = 2
) -> Outcome:
    """Have the author delete a message."""
    request_id = request_id or f"delete-{next(_numbers)}"
    change = Deletion(message.sender, request_id, message.conversation, message.seq)
    return await _one(store, change, at_ms)


async def mark(
    store: MessageStore,
    user: UserId,
    peer: UserId,
    seq: int,
    *,
    read: bool = False,
    at_ms: int = 3,
) -> Outcome:
    """Mark a conversation as received, or read, up to `seq`."""
    return await _one(store, Mark(user, None, conversation_id(user, peer), seq, read), at_ms)


async def erase(store: MessageStore, user: UserId, *, at_ms: int = 4) -> list[Outcome]:
    """Erase a user until nothing is left to do, as the messenger does."""
    outcomes = []
    after = None
    while conversations := await store.conversations_to_erase(user, after):
        rest = [Erasure(user, conversation) for conversation in conversations]
        while rest:
            made = await store.append_batch(rest, at_ms)
            outcomes += made
            rest = [
                msgspec.structs.replace(erasure, after=outcome.upto)
                for erasure, outcome in zip(rest, made, strict=True)
                if isinstance(outcome, Unfinished)
            ]
        after = conversations[-1]
    return outcomes


async def every_event(
    store: MessageStore, user: UserId, position: int = 0, *, limit: int = 3
) -> list[Event]:
    """Page through a user's events to the end of the log."""
    events: list[Event] = []
    while True:
        page = await store.events_after(user, position, limit)
        assert all(position < event.position_for(user) <= page.upto for event in page.events)
        events += page.events
        position = page.upto
        if page.complete:
            assert position == await store.position_of(user)
            return events


def search_index_is_sound(path: Path) -> bool:
    """Compare the search index, which must have caught up, with one that is made of the log now."""
    with closing(sqlite3.connect(path.with_name("search.db"))) as connection:
        connection.execute("ATTACH ? AS log", (str(path),))
        try:
            connection.execute("INSERT INTO search (search) VALUES ('integrity-check')")
        except sqlite3.DatabaseError:
            return False
        connection.executescript(_ANOTHER_INDEX)
        (removals,) = connection.execute("SELECT count(*) FROM removals").fetchone()
        made, wanted = (
            [connection.execute(query.format(index)).fetchall() for query in _ENTRIES]
            for index in ("search", "another")
        )
    return removals == 0 and made == wanted


_ANOTHER_INDEX = """
CREATE VIRTUAL TABLE temp.another USING fts5 (
    people, text, content = '', tokenize = 'unicode61 remove_diacritics 2'
);
INSERT INTO another (rowid, people, text)
SELECT position, 'u' || low || ' u' || high, text
FROM messages JOIN conversations ON key = conversation WHERE NOT deleted;
CREATE VIRTUAL TABLE temp.search_words USING fts5vocab (main, search, instance);
CREATE VIRTUAL TABLE temp.another_words USING fts5vocab (temp, another, instance);
"""
_ENTRIES = (
    "SELECT * FROM {}_words ORDER BY term, doc, col, offset",
    "SELECT * FROM {}_docsize ORDER BY id",
)


async def _one(store: MessageStore, change: Change, at_ms: int) -> Outcome:
    (outcome,) = await store.append_batch([change], at_ms)
    return outcome
