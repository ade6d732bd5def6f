"""The rules of two-person conversations: what may be sent, and what sending it leads to.

Pure: no clock, no I/O.
"""

import msgspec

from shared.ids import ConversationId, UserId

__all__ = [
    "MAX_CLIENT_ID_CHARACTERS",
    "MAX_TEXT_CHARACTERS",
    "Appended",
    "Conflict",
    "Draft",
    "Message",
    "is_valid_client_id",
]

MAX_TEXT_CHARACTERS = 4000
MAX_CLIENT_ID_CHARACTERS = 64


class Draft(msgspec.Struct, frozen=True, gc=False):
    """A message that its sender wants stored. The sender is who the connection was verified as."""

    sender: UserId
    recipient: UserId
    client_id: str
    """Made by the client; with the sender it names this message for ever."""
    text: str

    def same_content(self, message: "Message") -> bool:
        """Tell a retry from another message under a used id: same recipient, same text."""
        return self.recipient == message.recipient and self.text == message.text


class Message(msgspec.Struct, frozen=True, gc=False):
    """A stored message."""

    conversation: ConversationId
    seq: int
    """Its place in the conversation: 1, 2, 3 … without holes."""
    position: int
    """Its place in the log of all conversations, in commit order; what a cursor points at."""
    sender: UserId
    recipient: UserId
    client_id: str
    text: str
    sent_at_ms: int
    """When it was stored, in milliseconds since the epoch."""


class Appended(msgspec.Struct, frozen=True, gc=False):
    """The draft is stored as `message`; `duplicate` when an earlier try stored it."""

    message: Message
    duplicate: bool


class Conflict(msgspec.Struct, frozen=True, gc=False):
    """The draft's id already names a message with other content. Nothing was stored."""

    draft: Draft


def is_valid_client_id(client_id: str) -> bool:
    """Whether a client may name a request so: 1 to 64 printable ASCII characters."""
    return (
        0 < len(client_id) <= MAX_CLIENT_ID_CHARACTERS
        and client_id.isascii()
        and client_id.isprintable()
    )
