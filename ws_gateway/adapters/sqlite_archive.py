"""History, conversation list and traces on SQLite, and search through its index."""

import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec

from shared.ids import ConversationId, UserId, conversation_id
from shared.sqlite import Database
from ws_gateway.adapters.sqlite_backlog import Sent
from ws_gateway.adapters.sqlite_marks import MARKED_AT
from ws_gateway.adapters.sqlite_rows import (
    COLUMNS,
    JOINS,
    N_COLUMNS,
    SHOWS_READ,
    available,
    message_of,
    user_key,
)
from ws_gateway.adapters.sqlite_search import SqliteSearch
from ws_gateway.ports import (
    ConversationSummary,
    MessagePage,
    SearchPage,
    Trace,
)

__all__ = ["SqliteMessageArchive"]


class SqliteMessageArchive:
    """A `MessageArchive` on an open database."""

    def __init__(
        self,
        database: Database,
        search: SqliteSearch,
        settle: Callable[[UserId], Awaitable[None]],
        unsettled: Callable[[UserId, UserId], Sequence[Sent]],
        write_deliveries: Callable[[], Awaitable[None]],
    ) -> None:
        """`settle` brings what follows the log up to it for a user: reads call it first, but for
        history, which adds what is `unsettled`.

        `write_deliveries` writes down the deliveries that are remembered only so far.
        """
        self._database = database
        self._search = search
        self._settle = settle
        self._unsettled = unsettled
        self._write_deliveries = write_deliveries

    async def history(
        self,
        user_id: UserId,
        peer_id: UserId,
        *,
        before: int | None,
        after: int | None,
        limit: int,
    ) -> MessagePage:
        """Return messages of two people; see `MessageArchive`."""
        public_id = conversation_id(user_id, peer_id)
        newest_first = after is None
        bound = before or 2**62 if after is None else after
        waiting = _nearest(self._unsettled(user_id, peer_id), bound, newest_first, limit + 1)

        def read(connection: sqlite3.Connection) -> MessagePage:
            statement = _HISTORY_BEFORE if newest_first else _HISTORY_AFTER
            rows = connection.execute(statement, (public_id, bound, limit + 1)).fetchall()
            if waiting:
                rows += connection.execute(_AT, (msgspec.json.encode(waiting).decode(),))
                by_seq = {row[1]: row for row in rows}
                rows = [by_seq[seq] for seq in sorted(by_seq, reverse=newest_first)][: limit + 1]
            messages = [message_of(row) for row in rows[:limit]]
            if newest_first:
                messages.reverse()
            return MessagePage(messages, more=len(rows) > limit)

        return await available(self._database.read(read))

    async def conversations(
        self, user_id: UserId, before_position: int | None, limit: int
    ) -> list[ConversationSummary]:
        """Return a user's conversations; see `MessageArchive`."""
        await self._settle(user_id)

        def read(connection: sqlite3.Connection) -> list[ConversationSummary]:
            rows = connection.execute(
                _CONVERSATIONS,
                {
                    "me": user_key(connection, user_id),
                    "before": 2**62 if before_position is None else before_position,
                    "limit": limit,
                },
            )
            return [_summary(row) for row in rows]

        return await available(self._database.read(read))

    async def peers(self, user_id: UserId, after: int, limit: int) -> list[tuple[int, UserId]]:
        """Return whom a user has a conversation with; see `MessageArchive`."""
        await self._settle(user_id)

        def read(connection: sqlite3.Connection) -> list[tuple[int, UserId]]:
            key = user_key(connection, user_id)
            return connection.execute(_PEERS, (key, after, limit)).fetchall()

        return await available(self._database.read(read))

    async def search(
        self,
        user_id: UserId,
        query: str,
        peer_id: UserId | None,
        *,
        upto: int | None,
        offset: int,
        limit: int,
    ) -> SearchPage:
        """Find messages; see `MessageArchive`."""
        return await self._search.find(
            user_id, query, peer_id, upto=upto, offset=offset, limit=limit
        )

    async def trace(self, user_id: UserId, conversation: ConversationId, seq: int) -> Trace | None:
        """Return what happened to a message; see `MessageArchive`."""
        await self._settle(user_id)
        await self._write_deliveries()

        def read(connection: sqlite3.Connection) -> Trace | None:
            row = connection.execute(_TRACE, (conversation, seq)).fetchone()
            if row is None or row[3] != user_id:
                return None
            delivered_at_ms, connections, received_at_ms, read_at_ms = row[N_COLUMNS:]
            return Trace(
                message_of(row), delivered_at_ms, connections or 0, received_at_ms, read_at_ms
            )

        return await available(self._database.read(read))


