"""The message store on SQLite: one file, nothing to install, durable when it returns."""

import asyncio
import itertools
import sqlite3
import time
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from shared.ids import ConversationId, UserId
from shared.sqlite import Database
from ws_gateway.adapters.sqlite_append import Append, LogCache
from ws_gateway.adapters.sqlite_backlog import (
    Backlog,
    Sent,
    Slice,
    settle_slice,
    unsettled,
)
from ws_gateway.adapters.sqlite_marks import RecentMarks, recent_marks
from ws_gateway.adapters.sqlite_revise import erased_event
from ws_gateway.adapters.sqlite_rows import (
    COLUMNS,
    N_COLUMNS,
    SHOWS_READ,
    available,
    insert_rows,
    last_position,
    message_of,
    user_key,
)
from ws_gateway.conversations import Change, Event, EventKind, Outcome
from ws_gateway.ports import EventPage, StoreUnavailable

__all__ = ["SqliteMessageStore"]

_MAX_UNSETTLED = 20_000
"""Messages that may wait to be settled. A crash leaves them, and what was settled since
`life.settled` was last written, to the next start."""
_SETTLE_ABOVE = 12_000
"""Messages that may wait before each batch that is stored settles some along with it."""
_SETTLE_ALONG = 250
"""How many it settles at least: of one conversation together they cost little more than a few."""
_SETTLE_AFTER_S = 1.0
"""However little waits: what is settled can be read while the disk is full or locked."""
_SLICE = 250
"""Messages that one transaction settles: the next batch waits for it, a millisecond."""
_DELIVERIES = 500
"""Deliveries that one transaction writes down: likewise."""
_MARKS = 500
"""Marks that one transaction brings to their place: likewise."""
_RECENT_MARKS = 4_000
"""Marks that may wait for their place: so many that a conversation's are several."""
_PAUSE_S = 0.005
"""How long messages that come have the writer to themselves between two such transactions."""


class _Delivery(msgspec.Struct, gc=False):
    """Messages from `position` on that went out together, to as many connections each."""

    position: int
    connections: int
    at_ms: int
    messages: int = 1


