"""What a server sends in `duet.v1`: answers, which repeat a request's `id`, and news.

docs/protocol.md is their reference. A field that has nothing to say is absent.
"""

from typing import TypeAlias

import msgspec

from shared.ids import ConnectionId, ConversationId, UserId
from shared.introspection import IssuedTokens

__all__ = [
    "Ack",
    "BlockList",
    "Connected",
    "ConnectedUser",
    "ConversationItem",
    "ConversationList",
    "Deleted",
    "Done",
    "Draining",
    "Edited",
    "Erased",
    "Error",
    "Expiring",
    "ExportChunk",
    "Exported",
    "HistoryPage",
    "Limits",
    "MessageFrame",
    "MessageItem",
    "Peer",
    "PreferenceValues",
    "PresenceFrame",
    "ReceiptFrame",
    "Refreshed",
    "Resumed",
    "Resync",
    "SearchItem",
    "SearchResults",
    "ServerFrame",
    "TraceResult",
    "TypingFrame",
]

Timestamp: TypeAlias = str
"""RFC 3339 in UTC with milliseconds: `2026-11-24T09:30:00.000Z`."""


class ConnectedUser(msgspec.Struct, frozen=True):
    """Who the connection belongs to."""

    id: UserId
    username: str


class Limits(msgspec.Struct, frozen=True):
    """What the gateway accepts on this connection."""

    max_text_characters: int
    max_frame_bytes: int
    max_connections: int
    messages_per_s: float
    message_burst: int


class Connected(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="connected"):
    """The connection is verified and live: what happens after `cursor` arrives on it."""

    connection_id: ConnectionId
    user: ConnectedUser
    expires_at: Timestamp
    cursor: str
    limits: Limits
    tokens: IssuedTokens | None = None
    """Present when the access token had expired: keep these, the old refresh token is spent."""


class Refreshed(msgspec.Struct, frozen=True, tag_field="type", tag="refreshed"):
    """The connection now lives until `expires_at`."""

    id: str
    expires_at: Timestamp


class Ack(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="ack"):
    """A `send`, `edit` or `delete` is on disk; `seq` is the message's place in the conversation."""

    id: str
    conversation: ConversationId
    seq: int
    sent_at: Timestamp
    duplicate: bool = msgspec.field()
    revision: int = 0


class Error(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="error"):
    """A request (`id`) or the connection failed; `retryable` says whether trying again may help."""

    code: str
    message: str
    retryable: bool = msgspec.field()
    id: str | None = None
    retry_after_ms: int | None = None


class Done(msgspec.Struct, frozen=True, tag_field="type", tag="done"):
    """What the request asked for is done."""

    id: str


class MessageFrame(
    msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="message"
):
    """A stored message, for its recipient and (with `id`) for its sender's other devices."""

    conversation: ConversationId
    seq: int
    from_: UserId = msgspec.field(name="from")
    to: UserId
    text: str
    sent_at: Timestamp
    cursor: str
    id: str | None = None
    revision: int = 0
    edited_at: Timestamp | None = None
    deleted: bool = False


class Edited(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="edited"):
    """The message at `seq` says something else now; the highest `revision` is the truth."""

    conversation: ConversationId
    seq: int
    from_: UserId = msgspec.field(name="from")
    text: str
    revision: int
    edited_at: Timestamp
    cursor: str


class Deleted(msgspec.Struct, frozen=True, tag_field="type", tag="deleted"):
    """The message at `seq` has no text any more; its place stays."""

    conversation: ConversationId
    seq: int
    from_: UserId = msgspec.field(name="from")
    revision: int
    deleted_at: Timestamp
    cursor: str


class Erased(msgspec.Struct, frozen=True, tag_field="type", tag="erased"):
    """`user` deleted their account: treat every message of theirs as deleted."""

    conversation: ConversationId
    user: UserId
    cursor: str


class ReceiptFrame(
    msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="receipt"
):
    """How far `user` has received and read the conversation; marks never move back."""

    conversation: ConversationId
    user: UserId
    received: int
    read: int | None = None
    """Absent when that person keeps it private."""
    id: str | None = None


