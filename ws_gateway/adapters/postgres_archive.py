"""History, conversation list, search and traces on PostgreSQL."""

import itertools
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from shared.ids import ConversationId, UserId, conversation_id
from shared.postgres import Connection, Postgres
from ws_gateway.adapters.postgres_rows import (
    CHAT,
    CHAT_JOINS,
    MESSAGE,
    ONE,
    SHOWS_READ,
    available,
    chat_of,
    is_storable,
    message_of,
)
from ws_gateway.adapters.postgres_search import index_some, person_word, text_query
from ws_gateway.adapters.search_words import phrases_of, snippet
from ws_gateway.ports import (
    ConversationSummary,
    MessagePage,
    SearchHit,
    SearchPage,
    StoreUnavailable,
    Trace,
)

__all__ = ["PostgresMessageArchive"]

_INDEX_MESSAGES = 200
"""So many one transaction indexes: making their documents takes the event loop some 3 ms."""
_INDEX_CONVERSATIONS = 200
"""So many one transaction locks."""
_INDEX_CHUNKS = 250
"""A search indexes at most 50,000 more messages before it answers."""
_BEYOND = 2**62


class PostgresMessageArchive:
    """A `MessageArchive` on an open database. Search alone lags, and catches up when asked."""

    def __init__(
        self,
        database: Postgres,
        unindexed: MutableMapping[int, None],
        write_deliveries: Callable[[], Awaitable[None]],
    ) -> None:
        """`unindexed` are the keys of conversations that wait to be indexed here.

        `write_deliveries` writes down the deliveries that are remembered only so far.
        """
        self._database = database
        self._unindexed = unindexed
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
        newest_first = after is None
        statement = _HISTORY_BEFORE if newest_first else _HISTORY_AFTER
        bound = min(before or _BEYOND if after is None else after, _BEYOND)
        rows = await self._fetch(statement, conversation_id(user_id, peer_id), bound, limit + 1)
        messages = [message_of(row, chat_of(row)) for row in rows[:limit]]
        if newest_first:
            messages.reverse()
        return MessagePage(messages, more=len(rows) > limit)

    async def conversations(
        self, user_id: UserId, before_position: int | None, limit: int
    ) -> list[ConversationSummary]:
        """Return a user's conversations; see `MessageArchive`."""
        before = _BEYOND if before_position is None else before_position
        rows = await self._fetch(_CONVERSATIONS, user_id, before, limit)
        return [_summary(row, user_id) for row in rows]

    async def peers(self, user_id: UserId, after: int, limit: int) -> list[tuple[int, UserId]]:
        """Return whom a user has a conversation with; see `MessageArchive`."""
        return [(row["key"], row["id"]) for row in await self._fetch(_PEERS, user_id, after, limit)]

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
        """Find messages; see `MessageArchive`. Positions are those of the user's own log."""
        phrases, last_is_prefix = phrases_of(query)
        keys = await self._keys(user_id, peer_id)
        if keys is None or not phrases:
            return SearchPage([], more=False, complete=True, upto=upto or 0)
        position, *people = keys
        complete = await self._catch_up(people)
        words = text_query(phrases, last_is_prefix)
        own = " & ".join(f"'{person_word(key)}'" for key in people)
        last = position if upto is None else upto
        rows = await self._fetch(
            _SEARCH, f"{own} & {words}", words, people[0], last, limit + 1, offset
        )
        hits = [
            SearchHit(message_of(row, chat_of(row)), snippet(row["text"], phrases, last_is_prefix))
            for row in rows[:limit]
        ]
        return SearchPage(hits, more=len(rows) > limit, complete=complete, upto=last)

    async def index_search(self) -> bool:
        """Let search catch up a little with what was stored here; returns whether it has.

        Raises:
            StoreUnavailable: not now.
        """
        waiting = list(itertools.islice(self._unindexed, _INDEX_CONVERSATIONS))
        if waiting:
            for key in waiting:  # those that get messages meanwhile are put in again
                del self._unindexed[key]
            done: set[int] = set()
            try:
                done, messages = await self._index(waiting, wait=False)
            finally:
                self._unindexed.update(dict.fromkeys(set(waiting).difference(done)))
            if not done and not messages:  # others are at it
                return True
        return not self._unindexed

    async def trace(self, user_id: UserId, conversation: ConversationId, seq: int) -> Trace | None:
        """Return what happened to a message; see `MessageArchive`."""
        if not is_storable(conversation):
            return None
        await self._write_deliveries()
        rows = await self._fetch(_TRACE, conversation, seq)
        if not rows:
            return None
        (row,) = rows
        message = message_of(row, chat_of(row))
        if message.sender != user_id:
            return None
        return Trace(
            message,
            row["delivered_at_ms"],
            row["connections"] or 0,
            row["received_at_ms"],
            row["read_at_ms"],
        )

    async def _keys(self, user_id: UserId, peer_id: UserId | None) -> list[int] | None:
        """Return the user's position and key, and the peer's key if there is one to look for."""
        if peer_id is not None and (peer_id == user_id or not is_storable(peer_id)):
            return None
        rows = await self._fetch(_KEYS, user_id, peer_id)
        if not rows or (peer_id is not None and rows[0]["peer"] is None):
            return None
        return [key for key in rows[0] if key is not None]

    async def _catch_up(self, people: list[int]) -> bool:
        """Index what is missing of somebody's conversations, or of the one of two people."""
        peer = people[1] if len(people) > 1 else None
        try:
            pending = [row["key"] for row in await self._fetch(_PENDING, people[0], peer)]
            for _ in range(_INDEX_CHUNKS):
                if not pending:
                    return True
                done, _ = await self._index(pending[:_INDEX_CONVERSATIONS], wait=True)
                pending = [key for key in pending if key not in done]
        except StoreUnavailable:  # what is indexed can be searched
            return False
        return not pending

    async def _index(self, conversations: list[int], *, wait: bool) -> tuple[set[int], int]:
        return await available(
            self._database.write(lambda c: index_some(c, conversations, _INDEX_MESSAGES, wait=wait))
        )

    async def _fetch(self, statement: str, *arguments: object) -> list[Any]:
        async def read(connection: Connection) -> Any:
            return await connection.fetch(statement, *arguments)

        return list(await available(self._database.read(read)))