class SqliteMessageStore:
    """A `MessageStore` in one SQLite file.

    One coroutine at a time calls `append_batch`; whoever opened the database closes it.
    """

    def __init__(self, database: Database, epoch: str, position: int) -> None:
        self._database = database
        self._epoch = epoch
        self._position = position
        self._cache = LogCache()
        self._backlog = Backlog()
        self._recent_marks = RecentMarks()
        self._marks_waiting = 0
        self._settling = asyncio.Lock()
        self._tidied_at = time.monotonic()
        self._tidied_upto = position
        """Where the log ended then."""
        self._noted_upto: int | None = None
        """What `life.settled` is, once this life wrote it."""
        self._deliveries: list[_Delivery] = []

    @classmethod
    async def over(cls, database: Database) -> "SqliteMessageStore":
        """Make the store of an open database.

        Raises:
            StoreUnavailable: it cannot be used.
        """
        epoch, position, waiting, marks = await available(
            database.read(lambda c: (_epoch(c), last_position(c), unsettled(c), recent_marks(c)))
        )
        store = cls(database, epoch, position)
        store._backlog.add(waiting)
        store._marks_waiting = marks
        return store

    @property
    def epoch(self) -> str:
        """The name of this database's life."""
        return self._epoch

    @property
    def position(self) -> int:
        """The position of the last committed event."""
        return self._position

    async def position_of(self, user_id: UserId) -> int:  # noqa: ARG002
        """Return where the log ends: one log is everybody's."""
        return self._position

    async def append_batch(self, changes: Sequence[Change], at_ms: int) -> list[Outcome]:
        """Make changes in one transaction; see `MessageStore`."""
        while len(self._backlog) > _MAX_UNSETTLED:
            await self._settle_oldest()
        if len(self._backlog) <= _SETTLE_ABOVE or self._settling.locked():
            return await self._append_and_settle(changes, at_ms, ())
        async with self._settling:
            along = self._backlog.oldest(max(_SETTLE_ALONG, 2 * len(changes)))
            outcomes = await self._append_and_settle(changes, at_ms, along)
            self._backlog.settled(along)
        return outcomes

    async def _append_and_settle(
        self, changes: Sequence[Change], at_ms: int, along: Sequence[Slice]
    ) -> list[Outcome]:
        try:
            try:
                outcomes, work = await self._append(changes, at_ms, along, careful=False)
            except sqlite3.IntegrityError:  # something was sent before
                outcomes, work = await self._append(changes, at_ms, along, careful=True)
        except BaseException:
            self._cache.forget()  # it may name rows that were rolled back
            raise
        self._position = work.position
        self._backlog.add(work.sent)
        self._marks_waiting += len(work.marks)
        return outcomes

    async def _append(
        self, changes: Sequence[Change], at_ms: int, along: Sequence[Slice], *, careful: bool
    ) -> tuple[list[Outcome], Append]:
        def append(connection: sqlite3.Connection) -> tuple[list[Outcome], Append]:
            self._cache.bound()
            work = Append(
                connection, self._cache, self._backlog, self._position, at_ms, careful=careful
            )
            try:
                outcomes = work.make(changes)
                settle_slice(connection, along)
                return outcomes, work
            except sqlite3.IntegrityError:
                self._cache.undo(work)
                raise

        return await available(self._database.write(append))

    async def events_after(self, user_id: UserId, position: int, limit: int) -> EventPage:
        """Return what concerns a user after `position`; see `MessageStore`."""
        settled = self._position
        await self.settle(user_id)

        def read(connection: sqlite3.Connection) -> EventPage:
            rows = connection.execute(
                _EVENTS, (user_key(connection, user_id), position, settled, limit)
            ).fetchall()
            events = [_event(row) for row in rows]
            complete = len(events) < limit
            upto = settled if complete else events[-1].position
            return EventPage(events, max(upto, position), complete)

        return await available(self._database.read(read))

    async def receipts_after(
        self, user_id: UserId, position: int
    ) -> list[tuple[ConversationId, UserId, int, int]]:
        """Return marks that moved after `position`; see `MessageStore`."""

        def read(
            connection: sqlite3.Connection,
        ) -> list[tuple[ConversationId, UserId, int, int]]:
            key = user_key(connection, user_id)
            return connection.execute(_RECEIPTS, {"me": key, "position": position}).fetchall()

        return await available(self._database.read(read))

    def note_deliveries(self, deliveries: Iterable[tuple[int, int]], at_ms: int) -> None:
        """Remember that messages went out; see `MessageStore`."""
        last = self._deliveries[-1] if self._deliveries else None
        for position, connections in deliveries:
            if (
                last is not None
                and position == last.position + last.messages
                and connections == last.connections
                and at_ms == last.at_ms
            ):
                last.messages += 1
            else:
                last = _Delivery(position, connections, at_ms)
                self._deliveries.append(last)

    async def write_deliveries(self, limit: int | None = None) -> None:
        """Write down deliveries that were noted: all, or the first `limit`.

        Raises:
            StoreUnavailable: not now; they are kept.
        """
        deliveries = self._deliveries[:limit]
        if deliveries:
            del self._deliveries[: len(deliveries)]
            try:
                await available(self._database.write(lambda c: _insert_deliveries(c, deliveries)))
            except StoreUnavailable:
                self._deliveries[:0] = deliveries
                raise

    async def _write_deliveries_down_to(self, count: int) -> None:
        """Write down what is here now, in small pieces, when there are more than `count`."""
        if len(self._deliveries) > count:
            for _ in range(0, len(self._deliveries), _DELIVERIES):
                await self.write_deliveries(_DELIVERIES)

    async def conversations_to_erase(
        self, user_id: UserId, after: ConversationId | None = None
    ) -> list[ConversationId]:
        """Return some conversations with text of this user; see `MessageStore`."""
        await self.settle(user_id)

        def read(connection: sqlite3.Connection) -> list[ConversationId]:
            key = user_key(connection, user_id)
            return [id_ for (id_,) in connection.execute(_TO_ERASE, (key, after))]

        return await available(self._database.read(read))

    def forget_route(self, sender: UserId, recipient: UserId) -> None:
        """A block between them came or went. For the writer's thread, within its transaction."""
        self._cache.routes.pop((sender, recipient), None)

    async def is_available(self) -> bool:
        """Whether a trivial read works."""
        try:
            await available(self._database.read(_epoch))
        except Exception:  # whatever it is, the store does not answer
            return False
        return True

    async def settle(self, user_id: UserId) -> None:
        """Bring what follows the log up to it for one user: all that was committed can be read.

        Raises:
            StoreUnavailable: not now.
        """
        async with self._settling:
            await self._settle(self._backlog.of_user(user_id))

    def unsettled(self, one: UserId, other: UserId) -> Sequence[Sent]:
        """Return messages of two people that are committed and not settled yet, in their order.

        For readers that can add them to what is settled: then nothing has to be written, and a full
        disk or a locked database is no reason not to read.
        """
        return self._backlog.between(one, other)

    async def tidy_up(self) -> None:
        """Settle what has waited for a while and write deliveries down, in small pieces.

        Raises:
            StoreUnavailable: not now.
        """
        await self._write_deliveries_down_to(_DELIVERIES)
        for _ in range(_RECENT_MARKS, self._marks_waiting, _MARKS):
            settled = await available(
                self._database.write(lambda c: self._recent_marks.settle(c, _MARKS))
            )
            self._marks_waiting -= settled
        if self._backlog and time.monotonic() - self._tidied_at >= _SETTLE_AFTER_S:
            # Under load, what has waited so long was settled along with batches.
            while self._backlog.begins_by(self._tidied_upto):
                await self._settle_oldest()
                await asyncio.sleep(_PAUSE_S)
            await self._note_settled()
            await self._write_deliveries_down_to(0)
            self._tidied_at, self._tidied_upto = time.monotonic(), self._position

    async def settle_all(self) -> None:
        """Settle everything: the next start has nothing to do.

        Raises:
            StoreUnavailable: not now.
        """
        while self._backlog:
            await self._settle_oldest()
        await self._note_settled()
        await self.write_deliveries()

    async def _settle_oldest(self) -> None:
        async with self._settling:
            await self._settle(self._backlog.oldest(_SLICE))

    async def _settle(self, slices: Sequence[Slice]) -> None:
        if slices:
            await available(self._database.write(lambda c: settle_slice(c, slices)))
            self._backlog.settled(slices)

    async def _note_settled(self) -> None:
        settled = self._backlog.settled_upto(self._position)
        if settled == self._noted_upto:
            return

        def note(connection: sqlite3.Connection) -> None:
            connection.execute("UPDATE life SET settled = max(settled, ?)", (settled,))

        await available(self._database.write(note))
        self._noted_upto = settled


