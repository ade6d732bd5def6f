"""What a server sends in `duet.v1`: short answers, which repeat a request's `id`, and news.

docs/protocol.md is their reference. A field that has nothing to say is absent.
"""

from typing import TypeAlias

import msgspec

from shared.ids import ConnectionId, ConversationId, UserId
from shared.introspection import IssuedTokens
from ws_gateway.conversations import Setting
from ws_gateway.protocol.answers import (
    BlockList,
    ConversationList,
    ExportChunk,
    Exported,
    HistoryPage,
    PreferenceValues,
    SearchResults,
    TraceResult,
)
from ws_gateway.protocol.timestamps import Timestamp

__all__ = [
    "Ack",
    "Changed",
    "Connected",
    "ConnectedUser",
    "Deleted",
    "Done",
    "Draining",
    "Edited",
    "Erased",
    "Error",
    "Expiring",
    "Limits",
    "MessageFrame",
    "PresenceFrame",
    "ReceiptFrame",
    "Refreshed",
    "Resumed",
    "Resync",
    "ServerFrame",
    "TypingFrame",
]


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


class Changed(msgspec.Struct, frozen=True, tag_field="type", tag="changed"):
    """One's blocks or preferences were changed on another connection: ask for them again."""

    what: Setting


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
    | Changed
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
