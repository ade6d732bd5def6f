"""What the gateway answers to what was asked. Each repeats the `id` of its request."""

from datetime import datetime

import msgspec

__all__ = [
    "BlockList",
    "ConversationItem",
    "ConversationList",
    "Done",
    "ExportChunk",
    "Exported",
    "HistoryPage",
    "Message",
    "Peer",
    "Preferences",
    "SearchHit",
    "SearchResults",
    "Trace",
]


class Done(msgspec.Struct, frozen=True, tag_field="type", tag="done"):
    """What was asked for is done."""

    id: str


class Message(msgspec.Struct, frozen=True, rename={"sender": "from"}):
    """A message of the history."""

    conversation: str
    seq: int
    sender: str
    text: str
    sent_at: datetime
    revision: int = 0
    edited_at: datetime | None = None
    deleted: bool = False


class HistoryPage(msgspec.Struct, frozen=True, tag_field="type", tag="history"):
    """Messages, oldest first; `more` when there are others beyond the page."""

    id: str
    conversation: str
    messages: list[Message]
    more: bool


class Peer(msgspec.Struct, frozen=True):
    """The other person of a conversation; without a name they deleted their account."""

    id: str
    username: str | None = None
    online: bool = False
    last_seen: datetime | None = None


class ConversationItem(msgspec.Struct, frozen=True):
    """A line of the conversation list, with both people's marks."""

    conversation: str
    peer: Peer
    last_message: Message
    unread: int
    received: int
    read: int
    peer_received: int
    peer_read: int | None = None


class ConversationList(msgspec.Struct, frozen=True, tag_field="type", tag="conversations"):
    """Conversations, the newest first; ask again with `after=next` for more."""

    id: str
    items: list[ConversationItem]
    next: str | None = None


class SearchHit(msgspec.Struct, frozen=True):
    """A message, and a piece of its text with the matches between « and »."""

    message: Message
    peer: str
    snippet: str


class SearchResults(msgspec.Struct, frozen=True, tag_field="type", tag="search"):
    """The best hits first. `complete` is false while new messages are still being indexed."""

    id: str
    items: list[SearchHit]
    complete: bool = True
    next: str | None = None


class Trace(msgspec.Struct, frozen=True, tag_field="type", tag="trace"):
    """What happened to an own message; what has not happened (or is private) is None."""

    id: str
    conversation: str
    seq: int
    stored_at: datetime
    delivered_to_connections: int = 0
    delivered_at: datetime | None = None
    received_at: datetime | None = None
    read_at: datetime | None = None


class BlockList(msgspec.Struct, frozen=True, tag_field="type", tag="blocks"):
    """Whom you block, the latest first."""

    id: str
    users: list[str]


class Preferences(msgspec.Struct, frozen=True, tag_field="type", tag="preferences"):
    """What others may see of you."""

    id: str
    share_reads: bool
    share_presence: bool


class ExportChunk(msgspec.Struct, frozen=True, tag_field="type", tag="export"):
    """A piece of an export: whole lines of JSON."""

    id: str
    lines: str


class Exported(msgspec.Struct, frozen=True, tag_field="type", tag="exported"):
    """The export is complete, with so many messages."""

    id: str
    messages: int