def _epoch(connection: sqlite3.Connection) -> str:
    (epoch,) = connection.execute("SELECT epoch FROM life").fetchone()
    return str(epoch)


def _insert_deliveries(connection: sqlite3.Connection, deliveries: Sequence[_Delivery]) -> None:
    """Write deliveries down, but for messages that went out before: the first time counts."""
    (end,) = connection.execute(_DELIVERIES_END).fetchone() or (0,)
    beyond: list[int] = []
    before_end: list[_Delivery] = []
    for one in deliveries:
        if one.position >= end:
            beyond += (one.position, one.connections, one.at_ms, one.messages)
        else:  # a device catches up, and may get some of these after others
            before_end.append(one)
        end = max(end, one.position + one.messages)
    _insert_delivery_rows(connection, beyond)
    # By far most are alone: between one person's messages lie those of all others.
    for alone, some in itertools.groupby(before_end, lambda one: one.messages == 1):
        if alone:
            connection.executemany(
                _INSERT_UNLESS_DELIVERED, [(o.position, o.connections, o.at_ms) for o in some]
            )
        else:
            for one in some:
                _insert_gaps(connection, one)


def _insert_gaps(connection: sqlite3.Connection, one: _Delivery) -> None:
    rows: list[int] = []
    position, upto = one.position, one.position + one.messages
    for taken, messages in connection.execute(_DELIVERED, (position, upto)).fetchall():
        if position < taken:
            rows += (position, one.connections, one.at_ms, taken - position)
        position = max(position, taken + messages)
    if position < upto:
        rows += (position, one.connections, one.at_ms, upto - position)
    _insert_delivery_rows(connection, rows)


