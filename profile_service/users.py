"""What a username and a profile may be. Pure rules: no clock, no input or output."""

import functools
import re
import string
import unicodedata
import urllib.parse
import zoneinfo
from collections.abc import Callable, Iterator

import msgspec

from profile_service.errors import Fault
from shared.ids import UserId

__all__ = [
    "MAX_DEVICE_NAME_CHARACTERS",
    "Profile",
    "ProfilePatch",
    "User",
    "canonical_username",
    "check_device_name",
    "check_profile",
    "check_username",
    "merge",
]

MIN_USERNAME_CHARACTERS = 3
MAX_USERNAME_CHARACTERS = 32
MAX_DEVICE_NAME_CHARACTERS = 64

_USERNAME = re.compile(r"[A-Za-z][A-Za-z0-9._-]*")
# fmt: off
_RESERVED_USERNAMES = frozenset({
    "abuse", "admin", "administrator", "all", "anonymous", "api", "bot", "current", "daemon",
    "delete", "deleted", "duet", "everyone", "gateway", "guest", "help", "here", "host",
    "hostmaster", "info", "internal", "login", "logout", "me", "mod", "moderator", "no-reply",
    "nobody", "noreply", "null", "operator", "owner", "password", "postmaster", "profile", "root",
    "security", "self", "service", "session", "sessions", "settings", "staff", "support", "sys",
    "system", "undefined", "user", "username", "users", "webmaster", "you",
})
# fmt: on
_USER_ID = re.compile(r"u_[a-z2-7]{26}")
_TO_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)
_TIMEZONE = re.compile(r"[A-Za-z0-9_+/-]{1,64}")
_LOCALE = re.compile(r"[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8})*")
_BIDI_CONTROLS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""They make a name read differently from what it is (Unicode Technical Report 36)."""


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """What people tell about themselves; every field may be absent (`None`)."""

    display_name: str | None = None
    bio: str | None = None
    avatar_url: str | None = None
    status_text: str | None = None
    locale: str | None = None
    timezone: str | None = None


class ProfilePatch(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A merge patch of a profile (RFC 7396): absent keeps, null clears, a value replaces."""

    display_name: str | msgspec.UnsetType | None = msgspec.UNSET
    bio: str | msgspec.UnsetType | None = msgspec.UNSET
    avatar_url: str | msgspec.UnsetType | None = msgspec.UNSET
    status_text: str | msgspec.UnsetType | None = msgspec.UNSET
    locale: str | msgspec.UnsetType | None = msgspec.UNSET
    timezone: str | msgspec.UnsetType | None = msgspec.UNSET


class User(msgspec.Struct, frozen=True, kw_only=True):
    """A person who has signed up and is not deleted. Times are milliseconds since the epoch."""

    id: UserId
    username: str
    profile: Profile
    token_version: int
    """Raised to end every session: tokens that carry a lower one are dead."""
    revision: int
    """Raised by every change of the profile; the client sees it as an ETag."""
    created_at_ms: int
    updated_at_ms: int


def canonical_username(username: str) -> str:
    """Fold a username to the form that is unique.

    Only ASCII is folded: other letters cannot be in a username, and some of them, such as the
    Kelvin sign, would fold to one that can.
    """
    return username.translate(_TO_LOWER)


def check_username(username: str, pointer: str = "/username") -> Iterator[Fault]:
    """Yield what is wrong with a username that somebody wants to have."""
    if not MIN_USERNAME_CHARACTERS <= len(username) <= MAX_USERNAME_CHARACTERS:
        yield Fault(
            pointer, f"use {MIN_USERNAME_CHARACTERS} to {MAX_USERNAME_CHARACTERS} characters"
        )
    elif not _USERNAME.fullmatch(username):
        yield Fault(pointer, "use ASCII letters, digits, '.', '_' and '-', beginning with a letter")
    elif _is_reserved(canonical_username(username)):
        yield Fault(pointer, "this name is reserved; choose another one")


def _is_reserved(canonical: str) -> bool:
    """Names that would be taken for the operator's, for a part of the API, or for a user id."""
    return canonical in _RESERVED_USERNAMES or _USER_ID.fullmatch(canonical) is not None


def check_profile(profile: Profile, pointer: str = "") -> Iterator[Fault]:
    """Yield what is wrong with a profile, field by field."""
    for name, check in _PROFILE_CHECKS.items():
        value: str | None = getattr(profile, name)
        if value is not None and (detail := check(value)):
            yield Fault(f"{pointer}/{name}", detail)


def check_device_name(device_name: str | None, pointer: str = "/device_name") -> Iterator[Fault]:
    """Yield what is wrong with the name that a person gives to a device."""
    if device_name is not None and (detail := _line(MAX_DEVICE_NAME_CHARACTERS)(device_name)):
        yield Fault(pointer, detail)


def merge(profile: Profile, patch: ProfilePatch) -> Profile:
    """Apply a merge patch (RFC 7396)."""
    changes = {
        name: value
        for name in Profile.__struct_fields__
        if (value := getattr(patch, name)) is not msgspec.UNSET
    }
    return msgspec.structs.replace(profile, **changes)


def _text(max_characters: int, allowed: str = "") -> Callable[[str], str | None]:
    def check(value: str) -> str | None:
        if len(value) > max_characters:
            return f"use at most {max_characters} characters"
        for character in value:
            hidden = unicodedata.category(character) in {"Cc", "Cs"} or character in _BIDI_CONTROLS
            if hidden and character not in allowed:
                return "leave out control characters"
        return None

    return check


def _line(max_characters: int) -> Callable[[str], str | None]:
    text = _text(max_characters)

    def check(value: str) -> str | None:
        if not value.strip():
            return "use at least one visible character, or null"
        if any(unicodedata.category(character) in {"Zl", "Zp"} for character in value):
            return "use a single line"
        return text(value)

    return check


def _check_avatar_url(value: str) -> str | None:
    if len(value) > 512:
        return "use at most 512 characters"
    wanted = "use an http or https URL with a host, in ASCII and without spaces or a password"
    if not value.isascii() or not value.isprintable() or " " in value:
        return wanted
    try:
        url = urllib.parse.urlsplit(value)
        _ = url.port
    except ValueError:
        return wanted
    if url.scheme not in {"http", "https"} or not url.hostname or "@" in url.netloc:
        return wanted
    return None


def _check_locale(value: str) -> str | None:
    if len(value) > 35 or not _LOCALE.fullmatch(value):
        return "use a language tag (BCP 47), such as en, de-CH or zh-Hant-TW"
    return None


def _check_timezone(value: str) -> str | None:
    known = _timezones()
    if not _TIMEZONE.fullmatch(value) or (known and value not in known):
        return "use a name of the IANA time zone database, such as Europe/Berlin"
    return None


@functools.cache
def _timezones() -> frozenset[str]:
    """Names this machine knows; empty where no time zone database is installed."""
    return frozenset(zoneinfo.available_timezones())


_PROFILE_CHECKS: dict[str, Callable[[str], str | None]] = {
    "display_name": _line(64),
    "bio": _text(500, allowed="\n\t"),
    "avatar_url": _check_avatar_url,
    "status_text": _line(140),
    "locale": _check_locale,
    "timezone": _check_timezone,
}