def _summary(row: Any, user_id: UserId) -> ConversationSummary:
    chat = chat_of(row)
    shows_last_seen = row["shares_presence"] and not row["blocked"]
    return ConversationSummary(
        conversation=chat.id,
        peer=chat.peer_of(user_id)[1],
        peer_last_seen_ms=row["last_seen_ms"] if shows_last_seen else None,
        last_message=message_of(row, chat),
        unread=row["unread"],
        received=row["received"],
        read=row["read"],
        peer_received=row["peer_received"],
        peer_read=row["peer_read"],
        position=row["place"],
    )


_HISTORY = f"""
SELECT {MESSAGE}, {CHAT}
FROM conversations AS chat
{CHAT_JOINS}
CROSS JOIN LATERAL (
    SELECT * FROM messages WHERE conversation = chat.key AND {{place}} LIMIT $3
) AS message
WHERE chat.id = $1 ORDER BY {{order}}
"""
_HISTORY_BEFORE = _HISTORY.format(
    place="seq < $2::bigint ORDER BY seq DESC", order="message.seq DESC"
)
_HISTORY_AFTER = _HISTORY.format(place="seq > $2::bigint ORDER BY seq", order="message.seq")
"""Within LATERAL the index has the order, and LIMIT ends the scan: conversations may be long."""

