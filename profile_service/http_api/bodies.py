"""What requests and answers carry. These types decode, validate, encode and document."""

from datetime import UTC, datetime
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from profile_service.users import Profile, User
from shared.ids import SessionId, UserId
from shared.introspection import MAX_PAIRS, MAX_USER_IDS, IssuedTokens, TokenPair

__all__ = [
    "AccessGrant",
    "ChangePassword",
    "DeleteAccount",
    "ExchangeToken",
    "Health",
    "IntrospectBody",
    "JsonWebKeySet",
    "LogIn",
    "OwnProfile",
    "PrefixQuery",
    "PublicProfile",
    "PublicProfiles",
    "Refresh",
    "ReplaceProfile",
    "SessionItem",
    "SessionList",
    "SignUp",
    "TokenGrant",
    "UserIdsQuery",
    "timestamp",
]

Timestamp = Annotated[str, Meta(extra_json_schema={"format": "date-time"})]
"""RFC 3339 in UTC, with milliseconds."""


def _documented(**schema: object) -> Meta:
    """Describe a rule that the use case checks, so that it can tell all faults at once."""
    return Meta(extra_json_schema=schema)


Username = Annotated[
    str, _documented(minLength=3, maxLength=32, pattern="^[A-Za-z][A-Za-z0-9._-]*$")
]
NewPassword = Annotated[str, _documented(minLength=8, maxLength=128, format="password")]
Password = Annotated[str, Meta(max_length=1024, extra_json_schema={"format": "password"})]
DeviceName = Annotated[str, _documented(minLength=1, maxLength=64)]
DisplayName = Annotated[str, _documented(minLength=1, maxLength=64)]
Bio = Annotated[str, _documented(maxLength=500)]
AvatarUrl = Annotated[str, _documented(maxLength=512, format="uri", pattern="^https?://")]
StatusText = Annotated[str, _documented(minLength=1, maxLength=140)]
Locale = Annotated[str, _documented(maxLength=35, examples=["de-CH"])]
Timezone = Annotated[str, _documented(maxLength=64, examples=["Europe/Berlin"])]

IntrospectBody = TokenPair | Annotated[list[TokenPair], Meta(max_length=MAX_PAIRS)]


def timestamp(at_ms: int) -> str:
    """Write milliseconds since the epoch as RFC 3339 in UTC."""
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"


class ReplaceProfile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A whole profile: what is absent or null is cleared."""

    display_name: DisplayName | None = None
    bio: Bio | None = None
    avatar_url: AvatarUrl | None = None
    status_text: StatusText | None = None
    locale: Locale | None = None
    timezone: Timezone | None = None

    def profile(self) -> Profile:
        """The profile that the fields describe."""
        return Profile(**{name: getattr(self, name) for name in Profile.__struct_fields__})


class SignUp(ReplaceProfile, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A new user, with as much of a profile as the person likes."""

    username: Username
    password: NewPassword
    device_name: DeviceName | None = None

    def __repr__(self) -> str:
        return "SignUp(…)"


