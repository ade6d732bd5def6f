"""Token verification between services, in the shape of RFC 7662.

`POST /internal/introspect` takes one `TokenPair` or a list of them, and answers with one
`Introspection` or a list of the same length in the same order, so that a service with a thousand
connections waiting asks once.
"""

import msgspec

from shared.ids import SessionId, UserId

__all__ = [
    "INTROSPECT_PATH",
    "MAX_PAIRS",
    "MAX_USER_IDS",
    "USERS_PATH",
    "Introspection",
    "IssuedTokens",
    "TokenPair",
    "UserSummary",
    "Users",
]

INTROSPECT_PATH = "/internal/introspect"
USERS_PATH = "/internal/users"

MAX_PAIRS = 256
MAX_USER_IDS = 256


class TokenPair(msgspec.Struct, frozen=True):
    """What a client presented: its access token and, when it has one, its refresh token.

    `repr` shows neither, so that a stray log line cannot leak a credential.
    """

    access_token: str
    refresh_token: str | None = None

    def __repr__(self) -> str:
        return "TokenPair(…)"


class IssuedTokens(msgspec.Struct, frozen=True):
    """A new pair, issued because the access token had expired and the refresh token was good."""

    access_token: str
    refresh_token: str
    expires_in: int
    """Seconds until the access token expires."""

    def __repr__(self) -> str:
        return f"IssuedTokens(…, expires_in={self.expires_in})"


class Introspection(msgspec.Struct, frozen=True, omit_defaults=True):
    """Who a token pair belongs to. This encodes to exactly `{"active": false}` for a bad one."""

    active: bool
    sub: UserId | None = None
    username: str | None = None
    sid: SessionId | None = None
    ver: int | None = None
    """The user's token version that the session was checked against."""
    exp: int | None = None
    """When the access token expires, in seconds since the epoch."""
    tokens: IssuedTokens | None = None
    retry_after_s: float | None = None
    """The pair is good, but may be refreshed only then: it is not known to be active before."""


class UserSummary(msgspec.Struct, frozen=True):
    """What another service may know of a user."""

    id: UserId
    username: str


class Users(msgspec.Struct, frozen=True):
    """Answer of `GET /internal/users?id=…&id=…`, in no order, of those that are known."""

    users: list[UserSummary]
    """Those that exist."""
    deleted: list[UserId]
    """Those that deleted their account."""
