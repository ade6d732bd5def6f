"""What can go wrong in the protocol: error codes, close codes, and what a client should do next.

`ERRORS` and `CLOSES` are the tables that docs/protocol.md prints.
"""

import enum
from dataclasses import dataclass

__all__ = ["CLOSES", "ERRORS", "CloseCode", "CloseRule", "ErrorCode", "ErrorRule"]


class ErrorCode(enum.StrEnum):
    """The `code` of an `error` frame. Codes are stable; messages are for people and may change."""

    MALFORMED_JSON = "malformed_json"
    INVALID_FRAME = "invalid_frame"
    CONNECT_EXPECTED = "connect_expected"
    ALREADY_CONNECTED = "already_connected"
    CONNECT_TIMEOUT = "connect_timeout"
    UNAUTHORIZED = "unauthorized"
    WRONG_USER = "wrong_user"
    SESSION_ENDED = "session_ended"
    TOKEN_EXPIRED = "token_expired"  # noqa: S105
    VERIFICATION_UNAVAILABLE = "verification_unavailable"
    RECIPIENT_NOT_FOUND = "recipient_not_found"
    RECIPIENT_IS_SENDER = "recipient_is_sender"
    MESSAGE_NOT_FOUND = "message_not_found"
    NOT_AUTHOR = "not_author"
    BLOCKED = "blocked"
    CONFLICT = "conflict"
    RATE_LIMITED = "rate_limited"
    FLOOD = "flood"
    INVALID_CURSOR = "invalid_cursor"
    STORE_UNAVAILABLE = "store_unavailable"
    OVERLOADED = "overloaded"
    EVICTED = "evicted"
    INTERNAL = "internal"


class CloseCode(enum.IntEnum):
    """Why a connection ends (RFC 6455 section 7.4.1, the IANA registry for 1012 and up)."""

    NORMAL = 1000
    GOING_AWAY = 1001
    UNSUPPORTED_DATA = 1003
    INVALID_DATA = 1007
    POLICY_VIOLATION = 1008
    MESSAGE_TOO_BIG = 1009
    INTERNAL_ERROR = 1011
    SERVICE_RESTART = 1012
    TRY_AGAIN_LATER = 1013
    UNAUTHORIZED = 3000
    FORBIDDEN = 3003
    TIMEOUT = 3008


@dataclass(frozen=True, slots=True)
class ErrorRule:
    """What an error code says to people, and whether the same request may succeed later."""

    message: str
    retryable: bool = False


@dataclass(frozen=True, slots=True)
class CloseRule:
    """What a close code means, and whether a client should reconnect."""

    meaning: str
    reconnect: str


ERRORS: dict[ErrorCode, ErrorRule] = {
    ErrorCode.MALFORMED_JSON: ErrorRule("A frame must be one JSON object; this one is not JSON."),
    ErrorCode.INVALID_FRAME: ErrorRule("The frame does not have the shape of its type."),
    ErrorCode.CONNECT_EXPECTED: ErrorRule("The first frame must be `connect`."),
    ErrorCode.ALREADY_CONNECTED: ErrorRule(
        "This connection is authenticated; use `refresh` to renew its token."
    ),
    ErrorCode.CONNECT_TIMEOUT: ErrorRule("No `connect` came in time; reconnect and send it first."),
    ErrorCode.UNAUTHORIZED: ErrorRule(
        "The tokens are not valid. Refresh them at POST /v1/token, or log in again."
    ),
    ErrorCode.WRONG_USER: ErrorRule("The token belongs to another session than this connection's."),
    ErrorCode.SESSION_ENDED: ErrorRule("This session was logged out. Log in again."),
    ErrorCode.TOKEN_EXPIRED: ErrorRule(
        "The access token has expired. Refresh it at POST /v1/token and reconnect."
    ),
    ErrorCode.VERIFICATION_UNAVAILABLE: ErrorRule(
        "The tokens cannot be checked at the moment. Try again later.", retryable=True
    ),
    ErrorCode.RECIPIENT_NOT_FOUND: ErrorRule(
        "There is no such user; `to` is a user id, as GET /v1/users/{username} gives it."
    ),
    ErrorCode.RECIPIENT_IS_SENDER: ErrorRule("A message needs another person to go to."),
    ErrorCode.MESSAGE_NOT_FOUND: ErrorRule("You have no conversation with such a message."),
    ErrorCode.NOT_AUTHOR: ErrorRule("Only its author may change a message."),
    ErrorCode.BLOCKED: ErrorRule("This person does not take messages from you."),
    ErrorCode.CONFLICT: ErrorRule(
        "This id already names another request, or the message is deleted; use a new id."
    ),
    ErrorCode.RATE_LIMITED: ErrorRule(
        "Too fast. Nothing was stored; send it again after `retry_after_ms`.", retryable=True
    ),
    ErrorCode.FLOOD: ErrorRule(
        "Too fast for too long; nothing was stored. Reconnect after a minute, then send it again.",
        retryable=True,
    ),
    ErrorCode.INVALID_CURSOR: ErrorRule("`after` must be the `next` of the page before."),
    ErrorCode.STORE_UNAVAILABLE: ErrorRule(
        "The message was not stored. Send it again with the same id.", retryable=True
    ),
    ErrorCode.OVERLOADED: ErrorRule(
        "Too much is waiting to be stored. Send it again later with the same id.", retryable=True
    ),
    ErrorCode.EVICTED: ErrorRule("A newer connection of this user took this one's place."),
    ErrorCode.INTERNAL: ErrorRule(
        "Something went wrong here. Send it again with the same id.", retryable=True
    ),
}

CLOSES: dict[CloseCode, CloseRule] = {
    CloseCode.NORMAL: CloseRule("The client closed.", "as the client likes"),
    CloseCode.GOING_AWAY: CloseRule("The client left the page.", "as the client likes"),
    CloseCode.UNSUPPORTED_DATA: CloseRule("A binary frame came.", "no: a fault of the client"),
    CloseCode.INVALID_DATA: CloseRule("A frame was not UTF-8.", "no: a fault of the client"),
    CloseCode.POLICY_VIOLATION: CloseRule(
        "A malformed frame, a flood, or evicted by a newer connection; see the error before it.",
        "no when evicted; else after mending the fault",
    ),
    CloseCode.MESSAGE_TOO_BIG: CloseRule("A frame was too big.", "no: a fault of the client"),
    CloseCode.INTERNAL_ERROR: CloseRule("Keep-alive failed, or a fault here.", "yes, with backoff"),
    CloseCode.SERVICE_RESTART: CloseRule(
        "The gateway is restarting.", "yes, after `retry_after_ms` of the `draining` before it"
    ),
    CloseCode.TRY_AGAIN_LATER: CloseRule(
        "The profile service or the store does not answer.",
        "yes, after `retry_after_ms` of the error, or with backoff where it has none",
    ),
    CloseCode.UNAUTHORIZED: CloseRule(
        "Tokens are not valid, expired, or the session ended.",
        "only with fresh tokens, or after a new login",
    ),
    CloseCode.FORBIDDEN: CloseRule("The token is another session's.", "no: a fault of the client"),
    CloseCode.TIMEOUT: CloseRule("No `connect` came in time.", "yes"),
}