def _insert_delivery_rows(connection: sqlite3.Connection, rows: list[int]) -> None:
    insert_rows(
        connection,
        "INSERT INTO deliveries (position, connections, at_ms, messages)",
        "(?, ?, ?, ?)",
        rows,
    )


def _event(row: tuple[Any, ...]) -> Event:
    kind, position, conversation, actor, peer = row[N_COLUMNS:]
    if kind == EventKind.ERASED:
        return erased_event(conversation, actor, peer, position)
    return Event(EventKind(kind), position, message_of(row))


_DELIVERIES_END = "SELECT position + messages FROM deliveries ORDER BY position DESC LIMIT 1"

_INSERT_UNLESS_DELIVERED = """
INSERT INTO deliveries (position, connections, at_ms, messages) SELECT ?1, ?2, ?3, 1
WHERE ifnull((
    SELECT position + messages <= ?1 FROM deliveries
    WHERE position <= ?1 ORDER BY position DESC LIMIT 1
), true)
"""

_DELIVERED = """
SELECT position, messages FROM deliveries
WHERE position < ?2 AND position >=
    coalesce((SELECT max(position) FROM deliveries WHERE position <= ?1), 0)
ORDER BY position
"""

_EVENTS = f"""
SELECT {COLUMNS}, coalesce(revisions.kind, 0), inbox.position, about.id, actor.id, peer.id
FROM inbox
LEFT JOIN revisions ON revisions.position = inbox.position
LEFT JOIN messages AS message
    ON message.position = iif(revisions.position IS NULL, inbox.position, revisions.message)
LEFT JOIN conversations AS conversation ON conversation.key = message.conversation
LEFT JOIN users AS sender ON sender.key = message.sender
LEFT JOIN users AS recipient ON recipient.key =
    CASE message.sender WHEN conversation.low THEN conversation.high ELSE conversation.low END
LEFT JOIN conversations AS about ON about.key = revisions.conversation
LEFT JOIN users AS actor ON actor.key = revisions.actor
LEFT JOIN users AS peer
    ON peer.key = CASE revisions.actor WHEN about.low THEN about.high ELSE about.low END
WHERE inbox.user = ? AND inbox.position > ? AND inbox.position <= ?
ORDER BY inbox.position LIMIT ?
"""

_RECEIPTS = f"""
WITH moved AS (
    SELECT conversation, user, received, read, last_position FROM members
    WHERE user = :me AND received > 0 AND marks_position >= :position
    UNION ALL
    SELECT theirs.conversation, theirs.user, theirs.received,
           iif({SHOWS_READ.format(person="peer", viewer=":me")}, theirs.read, 0),
           mine.last_position
    FROM members AS mine
    CROSS JOIN members AS theirs
        ON theirs.user = mine.peer AND theirs.conversation = mine.conversation
    CROSS JOIN users AS peer ON peer.key = theirs.user
    WHERE mine.user = :me AND theirs.received > 0 AND theirs.marks_position >= :position
        AND (theirs.received_position >= :position
             OR {SHOWS_READ.format(person="peer", viewer=":me")})
), newest AS (SELECT * FROM moved ORDER BY +last_position DESC LIMIT 1000)
SELECT conversations.id, users.id, received, read
FROM newest
CROSS JOIN conversations ON conversations.key = newest.conversation
CROSS JOIN users ON users.key = newest.user
"""
"""It looks at all conversations of a person, half a microsecond each, and sorts those in which a
mark moved. An index of when they move would be further pages that each mark writes."""

_TO_ERASE = """
SELECT conversations.id
FROM members AS mine
CROSS JOIN conversations ON conversations.key = mine.conversation
WHERE mine.user = ?1
AND mine.conversation > coalesce((SELECT key FROM conversations WHERE id = ?2), 0)
AND EXISTS (
    SELECT 1 FROM places CROSS JOIN messages USING (position)
    WHERE places.conversation = mine.conversation AND messages.sender = mine.user
      AND NOT messages.deleted
) ORDER BY mine.conversation LIMIT 100
"""
