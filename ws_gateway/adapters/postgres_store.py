"""The message store on PostgreSQL, which many gateways share: a log for each person (ADR 16)."""

import time
from collections.abc import Iterable, Sequence
from typing import Any

from shared.ids import ConversationId, UserId
from shared.postgres import Connection, Postgres
from ws_gateway.adapters.postgres_append import APPEND, Growth
from ws_gateway.adapters.postgres_chats import Chats
from ws_gateway.adapters.postgres_rows import (
    CHAT,
    CHAT_JOINS,
    MESSAGE,
    ONE,
    SHOWS_READ,
    available,
    chat_of,
    erased_message,
    message_of,
    place_of,
)
from ws_gateway.adapters.postgres_transaction import make_changes
from ws_gateway.conversations import Appended, Change, Draft, Event, EventKind, Mark, Outcome
from ws_gateway.ports import EventPage, StoreUnavailable

__all__ = ["PostgresMessageStore"]

_RECEIPT_OVERLAP = 64
"""A receipt goes another way than events do: a client may be told of so many later events first,
and have a cursor behind them. To be told of a receipt twice does no harm."""

_MAX_DELIVERIES = 2_000
"""So many one statement writes down."""
_WRITE_DELIVERIES_AFTER_S = 1.0
_MAX_UNINDEXED = 100_000
"""Conversations that are remembered for being indexed. A search finds the others by itself."""


