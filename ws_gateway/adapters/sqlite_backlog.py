"""What is in the log and not yet in the tables that follow it, by conversation.

Storing a message appends to the log alone (ADR 3). Its place in the conversation, both people's
inboxes and the order of their conversations follow later, a conversation's messages together: a
page of an index that is touched once for a hundred rows costs what it costs for one. Whoever reads
about a person has that person's conversations brought up to date first, and waits for no others'.

After a crash everything here is found again: it is what the log holds above `life.settled`.
"""

import collections
import sqlite3
from collections.abc import Iterable, Sequence

import msgspec

from shared.ids import UserId
from ws_gateway.adapters.sqlite_rows import insert_rows

__all__ = ["Backlog", "Sent", "Slice", "place", "settle_slice", "unsettled"]


class Sent(msgspec.Struct, frozen=True, gc=False):
    """A message that was stored, as far as the tables that follow the log care."""

    conversation: int
    low: int
    high: int
    people: tuple[UserId, UserId]
    seq: int
    position: int
    low_count: int


class Slice(msgspec.Struct, frozen=True):
    """Messages of one conversation, in their order, that are to be settled together."""

    conversation: int
    messages: Sequence[Sent]


class Backlog:
    """Messages that wait to be settled.

    The event loop changes it; the writer's thread may ask `of` and `last_of` meanwhile: a list that
    was handed out is never changed but at its end.
    """

    def __init__(self) -> None:
        self._waiting: collections.OrderedDict[int, list[Sent]] = collections.OrderedDict()
        """By conversation, the one that was settled longest ago first."""
        self._conversations: dict[UserId, set[int]] = {}
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def add(self, sent: Iterable[Sent]) -> None:
        """Take messages that have just been committed."""
        for message in sent:
            waiting = self._waiting.get(message.conversation)
            if waiting is None:
                self._waiting[message.conversation] = [message]
                for user_id in message.people:
                    self._conversations.setdefault(user_id, set()).add(message.conversation)
            else:
                waiting.append(message)
            self._size += 1

    def of(self, conversation: int) -> Sequence[Sent]:
        """Return what waits of a conversation, in its order."""
        return self._waiting.get(conversation, ())

    def of_user(self, user_id: UserId) -> list[Slice]:
        """Return everything that waits of a user's conversations."""
        return [
            Slice(conversation, list(self._waiting[conversation]))
            for conversation in self._conversations.get(user_id, ())
        ]

    def between(self, one: UserId, other: UserId) -> Sequence[Sent]:
        """Return what waits of two people's conversation, in its order. One has none alone."""
        for conversation in self._conversations.get(one, ()):
            waiting = self._waiting[conversation]
            if {one, other} == set(waiting[0].people):
                return waiting
        return ()

    def oldest(self, limit: int) -> list[Slice]:
        """Return about `limit` messages, fewer than twice as many, of the conversations that were
        settled longest ago. A conversation is cut only if it has more: each costs its pages."""
        slices, size = [], 0
        for conversation, waiting in self._waiting.items():
            if size >= limit:
                break
            slices.append(Slice(conversation, waiting[:limit]))
            size += len(slices[-1].messages)
        return slices

    def begins_by(self, position: int) -> bool:
        """Tell whether what would be settled next begins at this position or before."""
        waiting = next(iter(self._waiting.values()), None)
        return waiting is not None and waiting[0].position <= position

    def settled(self, slices: Iterable[Slice]) -> None:
        """Let go of what is in the other tables now."""
        for done in slices:
            waiting = self._waiting[done.conversation]
            # Another may have settled some of the same meanwhile.
            last = done.messages[-1].position
            rest = [message for message in waiting if message.position > last]
            self._size -= len(waiting) - len(rest)
            if rest:
                self._waiting[done.conversation] = rest
                self._waiting.move_to_end(done.conversation)
                continue
            del self._waiting[done.conversation]
            for user_id in waiting[0].people:
                held = self._conversations[user_id]
                held.discard(done.conversation)
                if not held:
                    del self._conversations[user_id]

    def settled_upto(self, position: int) -> int:
        """Return the position up to which nothing waits, when the log ends at `position`."""
        return min(
            (waiting[0].position - 1 for waiting in self._waiting.values()), default=position
        )


def unsettled(connection: sqlite3.Connection) -> list[Sent]:
    """Return the messages that an earlier life of this process left to be settled."""
    rows = connection.execute(_UNSETTLED)
    return [
        Sent(conversation, low, high, (low_id, high_id), seq, position, low_count)
        for conversation, low, high, low_id, high_id, seq, position, low_count in rows
    ]


def place(connection: sqlite3.Connection, messages: Sequence[Sent]) -> None:
    """Note where messages are in their conversation. Safe to repeat."""
    insert_rows(
        connection,
        "INSERT OR IGNORE INTO places",
        "(?, ?, ?)",
        [n for m in messages for n in (m.conversation, m.seq, m.position)],
    )


def settle_slice(connection: sqlite3.Connection, slices: Sequence[Slice]) -> None:
    """Bring places, inboxes and members up to some messages. Safe to repeat."""
    for one in slices:
        place(connection, one.messages)
        last = one.messages[-1]
        insert_rows(
            connection,
            "INSERT OR IGNORE INTO inbox",
            "(?, ?)",
            [n for user in (last.low, last.high) for m in one.messages for n in (user, m.position)],
        )
        connection.execute(
            "UPDATE members SET last_position = ?, last_seq = ?"
            " WHERE user IN (?, ?) AND conversation = ? AND last_position < ?",
            (last.position, last.seq, last.low, last.high, one.conversation, last.position),
        )


_UNSETTLED = """
SELECT messages.conversation, low, high, low_user.id, high_user.id, seq, position, low_count
FROM messages
CROSS JOIN conversations ON conversations.key = messages.conversation
CROSS JOIN users AS low_user ON low_user.key = low
CROSS JOIN users AS high_user ON high_user.key = high
WHERE position > (SELECT settled FROM life) ORDER BY position
"""
