"""What `events()` hands out: news from the gateway, and what becomes of this client's doings."""

from datetime import datetime
from typing import TypeAlias

import msgspec

from duet_client.errors import RequestRefused
from duet_client.frames import (
    MessageDeleted,
    MessageEdited,
    NewMessage,
    Presence,
    Receipt,
    ResyncNeeded,
    SettingChanged,
    Typing,
    UserErased,
)

__all__ = [
    "ConnectionLost",
    "ConnectionRestored",
    "Event",
    "MessageSent",
    "SendFailed",
]


class MessageSent(msgspec.Struct, frozen=True):
    """A message of this client was acknowledged: it is on the gateway's disk, once."""

    id: str
    recipient: str
    text: str
    conversation: str
    seq: int
    sent_at: datetime


class SendFailed(msgspec.Struct, frozen=True):
    """A queued message was refused for good, and nobody waited for its acknowledgement.

    It comes again at the next start until it is handled: a refusal is not lost either.
    """

    id: str
    recipient: str
    """A user id, or the name as it was given."""
    text: str
    error: RequestRefused


class ConnectionLost(msgspec.Struct, frozen=True):
    """There is no connection at the moment; the next try is in `retry_in_s`."""

    reason: str
    retry_in_s: float


class ConnectionRestored(msgspec.Struct, frozen=True):
    """The connection is there (again); what was missed follows."""


Event: TypeAlias = (
    NewMessage
    | MessageEdited
    | MessageDeleted
    | UserErased
    | Receipt
    | Typing
    | Presence
    | SettingChanged
    | ResyncNeeded
    | MessageSent
    | SendFailed
    | ConnectionLost
    | ConnectionRestored
)
