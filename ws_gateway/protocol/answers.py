"""The longer answers of `duet.v1`: pages, lists, results. Each repeats its request's `id`."""

import msgspec

from shared.ids import ConversationId, UserId
from ws_gateway.protocol.timestamps import Timestamp

__all__ = [
    "BlockList",
    "ConversationItem",
    "ConversationList",
    "ExportChunk",
    "Exported",
    "HistoryPage",
    "MessageItem",
    "Peer",
    "PreferenceValues",
    "SearchItem",
    "SearchResults",
    "TraceResult",
]


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