class LogIn(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A username and its password; `device_name` is what the list of sessions will show."""

    username: str
    password: Password
    device_name: DeviceName | None = None

    def __repr__(self) -> str:
        return "LogIn(…)"


class ExchangeToken(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A token of the identity provider that is set up, to exchange for a session of this device."""

    token: str
    device_name: DeviceName | None = None

    def __repr__(self) -> str:
        return "ExchangeToken(…)"


class Refresh(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A refresh token to exchange for a new pair."""

    refresh_token: str
    grant_type: Literal["refresh_token"] = "refresh_token"

    def __repr__(self) -> str:
        return "Refresh(…)"


class ChangePassword(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The password now, as a confirmation, and the one from now on."""

    current_password: Password
    new_password: NewPassword

    def __repr__(self) -> str:
        return "ChangePassword(…)"


class DeleteAccount(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One of both, as a confirmation. Who signs in at an identity provider sends a fresh token."""

    password: Password | None = None
    external_token: str | None = None

    def __repr__(self) -> str:
        return "DeleteAccount(…)"


class PublicProfile(msgspec.Struct, frozen=True, kw_only=True):
    """What any logged-in person may know of a user."""

    id: UserId
    username: str
    display_name: str | None
    bio: str | None
    avatar_url: str | None
    status_text: str | None

    @classmethod
    def of(cls, user: User) -> "PublicProfile":
        """Show a user to others."""
        profile = user.profile
        return cls(
            id=user.id,
            username=user.username,
            display_name=profile.display_name,
            bio=profile.bio,
            avatar_url=profile.avatar_url,
            status_text=profile.status_text,
        )


class OwnProfile(PublicProfile, frozen=True, kw_only=True):
    """What the user sees of the own account."""

    locale: str | None
    timezone: str | None
    created_at: Timestamp
    updated_at: Timestamp

    @classmethod
    def of(cls, user: User) -> "OwnProfile":
        """Show a user to himself or herself."""
        return cls(
            id=user.id,
            username=user.username,
            created_at=timestamp(user.created_at_ms),
            updated_at=timestamp(user.updated_at_ms),
            **msgspec.structs.asdict(user.profile),
        )


class PublicProfiles(msgspec.Struct, frozen=True, kw_only=True):
    """A page of users sorted by name; `next` is the `after` of the next page, if there is one."""

    users: list[PublicProfile]
    next: str | None


class TokenGrant(msgspec.Struct, frozen=True, kw_only=True):
    """A pair of tokens (RFC 6749, section 5.1). Keep the refresh token secret and use it once."""

    access_token: str
    refresh_token: str
    expires_in: int
    """Seconds until the access token expires."""
    session_id: SessionId
    token_type: Literal["Bearer"] = "Bearer"  # noqa: S105 - not a credential

    @classmethod
    def of(cls, tokens: IssuedTokens, session_id: SessionId) -> "TokenGrant":
        """Hand out issued tokens."""
        return cls(
            access_token=tokens.access_token,
            refresh_token=tokens.refresh_token,
            expires_in=tokens.expires_in,
            session_id=session_id,
        )


class AccessGrant(TokenGrant, frozen=True, kw_only=True):
    """A pair of tokens for a device that has just logged in, and whose account it is."""

    user: OwnProfile


class SessionItem(msgspec.Struct, frozen=True, kw_only=True):
    """One logged-in device; `current` is the one that asks."""

    id: SessionId
    device_name: str | None
    user_agent: str | None
    created_at: Timestamp
    refreshed_at: Timestamp
    expires_at: Timestamp
    current: bool


class SessionList(msgspec.Struct, frozen=True, kw_only=True):
    """A user's logged-in devices, the oldest first."""

    sessions: list[SessionItem]


class PrefixQuery(msgspec.Struct, frozen=True, kw_only=True):
    """How a username begins, and which page of those that begin so."""

    prefix: Annotated[str, Meta(min_length=1, max_length=32, pattern=r"^[A-Za-z0-9._\-]+$")]
    after: Annotated[str, Meta(max_length=32)] = ""
    limit: Annotated[int, Meta(ge=1, le=50)] = 20


class UserIdsQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Users to look up, each in an `id` of its own."""

    id: Annotated[list[str], Meta(min_length=1, max_length=MAX_USER_IDS)]


class JsonWebKey(msgspec.Struct, frozen=True, kw_only=True):
    """The public half of a signing key (RFC 8037)."""

    kty: str
    crv: str
    use: str
    alg: str
    kid: str
    x: str


class JsonWebKeySet(msgspec.Struct, frozen=True):
    """All keys that verify tokens (RFC 7517). Fetch it again on an unknown `kid`."""

    keys: list[JsonWebKey]


class Health(msgspec.Struct, frozen=True):
    """Whether the service is well."""

    status: Literal["ok"] = "ok"
