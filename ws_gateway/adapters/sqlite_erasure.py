"""Erasing a person's messages, a bounded piece in a transaction. Runs in the writer's thread."""

import sqlite3

from shared.ids import ConversationId, UserId
from ws_gateway.adapters.sqlite_indexes import SearchEntry
from ws_gateway.adapters.sqlite_rows import user_key
from ws_gateway.conversations import (
    Appended,
    Erasure,
    Event,
    EventKind,
    Message,
    NotFound,
    Outcome,
    Unfinished,
)

__all__ = ["erase", "erased_event"]

_CHUNK = 1000
"""Messages that one transaction erases: the others wait for it, a few tens of milliseconds."""


def erase(connection: sqlite3.Connection, erasure: Erasure, position: int, at_ms: int) -> Outcome:
    """Erase some messages of one conversation; the last time, note it in the log at `position`."""
    user = user_key(connection, erasure.user)
    found = connection.execute(_CONVERSATION, (user, erasure.conversation)).fetchone()
    if found is None:
        return NotFound()
    conversation, low, high, peer = found
    rows = connection.execute(
        "SELECT seq, position, text FROM messages"
        " WHERE conversation = ? AND sender = ? AND NOT deleted LIMIT ?",
        (conversation, user, _CHUNK),
    ).fetchall()
    for _, message_position, text in rows:
        SearchEntry(connection, message_position, low, high).remove(text)
    connection.executemany(
        "UPDATE messages SET text = '', deleted = 1, revision = revision + 1, changed_at_ms = ?"
        " WHERE conversation = ? AND seq = ?",
        [(at_ms, conversation, seq) for seq, _, _ in rows],
    )
    if len(rows) == _CHUNK:
        return Unfinished()
    connection.execute(
        "INSERT INTO log VALUES (?, ?, 0, ?, ?)", (position, conversation, EventKind.ERASED, user)
    )
    event = erased_event(erasure.conversation, erasure.user, peer, position)
    return Appended(event, duplicate=False)


def erased_event(conversation: ConversationId, user: UserId, peer: UserId, position: int) -> Event:
    """Make the event that says a person's messages in a conversation have no text any more."""
    message = Message(
        conversation=conversation,
        seq=0,
        position=position,
        sender=user,
        recipient=peer,
        client_id="",
        text="",
        sent_at_ms=0,
        deleted=True,
    )
    return Event(EventKind.ERASED, position, message)


_CONVERSATION = """
SELECT conversations.key, low, high, users.id
FROM conversations JOIN users ON users.key = CASE low WHEN ?1 THEN high ELSE low END
WHERE conversations.id = ?2 AND ?1 IN (low, high)
"""
