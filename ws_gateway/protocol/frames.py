"""The frames of `duet.v1`: JSON objects, told apart by `type`. docs/protocol.md is their reference.

What a client sends, what answers it and what comes unasked are different types. Unknown fields of a
client's frame are ignored, so that clients may be newer than servers.
"""

from typing import Annotated, TypeAlias

import msgspec

from shared.ids import ConnectionId, ConversationId, UserId
from shared.introspection import IssuedTokens
from ws_gateway.conversations import MAX_CLIENT_ID_CHARACTERS, MAX_TEXT_CHARACTERS

__all__ = [
    "Ack",
    "ClientFrame",
    "Connect",
    "Connected",
    "ConnectedUser",
    "Draining",
    "Error",
    "Expiring",
    "Limits",
    "MessageFrame",
    "Refresh",
    "Refreshed",
    "Send",
    "ServerFrame",
]

RequestId = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_CLIENT_ID_CHARACTERS)]
Identifier = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
Token = Annotated[str, msgspec.Meta(min_length=1, max_length=2048, pattern="^[!-~]+$")]
"""A full batch of pairs must fit the profile service's limit, or one client spoils it for others."""
Cursor = Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
Text = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_TEXT_CHARACTERS)]
Timestamp: TypeAlias = str
"""RFC 3339 in UTC with milliseconds: `2026-11-24T09:30:00.000Z`."""


class Connect(msgspec.Struct, frozen=True, tag_field="type", tag="connect"):
    """First frame of a connection that did not authenticate by header."""

    access_token: Token
    refresh_token: Token | None = None

    def __repr__(self) -> str:
        return "Connect(…)"


class Send(msgspec.Struct, frozen=True, tag_field="type", tag="send"):
    """Store this text and deliver it to `to`. Repeating it with the same `id` is always safe."""

    id: RequestId
    to: Identifier
    text: Text


class Refresh(msgspec.Struct, frozen=True, tag_field="type", tag="refresh"):
    """Keep this connection open beyond its token's end, with a newer token of the same session."""

    id: RequestId
    access_token: Token

    def __repr__(self) -> str:
        return f"Refresh(id={self.id!r}, …)"


ClientFrame: TypeAlias = Connect | Send | Refresh


class ConnectedUser(msgspec.Struct, frozen=True):
    """Who the connection belongs to."""

    id: UserId
    username: str


class Limits(msgspec.Struct, frozen=True):
    """What the gateway accepts on this connection."""

    max_text_characters: int
    max_frame_bytes: int
    max_connections: int


class Connected(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="connected"):
    """The connection is verified and live: every message from `cursor` on will arrive on it."""

    connection_id: ConnectionId
    user: ConnectedUser
    expires_at: Timestamp
    cursor: str
    limits: Limits
    tokens: IssuedTokens | None = None
    """Present when the access token had expired: keep these, the old refresh token is spent."""


class Ack(msgspec.Struct, frozen=True, tag_field="type", tag="ack"):
    """The message is on disk, at this place of the conversation."""

    id: str
    conversation: ConversationId
    seq: int
    sent_at: Timestamp
    duplicate: bool


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


class Error(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="error"):
    """A request (`id`) or the connection failed; `retryable` says whether trying again may help."""

    code: str
    message: str
    retryable: bool = msgspec.field()
    id: str | None = None
    retry_after_ms: int | None = None


class Expiring(msgspec.Struct, frozen=True, tag_field="type", tag="expiring"):
    """The access token runs out in so many seconds: send `refresh` with a new one."""

    in_s: int


class Refreshed(msgspec.Struct, frozen=True, tag_field="type", tag="refreshed"):
    """The connection now lives until `expires_at`."""

    id: str
    expires_at: Timestamp


class Draining(msgspec.Struct, frozen=True, tag_field="type", tag="draining"):
    """The gateway is about to restart: reconnect after so many milliseconds."""

    retry_after_ms: int


ServerFrame: TypeAlias = Connected | Ack | MessageFrame | Error | Expiring | Refreshed | Draining