def _nearest(messages: Sequence[Sent], bound: int, below: bool, limit: int) -> list[int]:
    """Return the positions of the messages that come next below a seq, or above it."""
    if below:
        return [message.position for message in messages if message.seq < bound][-limit:]
    return [message.position for message in messages if message.seq > bound][:limit]


def _summary(row: tuple[Any, ...]) -> ConversationSummary:
    peer, last_seen, shares_presence = row[N_COLUMNS : N_COLUMNS + 3]
    received, read, peer_received, peer_read, position, blocked, unread = row[N_COLUMNS + 3 :]
    return ConversationSummary(
        conversation=row[0],
        peer=peer,
        peer_last_seen_ms=last_seen if shares_presence and not blocked else None,
        last_message=message_of(row),
        unread=unread,
        received=received,
        read=read,
        peer_received=peer_received,
        peer_read=peer_read,
        position=position,
    )


_HISTORY = f"""
SELECT {COLUMNS}
FROM conversations AS named
CROSS JOIN places ON places.conversation = named.key
CROSS JOIN messages AS message ON message.position = places.position
{JOINS}
WHERE named.id = ?
"""
_HISTORY_BEFORE = _HISTORY + "AND places.seq < ? ORDER BY places.seq DESC LIMIT ?"
_HISTORY_AFTER = _HISTORY + "AND places.seq > ? ORDER BY places.seq LIMIT ?"

_AT = f"""
SELECT {COLUMNS}
FROM json_each(?) AS wanted
CROSS JOIN messages AS message ON message.position = wanted.value
{JOINS}
"""

_CONVERSATIONS = f"""
SELECT {COLUMNS}, peer.id, peer.last_seen_ms, peer.shares_presence,
       mine.received, mine.read, theirs.received,
       CASE WHEN {SHOWS_READ.format(person="peer", viewer=":me")} THEN theirs.read END,
       mine.last_position,
       EXISTS (SELECT 1 FROM blocks WHERE blocker = :me AND blocked = mine.peer)
       OR EXISTS (SELECT 1 FROM blocks WHERE blocker = mine.peer AND blocked = :me),
       CASE :me WHEN conversation.low THEN message.seq - message.low_count
                ELSE message.low_count END
       - coalesce(CASE :me WHEN conversation.low THEN seen.seq - seen.low_count
                           ELSE seen.low_count END, 0)
FROM members AS mine
CROSS JOIN messages AS message ON message.position = mine.last_position
{JOINS}
CROSS JOIN members AS theirs ON theirs.user = mine.peer AND theirs.conversation = mine.conversation
CROSS JOIN users AS peer ON peer.key = mine.peer
LEFT JOIN places ON places.conversation = mine.conversation AND places.seq = mine.read
LEFT JOIN messages AS seen ON seen.position = places.position
WHERE mine.user = :me AND mine.last_position < :before AND mine.last_position > 0
ORDER BY mine.last_position DESC LIMIT :limit
"""

_PEERS = """
SELECT members.conversation, users.id
FROM members CROSS JOIN users ON users.key = members.peer
WHERE members.user = ? AND members.conversation > ? AND members.last_position > 0
ORDER BY members.conversation LIMIT ?
"""

_TRACE = f"""
SELECT {COLUMNS}, deliveries.at_ms, deliveries.connections,
       {MARKED_AT.format(read=0)},
       CASE WHEN {SHOWS_READ.format(person="recipient", viewer="message.sender")}
            THEN {MARKED_AT.format(read=1)} END
FROM conversations AS named
CROSS JOIN places ON places.conversation = named.key
CROSS JOIN messages AS message ON message.position = places.position
{JOINS}
LEFT JOIN deliveries ON message.position < deliveries.position + deliveries.messages
    AND deliveries.position =
        (SELECT max(position) FROM deliveries WHERE position <= message.position)
WHERE named.id = ? AND places.seq = ?
"""
