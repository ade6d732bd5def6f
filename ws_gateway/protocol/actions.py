"""What a session wants done: exactly one action for each thing that happens to it."""

from typing import TypeAlias

import msgspec

from shared.ids import UserId
from ws_gateway.conversations import Change
from ws_gateway.protocol import frames, requests
from ws_gateway.protocol.errors import ERRORS, CloseCode, ErrorCode

__all__ = [
    "Action",
    "Ask",
    "Authenticate",
    "Close",
    "Enquiry",
    "Renew",
    "Reply",
    "Rest",
    "Submit",
    "Type",
    "error_frame",
]


class Authenticate(msgspec.Struct, frozen=True):
    """Verify these tokens, then call `verified` or `refused`. Read nothing until then."""

    access_token: str
    refresh_token: str | None
    resume: str | None

    def __repr__(self) -> str:
        return "Authenticate(…)"


class Renew(msgspec.Struct, frozen=True):
    """Verify this token, then call `renewed` or `not_renewed`; go on reading meanwhile."""

    request_id: str
    access_token: str

    def __repr__(self) -> str:
        return f"Renew({self.request_id!r}, …)"


class Submit(msgspec.Struct, frozen=True, gc=False):
    """Commit this change; its outcome answers the client."""

    change: Change


Enquiry: TypeAlias = (
    requests.History
    | requests.Conversations
    | requests.Search
    | requests.Trace
    | requests.Block
    | requests.Unblock
    | requests.Blocks
    | requests.Preferences
    | requests.Export
)


class Ask(msgspec.Struct, frozen=True):
    """Look this up, or set it, and answer; in the order of asking."""

    enquiry: Enquiry


class Type(msgspec.Struct, frozen=True):
    """Tell the other person, if they may know, that this one types."""

    to: UserId
    active: bool


class Reply(msgspec.Struct, frozen=True):
    """Send this frame to the client."""

    frame: frames.ServerFrame


class Rest(msgspec.Struct, frozen=True):
    """Send `frame`, when there is one, and leave the client unread for a moment: it is too fast."""

    frame: frames.Error | None = None


class Close(msgspec.Struct, frozen=True):
    """Send `frame`, when there is one, then close with `code`."""

    code: CloseCode
    frame: frames.Error | None = None
    reason: str = ""


Action: TypeAlias = Authenticate | Renew | Submit | Ask | Type | Reply | Rest | Close


def error_frame(
    code: ErrorCode,
    *,
    request_id: str | None = None,
    detail: str | None = None,
    retry_after_ms: int | None = None,
) -> frames.Error:
    """Make the `error` frame of a code; `detail` says more than its standing message."""
    rule = ERRORS[code]
    return frames.Error(
        code=code.value,
        message=f"{rule.message} ({detail})" if detail else rule.message,
        retryable=rule.retryable,
        id=request_id,
        retry_after_ms=retry_after_ms,
    )
