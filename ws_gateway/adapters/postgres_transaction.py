"""A batch that needs a closer look, in one transaction: what `append` cannot do in one call.

That is edits, deletions and erasures; drafts that repeat what is stored, or are blocked; and marks
of what is not there. Everybody's lock is taken first, so that nothing found changes until the
commit.
"""

from collections.abc import Sequence

from shared.postgres import Connection
from ws_gateway.adapters.postgres_append import APPEND, Growth, Known
from ws_gateway.adapters.postgres_chats import Chats
from ws_gateway.adapters.postgres_revise import Revise
from ws_gateway.adapters.postgres_rows import (
    CHAT,
    CHAT_JOINS,
    MESSAGE,
    Chat,
    chat_of,
    sent_event,
)
from ws_gateway.conversations import Change, Draft, Mark, Outcome

__all__ = ["make_changes"]


async def make_changes(
    connection: Connection, chats: Chats, changes: Sequence[Change], at_ms: int
) -> list[Outcome]:
    """Make changes in their order; return an outcome for each."""
    await _lock(connection, chats, changes)
    revise = Revise(connection, at_ms)
    outcomes: list[Outcome] = []
    run: list[Draft | Mark] = []
    for change in changes:
        if isinstance(change, Draft | Mark):
            run.append(change)
            continue
        outcomes += await _append(connection, chats, run, at_ms)
        run = []
        outcomes.append(await revise.make(change, chats.named(change.conversation)))
    return outcomes + await _append(connection, chats, run, at_ms)


async def _lock(connection: Connection, chats: Chats, changes: Sequence[Change]) -> None:
    """Lock the people whose logs may grow, what is revised, and marks: everybody's order."""
    people: set[int] = set()
    concerned: set[Chat] = set()
    revised: set[int] = set()
    members: set[tuple[int, int]] = set()
    for change in changes:
        if isinstance(change, Draft):
            chat = chats.between(change.sender, change.recipient)
        elif (named := chats.named(change.conversation)) is None:
            continue
        else:
            chat = named
        concerned.add(chat)
        if isinstance(change, Mark):
            if chat.has(change.user):
                members.add((chat.key_of(change.user), chat.key))
            continue
        people.update((chat.low, chat.high))
        if not isinstance(change, Draft):
            revised.add(chat.key)
    await connection.execute(_LOCK_PEOPLE, sorted(people))
    there = await connection.fetch(_SAME, *_columns([(chat.key, chat.id) for chat in concerned]))
    if len(there) < len(concerned):
        raise LookupError("the keys are of another life of this database")
    if revised:
        await connection.execute(_LOCK_INDEXED, sorted(revised))
    if members:
        await connection.execute(_LOCK_MEMBERS, *_columns(list(members)))


async def _append(
    connection: Connection, chats: Chats, changes: Sequence[Draft | Mark], at_ms: int
) -> list[Outcome]:
    if not changes:
        return []
    growth = Growth(changes, chats, at_ms, await _look(connection, chats, changes))
    row = await connection.fetchrow(APPEND, *growth.arguments())
    if row is None:
        raise AssertionError("what was seen under the locks is not so any more")
    return growth.outcomes(row)


async def _look(connection: Connection, chats: Chats, changes: Sequence[Draft | Mark]) -> Known:
    """Find what drafts repeat, who is blocked, and how far the conversations of marks go."""
    drafts = [change for change in changes if isinstance(change, Draft)]
    pairs = {(draft.sender, draft.recipient) for draft in drafts}
    senders = [chats.between(d.sender, d.recipient).key_of(d.sender) for d in drafts]
    stored = await connection.fetch(_STORED, [draft.client_id for draft in drafts], senders)
    blocks = await connection.fetch(_BLOCKS, *_columns(list(pairs)))
    marked = [chats.named(change.conversation) for change in changes if isinstance(change, Mark)]
    ends = await connection.fetch(_ENDS, [chat.key for chat in marked if chat is not None])
    events = [sent_event(row, chat_of(row)) for row in stored]
    return Known(
        stored={(event.message.sender, event.message.client_id): event for event in events},
        blocked=frozenset((row["sender"], row["recipient"]) for row in blocks),
        last_seqs={row["key"]: row["last_seq"] for row in ends},
    )


def _columns(pairs: Sequence[tuple[object, object]]) -> tuple[list[object], list[object]]:
    return [one for one, _ in pairs], [other for _, other in pairs]


_SAME = """
SELECT FROM unnest($1::integer[], $2::text[]) AS known (key, id) JOIN conversations USING (key, id)
"""
_LOCK_PEOPLE = "SELECT FROM users WHERE key = ANY ($1) ORDER BY key FOR NO KEY UPDATE"
_LOCK_INDEXED = "SELECT FROM indexed WHERE conversation = ANY ($1) ORDER BY conversation FOR UPDATE"
_LOCK_MEMBERS = """
SELECT FROM members JOIN unnest($1::integer[], $2::integer[]) AS mark (person, conversation)
USING (person, conversation)
ORDER BY person, conversation FOR NO KEY UPDATE OF members
"""

_STORED = f"""
SELECT {MESSAGE}, {CHAT}
FROM unnest($1::text[], $2::integer[]) AS draft (client_id, sender)
JOIN messages AS message USING (client_id, sender)
JOIN conversations AS chat ON chat.key = message.conversation
{CHAT_JOINS}
"""

_BLOCKS = """
SELECT pair.sender, pair.recipient
FROM unnest($1::text[], $2::text[]) AS pair (sender, recipient)
JOIN users AS sender ON sender.id = pair.sender
JOIN users AS recipient ON recipient.id = pair.recipient
JOIN blocks ON blocks.blocker = recipient.key AND blocks.blocked = sender.key
"""

_ENDS = "SELECT key, last_seq FROM conversations WHERE key = ANY ($1)"