class TypingFrame(msgspec.Struct, frozen=True, tag_field="type", tag="typing"):
    """`from` is typing, or has stopped. Forget it after `expires_in_ms` without another."""

    from_: UserId = msgspec.field(name="from")
    active: bool
    expires_in_ms: int


class PresenceFrame(
    msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="presence"
):
    """Somebody one has a conversation with came or went."""

    user: UserId
    online: bool
    last_seen: Timestamp | None = None


class MessageItem(msgspec.Struct, frozen=True, omit_defaults=True):
    """A message within an answer."""

    conversation: ConversationId
    seq: int
    from_: UserId = msgspec.field(name="from")
    text: str
    sent_at: Timestamp
    revision: int = 0
    edited_at: Timestamp | None = None
    deleted: bool = False


class HistoryPage(msgspec.Struct, frozen=True, tag_field="type", tag="history"):
    """Messages, oldest first; `more` when there are others beyond the page."""

    id: str
    conversation: ConversationId
    messages: list[MessageItem]
    more: bool


class Peer(msgspec.Struct, frozen=True, omit_defaults=True):
    """The other person of a conversation; without a name they deleted their account."""

    id: UserId
    username: str | None = None
    online: bool = False
    last_seen: Timestamp | None = None


class ConversationItem(msgspec.Struct, frozen=True, omit_defaults=True):
    """A line of the conversation list."""

    conversation: ConversationId
    peer: Peer
    last_message: MessageItem
    unread: int
    received: int
    read: int
    peer_received: int
    peer_read: int | None = None


class ConversationList(
    msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="conversations"
):
    """Conversations, the newest first; ask again with `after: next` for more."""

    id: str
    items: list[ConversationItem]
    next: str | None = None


class SearchItem(msgspec.Struct, frozen=True):
    """A hit: the message, and a piece of its text with the matches between « and »."""

    message: MessageItem
    peer: UserId
    snippet: str


class SearchResults(
    msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="search"
):
    """The best hits first. `complete` is false while new messages are still being indexed."""

    id: str
    items: list[SearchItem]
    complete: bool
    next: str | None = None


class TraceResult(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="trace"):
    """What happened to a message; what has not happened (or is private) is absent."""

    id: str
    conversation: ConversationId
    seq: int
    stored_at: Timestamp
    delivered_to_connections: int = 0
    delivered_at: Timestamp | None = None
    received_at: Timestamp | None = None
    read_at: Timestamp | None = None


class BlockList(msgspec.Struct, frozen=True, tag_field="type", tag="blocks"):
    """Whom one blocks, the latest first."""

    id: str
    users: list[UserId]


class PreferenceValues(msgspec.Struct, frozen=True, tag_field="type", tag="preferences"):
    """What others may see now."""

    id: str
    share_reads: bool
    share_presence: bool


class ExportChunk(msgspec.Struct, frozen=True, tag_field="type", tag="export"):
    """A piece of the export: whole lines of JSON. Put the pieces together in order."""

    id: str
    lines: str


class Exported(msgspec.Struct, frozen=True, tag_field="type", tag="exported"):
    """The export is complete, with so many messages."""

    id: str
    messages: int


class Resumed(msgspec.Struct, frozen=True, tag_field="type", tag="resumed"):
    """Everything after the client's cursor has been sent; from here on it is live."""

    cursor: str


class Resync(msgspec.Struct, frozen=True, tag_field="type", tag="resync"):
    """The cursor is not of this database: load conversations and history anew, go on from this."""

    cursor: str


class Expiring(msgspec.Struct, frozen=True, tag_field="type", tag="expiring"):
    """The access token runs out in so many seconds: send `refresh` with a new one."""

    in_s: int


class Draining(msgspec.Struct, frozen=True, tag_field="type", tag="draining"):
    """The gateway is about to restart: reconnect after so many milliseconds."""

    retry_after_ms: int


ServerFrame: TypeAlias = (
    Connected
    | Refreshed
    | Ack
    | Error
    | Done
    | MessageFrame
    | Edited
    | Deleted
    | Erased
    | ReceiptFrame
    | TypingFrame
    | PresenceFrame
    | HistoryPage
    | ConversationList
    | SearchResults
    | TraceResult
    | BlockList
    | PreferenceValues
    | ExportChunk
    | Exported
    | Resumed
    | Resync
    | Expiring
    | Draining
)
