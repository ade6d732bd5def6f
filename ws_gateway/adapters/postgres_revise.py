"""Edits, deletions and erasures, within a transaction that holds the locks of both people."""

from typing import Any

from shared.postgres import Connection
from ws_gateway.adapters.postgres_rows import (
    MESSAGE,
    Chat,
    erased_message,
    message_of,
    sent_event,
)
from ws_gateway.adapters.postgres_search import document
from ws_gateway.conversations import (
    Appended,
    Blocked,
    Conflict,
    Deletion,
    Edit,
    Erasure,
    Event,
    EventKind,
    Message,
    NotAuthor,
    NotFound,
    Outcome,
    Unfinished,
)

__all__ = ["Revise"]

_ERASE_CHUNK = 1000
"""Messages that one transaction erases: the others wait for it, a few tens of milliseconds."""


class Revise:
    """Makes one change after the other."""

    def __init__(self, connection: Connection, at_ms: int) -> None:
        self._connection = connection
        self._at_ms = at_ms

    async def make(self, change: Edit | Deletion | Erasure, chat: Chat | None) -> Outcome:
        """Make a change of something in a conversation; return what became of it."""
        if chat is None:
            return NotFound()
        if isinstance(change, Erasure):
            return await self._erase(change, chat) if chat.has(change.user) else NotFound()
        row = await self._connection.fetchrow(_MESSAGE, chat.key, change.seq)
        if row is None or not chat.has(change.author):
            return NotFound()
        message = message_of(row, chat)
        kind = EventKind.EDITED if isinstance(change, Edit) else EventKind.DELETED
        again = await self._again(change, chat, message, kind)
        if again is not None:
            return again
        if message.sender != change.author:
            return NotAuthor()
        author, (peer, _) = chat.key_of(change.author), chat.peer_of(change.author)
        if isinstance(change, Edit) and await self._connection.fetchval(_IS_BLOCKED, peer, author):
            return Blocked()
        if message.deleted:
            if isinstance(change, Edit):
                return Conflict()
            return Appended(sent_event(row, chat, kind), duplicate=True)
        return await self._revise(change, chat, kind)

    async def _again(
        self, change: Edit | Deletion, chat: Chat, message: Message, kind: EventKind
    ) -> Outcome | None:
        """Tell whether a change was made before, or its id means another one."""
        made = await self._connection.fetchrow(_MADE, change.request_id, chat.key_of(change.author))
        if made is None:
            return None
        about = (made["conversation"], made["seq"], made["kind"])
        if about != (chat.key, message.seq, kind) or not change.repeats(message, made["revision"]):
            return Conflict()
        return Appended(
            Event(kind, made["actor_position"], message, made["peer_position"]), duplicate=True
        )

    async def _revise(self, change: Edit | Deletion, chat: Chat, kind: EventKind) -> Appended:
        text = change.text if isinstance(change, Edit) else None
        row = await self._connection.fetchrow(
            _REVISE, chat.key, change.seq, text or "", text is None, self._at_ms
        )
        message = message_of(row, chat)
        event = await self._log(chat, kind, message)
        await self._connection.execute(
            "INSERT INTO changes (request_id, author, position, revision) VALUES ($1, $2, $3, $4)",
            *(change.request_id, row["sender"], event.position, message.revision),
        )
        await self._connection.execute(_FORGET, chat.key, [change.seq])
        if text is not None:
            words = document(text, chat.low, chat.high)
            await self._connection.execute(_FIND, chat.key, change.seq, words)
        return Appended(event, duplicate=False)

    async def _log(self, chat: Chat, kind: EventKind, message: Message) -> Event:
        """Put an event in both people's logs."""
        rows = await self._connection.fetch(_RAISE, [chat.low, chat.high])
        positions = {row["key"]: row["position"] for row in rows}
        actor, (peer, _) = chat.key_of(message.sender), chat.peer_of(message.sender)
        await self._connection.execute(
            _LOG,
            *(positions[actor], positions[peer], actor, peer),
            *(chat.key, message.seq or None, kind),
        )
        return Event(kind, positions[actor], message, positions[peer])

    async def _erase(self, erasure: Erasure, chat: Chat) -> Outcome:
        """Erase some messages of one conversation; the last time, note it in both logs."""
        user = chat.key_of(erasure.user)
        rows: list[Any] = await self._connection.fetch(
            _TEXTS, chat.key, erasure.after, user, _ERASE_CHUNK + 1
        )
        if not rows:
            told = await self._connection.fetchrow(_ERASED, user, chat.key, EventKind.ERASED)
            if told is not None:  # another gateway was here first
                message = erased_message(chat, erasure.user)
                event = Event(
                    EventKind.ERASED, told["actor_position"], message, told["peer_position"]
                )
                return Appended(event, duplicate=True)
        seqs = [row["seq"] for row in rows[:_ERASE_CHUNK]]
        await self._connection.execute(_ERASE, chat.key, seqs, self._at_ms)
        await self._connection.execute(_FORGET, chat.key, seqs)
        if len(rows) > _ERASE_CHUNK:
            return Unfinished(seqs[-1])
        event = await self._log(chat, EventKind.ERASED, erased_message(chat, erasure.user))
        return Appended(event, duplicate=False)


_MESSAGE = f"SELECT {MESSAGE} FROM messages AS message WHERE conversation = $1 AND seq = $2::bigint"

_MADE = """
SELECT revision, actor_position, peer_position, conversation, seq, kind
FROM changes JOIN revisions ON actor = author AND actor_position = position
WHERE request_id = $1 AND author = $2
"""

_IS_BLOCKED = "SELECT EXISTS (SELECT FROM blocks WHERE blocker = $1 AND blocked = $2)"

_REVISE = f"""
UPDATE messages AS message
SET text = $3, deleted = $4, revision = revision + 1, changed_at_ms = $5
WHERE conversation = $1 AND seq = $2
RETURNING {MESSAGE}
"""

_RAISE = "UPDATE users SET position = position + 1 WHERE key = ANY ($1) RETURNING key, position"

_LOG = """
INSERT INTO revisions (actor_position, peer_position, actor, peer, conversation, seq, kind)
VALUES ($1, $2, $3, $4, $5, $6, $7)
"""

_FORGET = "DELETE FROM search WHERE conversation = $1 AND seq = ANY ($2)"

_FIND = """
INSERT INTO search (conversation, seq, words)
SELECT $1, $2, $3::text::tsvector FROM indexed WHERE indexed.conversation = $1 AND indexed.seq >= $2
"""

_TEXTS = """
SELECT seq FROM messages
WHERE conversation = $1 AND seq > $2 AND sender = $3 AND NOT deleted ORDER BY seq LIMIT $4
"""

_ERASED = """
SELECT actor_position, peer_position FROM revisions
WHERE actor = $1 AND conversation = $2 AND kind = $3 ORDER BY actor_position LIMIT 1
"""

_ERASE = """
UPDATE messages SET text = '', deleted = true, revision = revision + 1, changed_at_ms = $3
WHERE conversation = $1 AND seq = ANY ($2)
"""
