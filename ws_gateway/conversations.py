"""The rules of two-person conversations: what people ask for, and what becomes of it.

A *change* is what somebody wants; an *outcome* is what the store made of it; an *event* is what
everybody concerned sees, in one order. Pure: no clock, no I/O.
"""

import enum
from typing import Literal, TypeAlias

import msgspec

from shared.ids import ConnectionId, ConversationId, UserId

__all__ = [
    "MAX_CLIENT_ID_CHARACTERS",
    "MAX_TEXT_CHARACTERS",
    "SENT",
    "Appended",
    "Blocked",
    "Change",
    "Conflict",
    "Deletion",
    "Draft",
    "Edit",
    "Erasure",
    "Event",
    "EventKind",
    "Evicted",
    "Look",
    "Mark",
    "Marked",
    "Message",
    "NotAuthor",
    "NotFound",
    "Notice",
    "Outcome",
    "PeersChanged",
    "PresenceNotice",
    "Published",
    "Receipt",
    "Setting",
    "SettingChanged",
    "TypingNotice",
    "Unfinished",
    "is_valid_client_id",
    "request_id_of",
]

MAX_TEXT_CHARACTERS = 4000
MAX_CLIENT_ID_CHARACTERS = 64


class Message(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A stored message as it is now. A deleted one keeps its place and loses its text."""

    conversation: ConversationId
    seq: int
    """Its place in the conversation: 1, 2, 3 … without holes."""
    position: int
    """What names it within the store."""
    sender: UserId
    recipient: UserId
    client_id: str
    text: str
    sent_at_ms: int
    """When it was stored, in milliseconds since the epoch."""
    revision: int = 0
    """How many times it was edited or deleted."""
    changed_at_ms: int | None = None
    """When it was last edited or deleted."""
    deleted: bool = False


class Draft(msgspec.Struct, frozen=True, gc=False):
    """A message that its sender wants stored. The sender is who the connection was verified as."""

    sender: UserId
    recipient: UserId
    client_id: str
    """Made by the client; with the sender it names this message for ever."""
    text: str

    def repeats(self, message: Message) -> bool:
        """Tell a retry from another message under a used id.

        Once the message was edited or deleted its first text is gone; a retry is then believed.
        """
        return self.recipient == message.recipient and (
            self.text == message.text or message.revision > 0
        )


class Edit(msgspec.Struct, frozen=True, gc=False):
    """Its author wants a message to say something else."""

    author: UserId
    request_id: str
    conversation: ConversationId
    seq: int
    text: str

    def repeats(self, message: Message, revision: int) -> bool:
        """Tell a retry of the edit that made `revision` from another edit under its id.

        Once the message was changed again that text is gone; a retry is then believed.
        """
        return self.text == message.text or message.revision > revision


class Deletion(msgspec.Struct, frozen=True, gc=False):
    """Its author wants a message's text gone for both."""

    author: UserId
    request_id: str
    conversation: ConversationId
    seq: int

    def repeats(self, message: Message, revision: int) -> bool:  # noqa: ARG002
        """A deletion of a message is like any other of it."""
        return True


class Mark(msgspec.Struct, frozen=True, gc=False):
    """A person has received, or read, a conversation up to `seq`. Marks only move forward."""

    user: UserId
    request_id: str | None
    conversation: ConversationId
    seq: int
    read: bool
    """Read, and so received too."""


class Erasure(msgspec.Struct, frozen=True, gc=False):
    """A person has deleted their account: the text of their messages in one conversation goes."""

    user: UserId
    conversation: ConversationId
    after: int = 0
    """The seq up to which this was done before."""


Change: TypeAlias = Draft | Edit | Deletion | Mark | Erasure


class EventKind(enum.IntEnum):
    """What happened to a conversation. The numbers are stored."""

    SENT = 0
    EDITED = 1
    DELETED = 2
    ERASED = 3
    """One of the two people deleted their account: all of their messages lost their text."""


SENT = EventKind.SENT
"""For what every message comes by: an attribute of an enumeration is slow to look up."""


class Event(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """An entry of the log: something both people see, each in the order of their positions.

    Who did it is always the sender of the message. For `ERASED` the message stands for its sender;
    its seq and text mean nothing.
    """

    kind: EventKind
    position: int
    """Its place in the sender's log, in commit order; what the sender's cursors point at."""
    message: Message
    recipient_position: int | None = None
    """Its place in the recipient's log, where that is not the same one."""

    def position_for(self, user_id: UserId) -> int:
        """Its place in the log that this one of the two people follows."""
        if self.recipient_position is None or user_id == self.message.sender:
            return self.position
        return self.recipient_position


class Appended(msgspec.Struct, frozen=True, gc=False):
    """A draft, edit or deletion is in the log; `duplicate` when an earlier try put it there."""

    event: Event
    duplicate: bool


class Marked(msgspec.Struct, frozen=True, gc=False):
    """Where a person's marks stand now, and which of them this mark moved."""

    peer: UserId
    received: int
    read: int
    moved_received: bool
    moved_read: bool
    shows_read: bool
    """To the peer: the person shares their reads, and does not block them."""


class Conflict(msgspec.Struct, frozen=True, gc=False):
    """The request's id already names something else. Nothing was changed."""


class NotFound(msgspec.Struct, frozen=True, gc=False):
    """There is no such message in a conversation of this person. Nothing was changed."""


class NotAuthor(msgspec.Struct, frozen=True, gc=False):
    """The message is the other person's. Nothing was changed."""


class Blocked(msgspec.Struct, frozen=True, gc=False):
    """The recipient takes no messages from this sender. Nothing was stored."""


class Unfinished(msgspec.Struct, frozen=True, gc=False):
    """Part of an erasure is done; ask for the rest."""

    upto: int
    """The seq up to which it is done."""


Outcome: TypeAlias = Appended | Marked | Conflict | NotFound | NotAuthor | Blocked | Unfinished


class Published(msgspec.Struct, frozen=True, gc=False, array_like=True, tag="published"):
    """An event that is on disk, and the connection that caused it, which has its ack instead."""

    event: Event
    origin: ConnectionId | None


class Receipt(msgspec.Struct, frozen=True, gc=False, array_like=True, tag="receipt"):
    """A person's marks moved; the peer sees `read` only if the person shows it to them.

    The peer is not told at all when a private `read` is all that moved (`is_private`): the moment
    would give it away.
    """

    conversation: ConversationId
    user: UserId
    peer: UserId
    received: int
    read: int
    shows_read: bool
    origin: ConnectionId | None
    is_private: bool = False


class TypingNotice(msgspec.Struct, frozen=True, gc=False, array_like=True, tag="typing"):
    """A person began or stopped typing to another. May be lost."""

    user: UserId
    to: UserId
    active: bool


class PresenceNotice(msgspec.Struct, frozen=True, gc=False, array_like=True, tag="presence"):
    """A person came or went; for `to`, who share a conversation with them. May be lost."""

    user: UserId
    to: tuple[UserId, ...]
    online: bool
    last_seen_ms: int | None


class PeersChanged(msgspec.Struct, frozen=True, gc=False, array_like=True, tag="peers"):
    """What a person shares, or with whom, has changed: for every gateway where they are."""

    user: UserId


Setting: TypeAlias = Literal["blocks", "preferences"]
"""What a person sets about themselves, by the name of the request that asks for it."""


class SettingChanged(msgspec.Struct, frozen=True, gc=False, array_like=True, tag="setting"):
    """A person has set something: for their connections but the one that did."""

    user: UserId
    what: Setting
    origin: ConnectionId


class Evicted(msgspec.Struct, frozen=True, gc=False, array_like=True, tag="evicted"):
    """A person's connection makes room for a newer one: for the gateway that has it."""

    user: UserId
    connection: ConnectionId


class Look(msgspec.Struct, frozen=True, gc=False, array_like=True, tag="look"):
    """A person's log may have grown unheard: for every gateway that follows it."""

    user: UserId


Notice: TypeAlias = (
    Published
    | Receipt
    | TypingNotice
    | PresenceNotice
    | PeersChanged
    | SettingChanged
    | Evicted
    | Look
)
"""What gateways tell each other. The tags are on the wire between them: add, never change; a new
field goes to the end and has a default."""


def is_valid_client_id(client_id: str) -> bool:
    """Whether a client may name a request so: 1 to 64 printable ASCII characters."""
    return (
        0 < len(client_id) <= MAX_CLIENT_ID_CHARACTERS
        and client_id.isascii()
        and client_id.isprintable()
    )


def request_id_of(change: Change) -> str | None:
    """Return what its author calls a change, to be answered by."""
    if isinstance(change, Draft):
        return change.client_id
    return None if isinstance(change, Erasure) else change.request_id