class PostgresMessageStore:
    """A `MessageStore` in a database that other gateways write to at the same time.

    It changes conversations by `commits`, the one connection of the one committer: those who read,
    however many come at once and whatever they wait for, keep nobody from sending.
    """

    def __init__(self, database: Postgres, commits: Postgres, epoch: str) -> None:
        self._database = database
        self._commits = commits
        self._epoch = epoch
        self._chats = Chats(commits)
        self._deliveries: list[tuple[int, int, int]] = []
        self._written_at = time.monotonic()
        self.unindexed: dict[int, None] = {}
        """Conversations that got messages here, for whoever indexes them."""

    @classmethod
    async def over(cls, database: Postgres, commits: Postgres) -> "PostgresMessageStore":
        """Make the store of an open database.

        Raises:
            StoreUnavailable: it cannot be used.
        """
        return cls(database, commits, await available(database.read(_epoch)))

    @property
    def epoch(self) -> str:
        """The name of this database's life."""
        return self._epoch

    async def append_batch(self, changes: Sequence[Change], at_ms: int) -> list[Outcome]:
        """Make changes in one transaction; see `MessageStore`.

        Most batches are one statement; what needs a closer look costs some more round trips.
        """
        try:
            await self._chats.learn(changes)
            outcomes = await self._append(changes, at_ms)
            if outcomes is None:
                outcomes = await available(
                    self._commits.write(lambda c: make_changes(c, self._chats, changes, at_ms))
                )
        except StoreUnavailable:
            raise
        except BaseException:
            self._chats.forget()  # its keys may be of a database that was put back
            raise
        self._note_unindexed(outcomes)
        return outcomes

    async def positions_of(self, user_ids: Sequence[UserId]) -> list[int]:
        """Return where the logs of these users end; see `SharedLogs`."""

        async def read(connection: Connection) -> Any:
            return await connection.fetch(_POSITIONS, user_ids)

        return [row["position"] for row in await available(self._database.read(read))]

    async def position_of(self, user_id: UserId) -> int:
        """Return where a user's log ends; see `MessageStore`."""

        async def read(connection: Connection) -> Any:
            return await connection.fetchval(_POSITION, user_id)

        return int(await available(self._database.read(read)))

    async def events_after(self, user_id: UserId, position: int, limit: int) -> EventPage:
        """Return what concerns a user after `position`; see `MessageStore`."""

        async def read(connection: Connection) -> Any:
            return await connection.fetch(_EVENTS, user_id, position, limit)

        rows = await available(self._database.read(read))
        events = [_event(row) for row in rows if row["kind"] is not None]
        complete = len(events) < limit
        end = rows[0]["position"] if rows else position
        upto = end if complete else events[-1].position_for(user_id)
        return EventPage(events, max(upto, position), complete)

    async def receipts_after(
        self, user_id: UserId, position: int
    ) -> list[tuple[ConversationId, UserId, int, int]]:
        """Return marks that moved after `position`; see `MessageStore`."""

        async def read(connection: Connection) -> Any:
            return await connection.fetch(_RECEIPTS, user_id, position - _RECEIPT_OVERLAP)

        return [tuple(row) for row in await available(self._database.read(read))]

    def note_deliveries(self, deliveries: Iterable[tuple[int, int]], at_ms: int) -> None:
        """Remember that messages went out; see `MessageStore`."""
        self._deliveries += [(position, connections, at_ms) for position, connections in deliveries]

    async def tidy_up(self) -> None:
        """Write deliveries down, about once a second.

        Raises:
            StoreUnavailable: not now.
        """
        is_due = time.monotonic() - self._written_at >= _WRITE_DELIVERIES_AFTER_S
        if is_due or len(self._deliveries) >= _MAX_DELIVERIES:
            await self.write_deliveries()
            self._written_at = time.monotonic()

    async def write_deliveries(self) -> None:
        """Write down deliveries that were noted.

        Raises:
            StoreUnavailable: not now; they are kept.
        """
        while self._deliveries:
            await self._write_first_deliveries()

    async def _write_first_deliveries(self) -> None:
        noted = self._deliveries[:_MAX_DELIVERIES]
        del self._deliveries[: len(noted)]
        first: dict[tuple[int, int], tuple[int, int]] = {}
        for position, connections, at_ms in noted:
            first.setdefault(place_of(position), (connections, at_ms))
        rows = [(*place, *delivery) for place, delivery in sorted(first.items())]

        async def insert(connection: Connection) -> None:
            await connection.execute(_DELIVERIES, *zip(*rows, strict=True))

        try:
            await available(self._database.autocommit(insert))
        except StoreUnavailable:
            self._deliveries[:0] = noted
            raise

    async def conversations_to_erase(
        self, user_id: UserId, after: ConversationId | None = None
    ) -> list[ConversationId]:
        """Return some conversations with text of this user; see `MessageStore`."""

        async def read(connection: Connection) -> Any:
            return await connection.fetch(_TO_ERASE, user_id, after)

        return [row["id"] for row in await available(self._database.read(read))]

    async def is_available(self) -> bool:
        """Whether a trivial read works."""
        try:
            await self._database.read(_epoch)
        except Exception:  # whatever it is, the store does not answer
            return False
        return True

    async def _append(self, changes: Sequence[Change], at_ms: int) -> list[Outcome] | None:
        simple = [change for change in changes if isinstance(change, Draft | Mark)]
        if len(simple) < len(changes):
            return None
        growth = Growth(simple, self._chats, at_ms)
        if growth.is_empty:
            return growth.outcomes(None)

        async def append(connection: Connection) -> Any:
            return await connection.fetchrow(APPEND, *growth.arguments())

        row = await available(self._commits.autocommit(append))
        return None if row is None else growth.outcomes(row)

    def _note_unindexed(self, outcomes: Sequence[Outcome]) -> None:
        if len(self.unindexed) > _MAX_UNINDEXED:
            self.unindexed.clear()
        self.unindexed.update(
            (place_of(outcome.event.message.position)[0], None)
            for outcome in outcomes
            if isinstance(outcome, Appended) and not outcome.duplicate
        )


async def _epoch(connection: Connection) -> str:
    return str(await connection.fetchval("SELECT epoch FROM life"))


def _event(row: Any) -> Event:
    kind, chat = EventKind(row["kind"]), chat_of(row)
    if kind is EventKind.ERASED:
        actor = chat.low_id if row["actor"] == chat.low else chat.high_id
        message = erased_message(chat, actor)
    else:
        message = message_of(row, chat)
    return Event(kind, row["actor_position"], message, row["peer_position"])


