"""History, conversation list, search and traces on SQLite."""

import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec

from shared.ids import ConversationId, UserId, conversation_id
from shared.sqlite import Database
from ws_gateway.adapters.sqlite_backlog import Sent
from ws_gateway.adapters.sqlite_indexes import index_search, indexed_upto, merge_search
from ws_gateway.adapters.sqlite_rows import (
    COLUMNS,
    JOINS,
    N_COLUMNS,
    available,
    message_of,
    user_key,
)
from ws_gateway.ports import (
    ConversationSummary,
    MessagePage,
    SearchHit,
    SearchPage,
    StoreUnavailable,
    Trace,
)

__all__ = ["SqliteMessageArchive"]

_INDEX_CHUNK = 500
_MERGED_PAGES = 16
"""What one step merges, or a word: the next batch waits for it."""
_MERGES = 32
"""Steps after each chunk, at most: as many pages as it adds, for each of twelve fourfold parts."""
_INDEX_CHUNKS = 100
"""A search indexes at most 50,000 more messages before it answers."""

_MAX_RANKED = 10_000
"""Matches that one search looks at, the newest ones: to rank all of two million took 19 s."""


class SqliteMessageArchive:
    """A `MessageArchive` on an open database."""

    def __init__(
        self,
        database: Database,
        settle: Callable[[UserId], Awaitable[None]],
        unsettled: Callable[[UserId, UserId], Sequence[Sent]],
        write_deliveries: Callable[[], Awaitable[None]],
    ) -> None:
        """`settle` brings what follows the log up to it for a user: reads call it first, but for
        history, which adds what is `unsettled`.

        `write_deliveries` writes down the deliveries that are remembered only so far.
        """
        self._database = database
        self._settle = settle
        self._unsettled = unsettled
        self._merges = 0
        """Steps of merging that what was indexed last may still need."""
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
        words = _match_expression(query)
        try:
            complete = await self.index_search(_INDEX_CHUNKS)
        except StoreUnavailable:
            complete = False

        def read(connection: sqlite3.Connection) -> SearchPage:
            last = indexed_upto(connection) if upto is None else upto
            people = [user_key(connection, user_id)]
            if peer_id is not None:
                people.append(user_key(connection, peer_id))
            if None in people or not words:
                return SearchPage([], more=False, complete=complete, upto=last)
            of_people = " AND ".join(f"people:u{key}" for key in people)
            rows = connection.execute(
                _SEARCH, (f"{of_people} AND text:({words})", last, limit + 1, offset)
            ).fetchall()
            hits = [SearchHit(message_of(row), row[N_COLUMNS]) for row in rows[:limit]]
            return SearchPage(hits, more=len(rows) > limit, complete=complete, upto=last)

        return await available(self._database.read(read))

    async def index_search(self, chunks: int = 1) -> bool:
        """Let the search index catch up by some chunks; returns whether it is at the log's end."""
        for _ in range(chunks):
            is_complete = await self._index_chunk()
            while self._merges:
                await self._merge()
            if is_complete:
                return True
        return False

    async def go_on_indexing(self) -> bool:
        """Let the search index catch up by one transaction; returns whether all is done."""
        if self._merges:
            await self._merge()
            return False
        return await self._index_chunk() and not self._merges

    async def _index_chunk(self) -> bool:
        is_complete, has_grown = await available(
            self._database.write(lambda c: index_search(c, _INDEX_CHUNK))
        )
        self._merges = _MERGES if has_grown else 0
        return is_complete

    async def _merge(self) -> None:
        has_merged = await available(self._database.write(lambda c: merge_search(c, _MERGED_PAGES)))
        self._merges = max(0, self._merges - 1) if has_merged else 0

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
    peer, last_seen, shares_presence, shares_reads = row[N_COLUMNS : N_COLUMNS + 4]
    received, read, peer_received, peer_read, position, blocked, unread = row[N_COLUMNS + 4 :]
    return ConversationSummary(
        conversation=row[0],
        peer=peer,
        peer_last_seen_ms=last_seen if shares_presence and not blocked else None,
        last_message=message_of(row),
        unread=unread,
        received=received,
        read=read,
        peer_received=peer_received,
        peer_read=peer_read if shares_reads else None,
        position=position,
    )


def _match_expression(query: str) -> str:
    """Quote each word, so that nothing in it is FTS5 syntax; the last may be the start of one.

    All must match, but for those without a letter or digit: where no operator stands, FTS5 passes
    over a phrase that its tokenizer leaves empty. It would end the query at U+0000.
    """
    words = query.replace("\x00", " ").split()
    return " ".join('"' + word.replace('"', '""') + '"' for word in words) + "*" if words else ""


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
SELECT {COLUMNS}, peer.id, peer.last_seen_ms, peer.shares_presence, peer.shares_reads,
       mine.received, mine.read, theirs.received, theirs.read, mine.last_position,
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

_SEARCH = f"""
WITH newest AS (
    SELECT rowid AS position, bm25(search, 0.0, 1.0) AS score FROM search
    WHERE search MATCH ?1 AND rowid <= ?2 ORDER BY rowid DESC LIMIT {_MAX_RANKED}
), page AS (
    SELECT position, score FROM newest ORDER BY score, position DESC LIMIT ?3 OFFSET ?4
)
SELECT {COLUMNS}, (
    SELECT snippet(search, 1, '«', '»', '…', 12) FROM search
    WHERE search MATCH ?1 AND search.rowid = page.position
)
FROM page CROSS JOIN messages AS message USING (position)
{JOINS}
ORDER BY page.score, page.position DESC
"""
"""Ranked by the text alone: how rare a person's messages are says nothing."""

_TRACE = f"""
SELECT {COLUMNS}, deliveries.at_ms, deliveries.connections,
       (SELECT min(at_ms) FROM marks WHERE marks.conversation = message.conversation
        AND user = recipient.key AND read = 0 AND marks.seq >= message.seq),
       CASE WHEN recipient.shares_reads THEN
       (SELECT min(at_ms) FROM marks WHERE marks.conversation = message.conversation
        AND user = recipient.key AND read = 1 AND marks.seq >= message.seq) END
FROM conversations AS named
CROSS JOIN places ON places.conversation = named.key
CROSS JOIN messages AS message ON message.position = places.position
{JOINS}
LEFT JOIN deliveries ON message.position < deliveries.position + deliveries.messages
    AND deliveries.position =
        (SELECT max(position) FROM deliveries WHERE position <= message.position)
WHERE named.id = ? AND places.seq = ?
"""
