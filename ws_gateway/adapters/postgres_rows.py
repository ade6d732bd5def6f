"""How messages and conversations come out of PostgreSQL, and what names them there."""

from collections.abc import Awaitable
from typing import Any, TypeVar

import msgspec

from shared.database import DatabaseUnavailable
from shared.ids import ConversationId, UserId
from ws_gateway.conversations import Event, EventKind, Message
from ws_gateway.ports import StoreUnavailable

__all__ = [
    "BLOCKS",
    "CHAT",
    "CHAT_JOINS",
    "MAX_SEQ",
    "MESSAGE",
    "ONE",
    "SHOWS_READ",
    "Chat",
    "available",
    "chat_of",
    "erased_message",
    "is_storable",
    "message_of",
    "place_of",
    "position_of",
    "sent_event",
]

T = TypeVar("T")

_SEQ_BITS = 31
MAX_SEQ = (1 << _SEQ_BITS) - 1
"""What the columns hold."""

MESSAGE = """message.seq, message.client_id, message.text, message.sent_at_ms, message.revision,
 message.changed_at_ms, message.deleted, message.sender, message.sender_position,
 message.recipient_position"""
"""What `message_of` and `sent_event` read, of `messages AS message`."""


CHAT = """chat.key AS chat_key, chat.id AS chat_id, chat.low, chat.high,
 low_user.id AS low_id, high_user.id AS high_id"""
"""What `chat_of` reads, of `conversations AS chat` and `CHAT_JOINS`."""

CHAT_JOINS = """
JOIN users AS low_user ON low_user.key = chat.low
JOIN users AS high_user ON high_user.key = chat.high
"""

ONE = "(SELECT * FROM messages WHERE conversation = {chat} AND seq = {seq} OFFSET 0)"
"""One message, by both columns of the primary key, whatever the planner thinks of conversations:
OFFSET keeps it from looking through all messages of one. To follow LATERAL."""

BLOCKS = """EXISTS
 (SELECT FROM blocks WHERE (blocker, blocked) = ({person}, {viewer}) OFFSET 0)"""
"""Whether one person blocks another, by their keys. OFFSET keeps it from reading all blocks at once
while PostgreSQL takes them to be few."""

SHOWS_READ = f"""({{person}}.shares_reads AND NOT
 {BLOCKS.format(person="{person}.key", viewer="{viewer}")})"""
"""Whether a person, of `users`, lets a viewer (by key) see how far they have read."""


class Chat(msgspec.Struct, frozen=True, gc=False):
    """A conversation and its people, by their public ids and by their keys. It never changes."""

    key: int
    id: ConversationId
    low: int
    high: int
    low_id: UserId
    high_id: UserId

    def has(self, user_id: UserId) -> bool:
        """Whether this is a conversation of that user."""
        return user_id in (self.low_id, self.high_id)

    def key_of(self, user_id: UserId) -> int:
        """The key of one of the two."""
        return self.low if user_id == self.low_id else self.high

    def peer_of(self, user_id: UserId) -> tuple[int, UserId]:
        """The other one: key and id."""
        return (self.high, self.high_id) if user_id == self.low_id else (self.low, self.low_id)


def chat_of(row: Any) -> Chat:
    """Make the conversation of a row that has the columns of `CHAT`."""
    return Chat(
        row["chat_key"], row["chat_id"], row["low"], row["high"], row["low_id"], row["high_id"]
    )


def message_of(row: Any, chat: Chat) -> Message:
    """Make the message of a row that has the columns of `MESSAGE`."""
    is_low = row["sender"] == chat.low
    return Message(
        conversation=chat.id,
        seq=row["seq"],
        position=position_of(chat.key, row["seq"]),
        sender=chat.low_id if is_low else chat.high_id,
        recipient=chat.high_id if is_low else chat.low_id,
        client_id=row["client_id"],
        text=row["text"],
        sent_at_ms=row["sent_at_ms"],
        revision=row["revision"],
        changed_at_ms=row["changed_at_ms"],
        deleted=row["deleted"],
    )


def sent_event(row: Any, chat: Chat, kind: EventKind = EventKind.SENT) -> Event:
    """Make the event that a message of a row began with, or another kind at the same positions."""
    return Event(kind, row["sender_position"], message_of(row, chat), row["recipient_position"])


def erased_message(chat: Chat, user_id: UserId) -> Message:
    """Make what stands for its sender in the event that their messages have no text any more."""
    return Message(
        conversation=chat.id,
        seq=0,
        position=position_of(chat.key, 0),
        sender=user_id,
        recipient=chat.peer_of(user_id)[1],
        client_id="",
        text="",
        sent_at_ms=0,
        deleted=True,
    )


def position_of(conversation: int, seq: int) -> int:
    """Return the `position` of a message: what names it in this database."""
    return conversation << _SEQ_BITS | seq


def place_of(position: int) -> tuple[int, int]:
    """Return the conversation's key and the seq of the message that has this `position`."""
    return position >> _SEQ_BITS, position & MAX_SEQ


def is_storable(identifier: str) -> bool:
    """Whether PostgreSQL can hold such a text at all: what it cannot hold names nothing in it."""
    return "\x00" not in identifier


async def available(call: Awaitable[T]) -> T:
    """Await a database call, saying `StoreUnavailable` where the database says it is not."""
    try:
        return await call
    except DatabaseUnavailable as error:
        raise StoreUnavailable(str(error)) from error