_POSITION = """
SELECT coalesce((SELECT position FROM users WHERE id = $1), (SELECT first_position FROM life))
"""

_POSITIONS = """
SELECT coalesce(users.position, life.first_position) AS position
FROM life, unnest($1::text[]) WITH ORDINALITY AS asked (id, n)
LEFT JOIN users ON users.id = asked.id
ORDER BY asked.n
"""

_EVENTS = f"""
SELECT me.position, event.kind, event.actor, event.actor_position, event.peer_position,
       {MESSAGE}, {CHAT}
FROM users AS me
LEFT JOIN LATERAL (
    SELECT * FROM (
        (SELECT sender_position AS place, sender AS actor, sender_position AS actor_position,
                recipient_position AS peer_position, conversation, seq, 0 AS kind
         FROM messages WHERE sender = me.key AND sender_position > $2
         ORDER BY sender_position LIMIT $3)
        UNION ALL
        (SELECT recipient_position, sender, sender_position, recipient_position,
                conversation, seq, 0
         FROM messages WHERE recipient = me.key AND recipient_position > $2
         ORDER BY recipient_position LIMIT $3)
        UNION ALL
        (SELECT actor_position, actor, actor_position, peer_position, conversation, seq, kind
         FROM revisions WHERE actor = me.key AND actor_position > $2
         ORDER BY actor_position LIMIT $3)
        UNION ALL
        (SELECT peer_position, actor, actor_position, peer_position, conversation, seq, kind
         FROM revisions WHERE peer = me.key AND peer_position > $2
         ORDER BY peer_position LIMIT $3)
    ) AS log ORDER BY place LIMIT $3
) AS event ON true
LEFT JOIN LATERAL {ONE.format(chat="event.conversation", seq="event.seq")} AS message ON true
LEFT JOIN conversations AS chat ON chat.key = event.conversation
LEFT {CHAT_JOINS.strip().replace(chr(10), chr(10) + "LEFT ")}
WHERE me.id = $1
ORDER BY event.place
"""

_RECEIPTS = f"""
WITH me AS (SELECT key FROM users WHERE id = $1)
SELECT chat.id, person.id, members.received,
       CASE WHEN shown THEN members.read ELSE 0 END
FROM me
CROSS JOIN LATERAL (
    SELECT key, id, low, high, low_position AS place FROM conversations WHERE low = me.key
    UNION ALL
    SELECT key, id, low, high, high_position FROM conversations WHERE high = me.key
) AS chat
JOIN members ON members.conversation = chat.key AND members.person IN (chat.low, chat.high)
JOIN users AS person ON person.key = members.person
CROSS JOIN LATERAL (
    SELECT person.key = me.key OR {SHOWS_READ.format(person="person", viewer="me.key")} AS shown
) AS reads
WHERE members.received > 0
    AND CASE members.person WHEN me.key THEN own_position ELSE peer_position END >= $2
    AND (peer_received_position >= $2 OR shown)
ORDER BY chat.place DESC LIMIT 1000
"""

_DELIVERIES = """
INSERT INTO deliveries (conversation, seq, connections, at_ms)
SELECT * FROM unnest($1::integer[], $2::integer[], $3::integer[], $4::bigint[])
ON CONFLICT DO NOTHING
"""

_TO_ERASE = """
WITH me AS (SELECT key FROM users WHERE id = $1)
SELECT chat.id
FROM me CROSS JOIN LATERAL (
    SELECT key, id FROM conversations WHERE low = me.key
    UNION ALL
    SELECT key, id FROM conversations WHERE high = me.key
) AS chat
WHERE chat.key > coalesce((SELECT key FROM conversations WHERE id = $2), 0) AND EXISTS (
    SELECT FROM messages
    WHERE messages.conversation = chat.key AND messages.sender = me.key AND NOT messages.deleted
) ORDER BY chat.key LIMIT 100
"""
