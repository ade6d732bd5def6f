"""What a client sends in `duet.v1`: JSON objects, told apart by `type`.

docs/protocol.md is their reference. Unknown fields are ignored, so that a client may be newer than
its server.
"""

from typing import Annotated, TypeAlias

import msgspec

from ws_gateway.conversations import MAX_CLIENT_ID_CHARACTERS, MAX_TEXT_CHARACTERS

__all__ = [
    "DEFAULT_LIMIT",
    "DEFAULT_SEARCH_LIMIT",
    "Block",
    "Blocks",
    "Connect",
    "Conversations",
    "Delete",
    "Edit",
    "Export",
    "History",
    "Preferences",
    "Read",
    "Received",
    "Refresh",
    "Request",
    "Search",
    "Send",
    "Trace",
    "Typing",
    "Unblock",
    "is_token",
]

RequestId = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_CLIENT_ID_CHARACTERS)]
Identifier = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
Token = Annotated[str, msgspec.Meta(min_length=1, max_length=2048, pattern="^[A-Za-z0-9._~+/=-]+$")]
"""What RFC 6750 section 2.1 calls `b64token`. None of its characters takes two bytes in JSON: a
full batch of pairs must fit the profile service's limit, or one client spoils it for all."""
Cursor = Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
Text = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_TEXT_CHARACTERS)]
Query = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
Seq = Annotated[int, msgspec.Meta(ge=1, le=2**53 - 1)]
Limit = Annotated[int, msgspec.Meta(ge=1, le=200)]
DEFAULT_LIMIT = 50
DEFAULT_SEARCH_LIMIT = 20


def is_token(text: str) -> bool:
    """Whether a text outside of a frame may be a token."""
    try:
        msgspec.convert(text, Token)
    except msgspec.ValidationError:
        return False
    return True


class Connect(msgspec.Struct, frozen=True, tag_field="type", tag="connect"):
    """First frame of a connection that did not authenticate by header."""

    access_token: Token
    refresh_token: Token | None = None
    resume: Cursor | None = None
    """The last cursor that the client has seen: what came after it is sent first."""

    def __repr__(self) -> str:
        return "Connect(…)"


class Refresh(msgspec.Struct, frozen=True, tag_field="type", tag="refresh"):
    """Keep this connection open beyond its token's end, with a newer token of the same session."""

    id: RequestId
    access_token: Token

    def __repr__(self) -> str:
        return f"Refresh(id={self.id!r}, …)"


class Send(msgspec.Struct, frozen=True, tag_field="type", tag="send"):
    """Store this text and deliver it to `to`. Repeating it with the same `id` is always safe."""

    id: RequestId
    to: Identifier
    text: Text


class Edit(msgspec.Struct, frozen=True, tag_field="type", tag="edit"):
    """Replace the text of an own message."""

    id: RequestId
    conversation: Identifier
    seq: Seq
    text: Text


class Delete(msgspec.Struct, frozen=True, tag_field="type", tag="delete"):
    """Take an own message's text away for both people."""

    id: RequestId
    conversation: Identifier
    seq: Seq


class Received(msgspec.Struct, frozen=True, tag_field="type", tag="received"):
    """This device has everything of the conversation up to `seq`."""

    conversation: Identifier
    seq: Seq
    id: RequestId | None = None


class Read(msgspec.Struct, frozen=True, tag_field="type", tag="read"):
    """The person has seen everything of the conversation up to `seq`."""

    conversation: Identifier
    seq: Seq
    id: RequestId | None = None


class Typing(msgspec.Struct, frozen=True, tag_field="type", tag="typing"):
    """The person began or stopped typing. Answers nothing; repeat it every few seconds."""

    to: Identifier
    active: bool


class History(
    msgspec.Struct, frozen=True, rename={"with_": "with"}, tag_field="type", tag="history"
):
    """Messages with one person: the last before `before`, or the first after `after`."""

    id: RequestId
    with_: Identifier
    before: Seq | None = None
    after: Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)] | None = None
    limit: Limit | None = DEFAULT_LIMIT


class Conversations(msgspec.Struct, frozen=True, tag_field="type", tag="conversations"):
    """One's conversations, the newest first; `after` is `next` of the page before."""

    id: RequestId
    after: Cursor | None = None
    limit: Limit | None = DEFAULT_LIMIT


class Search(msgspec.Struct, frozen=True, rename={"with_": "with"}, tag_field="type", tag="search"):
    """One's messages that hold every word of `query`; `after` is `next` of the page before."""

    id: RequestId
    query: Query
    with_: Identifier | None = None
    after: Cursor | None = None
    limit: Limit | None = DEFAULT_SEARCH_LIMIT


class Trace(msgspec.Struct, frozen=True, tag_field="type", tag="trace"):
    """What happened to an own message."""

    id: RequestId
    conversation: Identifier
    seq: Seq


class Block(msgspec.Struct, frozen=True, tag_field="type", tag="block"):
    """Take nothing from this person any more."""

    id: RequestId
    user: Identifier


class Unblock(msgspec.Struct, frozen=True, tag_field="type", tag="unblock"):
    """Take messages from this person again."""

    id: RequestId
    user: Identifier


class Blocks(msgspec.Struct, frozen=True, tag_field="type", tag="blocks"):
    """Whom one blocks."""

    id: RequestId


class Preferences(msgspec.Struct, frozen=True, tag_field="type", tag="preferences"):
    """What others may see; a field that is absent stays as it is."""

    id: RequestId
    share_reads: bool | None = None
    share_presence: bool | None = None


class Export(msgspec.Struct, frozen=True, tag_field="type", tag="export"):
    """All of one's conversations as JSON Lines."""

    id: RequestId


Request: TypeAlias = (
    Connect
    | Refresh
    | Send
    | Edit
    | Delete
    | Received
    | Read
    | Typing
    | History
    | Conversations
    | Search
    | Trace
    | Block
    | Unblock
    | Blocks
    | Preferences
    | Export
)
