"""Where conversations are read: history, lists, search, traces."""

from typing import Protocol

import msgspec

from shared.ids import ConversationId, UserId
from ws_gateway.conversations import Message

__all__ = [
    "ConversationSummary",
    "MessageArchive",
    "MessagePage",
    "SearchHit",
    "SearchPage",
    "Trace",
]


class MessagePage(msgspec.Struct, frozen=True):
    """Messages of one conversation, oldest first; `more` when the limit cut them off."""

    messages: list[Message]
    more: bool


class ConversationSummary(msgspec.Struct, frozen=True):
    """One line of a person's conversation list."""

    conversation: ConversationId
    peer: UserId
    peer_last_seen_ms: int | None
    last_message: Message
    unread: int
    received: int
    read: int
    peer_received: int
    peer_read: int | None
    """None when the peer keeps it private."""
    position: int
    """Where the list goes on after this line."""


class SearchHit(msgspec.Struct, frozen=True):
    """A message that matches, and the piece of it that does, matches between « and »."""

    message: Message
    snippet: str


class SearchPage(msgspec.Struct, frozen=True):
    """The best hits first; `more` when the limit cut them off."""

    hits: list[SearchHit]
    more: bool
    complete: bool
    """Whether every message was searched; false while the index still catches up with a flood."""
    upto: int
    """The position up to which was searched."""


class Trace(msgspec.Struct, frozen=True):
    """What happened to a message, with times in milliseconds since the epoch."""

    message: Message
    delivered_at_ms: int | None
    delivered_connections: int
    received_at_ms: int | None
    read_at_ms: int | None


class MessageArchive(Protocol):
    """Reads what is stored. Every call raises StoreUnavailable when it cannot be read now."""

    async def history(
        self,
        user_id: UserId,
        peer_id: UserId,
        *,
        before: int | None,
        after: int | None,
        limit: int,
    ) -> MessagePage:
        """Return messages of two people: the last `limit` before a seq, or the first after one."""
        ...

    async def conversations(
        self, user_id: UserId, before_position: int | None, limit: int
    ) -> list[ConversationSummary]:
        """Return a user's conversations, the one with the newest message first."""
        ...

    async def peers(self, user_id: UserId, after: int, limit: int) -> list[tuple[int, UserId]]:
        """Return whom a user has a conversation with, each with a number to go on after.

        Begin after 0. Unlike that of `conversations`, this order stands still while people write.
        """
        ...

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
        """Find messages of the user's own conversations that hold every word of `query`.

        Pages of one search say `upto` as the first page did: what arrives later moves nothing.
        """
        ...

    async def trace(self, user_id: UserId, conversation: ConversationId, seq: int) -> Trace | None:
        """Return what happened to a message of this user; nothing when it is not theirs."""
        ...