_CONVERSATIONS = f"""
WITH me AS MATERIALIZED (SELECT key FROM users WHERE id = $1)
SELECT {MESSAGE}, {CHAT}, chat.place,
       peer.last_seen_ms, peer.shares_presence,
       mine.received, mine.read, theirs.received AS peer_received,
       CASE WHEN {SHOWS_READ.format(person="peer", viewer="mine.person")} THEN theirs.read END
           AS peer_read,
       EXISTS (SELECT FROM blocks WHERE (blocker, blocked) = (mine.person, theirs.person))
       OR EXISTS (SELECT FROM blocks WHERE (blocker, blocked) = (theirs.person, mine.person))
           AS blocked,
       chat.written - coalesce(
           CASE mine.person WHEN chat.low THEN seen.seq - seen.low_count ELSE seen.low_count END, 0
       ) AS unread
FROM (
    (SELECT *, low AS person, low_position AS place, last_seq - low_count AS written
     FROM conversations
     WHERE low = (SELECT key FROM me) AND low_position < $2 AND low_recency <= $2 >> 8
       AND last_seq > 0
     ORDER BY low_recency DESC, low_position DESC LIMIT $3)
    UNION ALL
    (SELECT *, high, high_position, low_count
     FROM conversations
     WHERE high = (SELECT key FROM me) AND high_position < $2 AND high_recency <= $2 >> 8
       AND last_seq > 0
     ORDER BY high_recency DESC, high_position DESC LIMIT $3)
    ORDER BY place DESC LIMIT $3
) AS chat
{CHAT_JOINS}
CROSS JOIN LATERAL {ONE.format(chat="chat.key", seq="chat.last_seq")} AS message
JOIN members AS mine ON mine.conversation = chat.key AND mine.person = chat.person
JOIN members AS theirs
    ON theirs.conversation = chat.key AND theirs.person = chat.low + chat.high - chat.person
JOIN users AS peer ON peer.key = theirs.person
LEFT JOIN LATERAL {ONE.format(chat="chat.key", seq="mine.read")} AS seen ON true
ORDER BY chat.place DESC
"""
"""The index has the order but for the last eight bits of a place; PostgreSQL sorts the rest."""

_PEERS = """
WITH me AS (SELECT key FROM users WHERE id = $1)
SELECT chat.key, peer.id
FROM me CROSS JOIN LATERAL (
    SELECT key, high AS peer, last_seq FROM conversations WHERE low = me.key
    UNION ALL
    SELECT key, low, last_seq FROM conversations WHERE high = me.key
) AS chat
JOIN users AS peer ON peer.key = chat.peer
WHERE chat.key > $2 AND chat.last_seq > 0
ORDER BY chat.key LIMIT $3
"""

_KEYS = """
SELECT me.position, me.key, (SELECT key FROM users WHERE id = $2) AS peer
FROM users AS me WHERE me.id = $1
"""

_PENDING = """
SELECT chat.key
FROM (
    SELECT key, high AS peer, last_seq FROM conversations WHERE low = $1
    UNION ALL
    SELECT key, low, last_seq FROM conversations WHERE high = $1
) AS chat
JOIN indexed ON indexed.conversation = chat.key AND indexed.seq < chat.last_seq
WHERE chat.peer = $2 OR $2::integer IS NULL
"""

_SEARCH = f"""
SELECT {MESSAGE}, {CHAT}
FROM (
    SELECT message.*, own.place, ts_rank(search.words, $2::text::tsquery, 2) AS rank
    FROM search
    CROSS JOIN LATERAL {ONE.format(chat="search.conversation", seq="search.seq")} AS message
    CROSS JOIN LATERAL (
        SELECT CASE message.sender WHEN $3 THEN sender_position ELSE recipient_position END AS place
    ) AS own
    WHERE search.words @@ $1::text::tsquery AND own.place <= $4
    ORDER BY rank DESC, own.place DESC LIMIT $5 OFFSET $6
) AS message
JOIN conversations AS chat ON chat.key = message.conversation
{CHAT_JOINS}
ORDER BY message.rank DESC, message.place DESC
"""
"""Ranked by the text alone, shorter texts first."""

_TRACE = f"""
SELECT {MESSAGE}, {CHAT}, deliveries.at_ms AS delivered_at_ms, deliveries.connections,
       (SELECT at_ms FROM marks WHERE marks.conversation = chat.key
        AND marks.person = message.recipient AND NOT marks.read AND marks.seq >= message.seq
        ORDER BY marks.seq LIMIT 1) AS received_at_ms,
       CASE WHEN {SHOWS_READ.format(person="recipient", viewer="message.sender")} THEN
       (SELECT at_ms FROM marks WHERE marks.conversation = chat.key
        AND marks.person = message.recipient AND marks.read AND marks.seq >= message.seq
        ORDER BY marks.seq LIMIT 1) END AS read_at_ms
FROM conversations AS chat
{CHAT_JOINS}
CROSS JOIN LATERAL {ONE.format(chat="chat.key", seq="$2::bigint")} AS message
JOIN users AS recipient ON recipient.key = message.recipient
LEFT JOIN deliveries
    ON deliveries.conversation = message.conversation AND deliveries.seq = message.seq
WHERE chat.id = $1
"""
