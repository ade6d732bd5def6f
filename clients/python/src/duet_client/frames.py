"""What the gateway says in `duet.v1`, decoded: about the connection, and what happens.

Fields that are unknown here are ignored, and so are frames of an unknown `type`: the gateway may be
newer than this client. Moments are `datetime` in UTC.
"""

from datetime import datetime
from typing import Any, TypeAlias

import msgspec

from duet_client.answers import (
    BlockList,
    ConversationList,
    Done,
    ExportChunk,
    Exported,
    HistoryPage,
    Preferences,
    SearchResults,
    Trace,
)

__all__ = [
    "Ack",
    "Connected",
    "ConnectedUser",
    "Draining",
    "ErrorFrame",
    "Expiring",
    "Frame",
    "InvalidFrame",
    "Limits",
    "MessageDeleted",
    "MessageEdited",
    "NewMessage",
    "Presence",
    "Receipt",
    "Refreshed",
    "Resumed",
    "ResyncNeeded",
    "SettingChanged",
    "Typing",
    "UserErased",
    "decode",
    "encode",
    "is_encodable",
]


class InvalidFrame(ValueError):
    """What came is not a frame of `duet.v1`."""


class ConnectedUser(msgspec.Struct, frozen=True):
    """Who the connection belongs to."""

    id: str
    username: str


class Limits(msgspec.Struct, frozen=True):
    """What the gateway accepts from this user."""

    max_text_characters: int
    messages_per_s: float
    message_burst: int


class IssuedTokens(msgspec.Struct, frozen=True):
    """A new pair that came with `connected`."""

    access_token: str
    refresh_token: str
    expires_in: int

    def __repr__(self) -> str:
        return "IssuedTokens(…)"


class Connected(msgspec.Struct, frozen=True, tag_field="type", tag="connected"):
    """The connection is verified; what happens after `cursor` arrives on it."""

    connection_id: str
    user: ConnectedUser
    cursor: str
    limits: Limits
    tokens: IssuedTokens | None = None


class Refreshed(msgspec.Struct, frozen=True, tag_field="type", tag="refreshed"):
    """The connection lives on with a newer token."""

    id: str


class Ack(msgspec.Struct, frozen=True, tag_field="type", tag="ack"):
    """A message, edit or deletion is on the gateway's disk."""

    id: str
    conversation: str
    seq: int
    """The message's place in the conversation: 1, 2, 3 … without holes."""
    sent_at: datetime
    duplicate: bool = False
    """An earlier try had arrived already; this is its acknowledgement."""
    revision: int = 0


class ErrorFrame(msgspec.Struct, frozen=True, tag_field="type", tag="error"):
    """A request (`id`) or the connection failed."""

    code: str
    message: str = ""
    retryable: bool = False
    id: str | None = None
    retry_after_ms: int | None = None


class NewMessage(
    msgspec.Struct,
    frozen=True,
    tag_field="type",
    tag="message",
    rename={"sender": "from", "recipient": "to"},
):
    """A message for you, or one that you sent from another device (it has an `id` then)."""

    conversation: str
    seq: int
    sender: str
    recipient: str
    text: str
    sent_at: datetime
    cursor: str
    id: str | None = None
    revision: int = 0
    edited_at: datetime | None = None
    deleted: bool = False


class MessageEdited(
    msgspec.Struct, frozen=True, tag_field="type", tag="edited", rename={"sender": "from"}
):
    """The message at `seq` says something else now; the highest `revision` is the truth."""

    conversation: str
    seq: int
    sender: str
    text: str
    revision: int
    edited_at: datetime
    cursor: str


class MessageDeleted(
    msgspec.Struct, frozen=True, tag_field="type", tag="deleted", rename={"sender": "from"}
):
    """The message at `seq` has no text any more; its place stays."""

    conversation: str
    seq: int
    sender: str
    revision: int
    deleted_at: datetime
    cursor: str


class UserErased(msgspec.Struct, frozen=True, tag_field="type", tag="erased"):
    """`user` deleted their account: treat every message of theirs as deleted."""

    conversation: str
    user: str
    cursor: str


class Receipt(msgspec.Struct, frozen=True, tag_field="type", tag="receipt"):
    """How far `user` has received and read the conversation; marks never move back."""

    conversation: str
    user: str
    received: int
    read: int | None = None
    """Absent when that person keeps it private."""
    id: str | None = None


class Typing(
    msgspec.Struct, frozen=True, tag_field="type", tag="typing", rename={"sender": "from"}
):
    """`sender` types, or has stopped. Forget it after `expires_in_ms` without another."""

    sender: str
    active: bool
    expires_in_ms: int


class Presence(msgspec.Struct, frozen=True, tag_field="type", tag="presence"):
    """Somebody you have a conversation with came or went."""

    user: str
    online: bool
    last_seen: datetime | None = None


class SettingChanged(msgspec.Struct, frozen=True, tag_field="type", tag="changed"):
    """You changed your `blocks` or `preferences` on another device: ask for `what` again.

    What was missed is not told later: ask after `ConnectionRestored`, too.
    """

    what: str
    """A newer gateway may name what this client does not know."""


class Resumed(msgspec.Struct, frozen=True, tag_field="type", tag="resumed"):
    """Everything that was missed has been sent."""

    cursor: str


class ResyncNeeded(msgspec.Struct, frozen=True, tag_field="type", tag="resync"):
    """The gateway's database is not the one this client knew (a restored backup).

    Load conversations and history anew; events go on from here.
    """

    cursor: str


class Expiring(msgspec.Struct, frozen=True, tag_field="type", tag="expiring"):
    """The access token of the connection runs out in so many seconds."""

    in_s: int


class Draining(msgspec.Struct, frozen=True, tag_field="type", tag="draining"):
    """The gateway is about to restart."""

    retry_after_ms: int


Frame: TypeAlias = (
    Connected
    | Refreshed
    | Ack
    | ErrorFrame
    | Done
    | NewMessage
    | MessageEdited
    | MessageDeleted
    | UserErased
    | Receipt
    | Typing
    | Presence
    | SettingChanged
    | HistoryPage
    | ConversationList
    | SearchResults
    | Trace
    | BlockList
    | Preferences
    | ExportChunk
    | Exported
    | Resumed
    | ResyncNeeded
    | Expiring
    | Draining
)


class _Tag(msgspec.Struct, frozen=True):
    type: str


_KNOWN = frozenset(kind.__struct_config__.tag for kind in Frame.__args__)
_decoder: msgspec.json.Decoder[Frame] = msgspec.json.Decoder(Frame)
_tag_decoder = msgspec.json.Decoder(_Tag)


def decode(raw: str | bytes) -> Frame | None:
    """Read a frame. Returns None for one of a type that this client does not know.

    Raises:
        InvalidFrame: it is not JSON, or not of the shape of its type.
    """
    try:
        return _decoder.decode(raw)
    except (msgspec.DecodeError, RecursionError) as error:
        try:
            if _tag_decoder.decode(raw).type not in _KNOWN:
                return None
        except (msgspec.DecodeError, RecursionError):
            pass
        raise InvalidFrame(str(error)) from error


def encode(kind: str, fields: dict[str, Any]) -> str:
    """Write a request. Fields that are None are left out."""
    return msgspec.json.encode(
        {"type": kind, **{name: value for name, value in fields.items() if value is not None}}
    ).decode()


def is_encodable(text: str) -> bool:
    """Tell whether a request can hold a text: UTF-8 has no bytes for lone surrogates."""
    return not any("\ud800" <= character <= "\udfff" for character in text)
