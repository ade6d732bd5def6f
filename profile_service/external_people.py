"""People whom an embedder's identity provider knows: who they are, and what to call them here.

Pure rules. Whoever somebody is stands in issuer and subject alone; a name is never an identity.
"""

import base64
import hashlib
import re
import unicodedata
from collections.abc import Iterator

import msgspec

from profile_service.users import MAX_USERNAME_CHARACTERS, Profile, check_profile, check_username
from shared.ids import UserId

__all__ = ["ExternalIdentity", "ExternalPerson", "profile_of", "usernames"]

_SUFFIX_CHARACTERS = (4, 8, 16)
_NAMELESS = "user"
_UNUSABLE = re.compile(r"[^A-Za-z0-9._-]+")


class ExternalIdentity(msgspec.Struct, frozen=True):
    """Who somebody is at an identity provider: these two never change and are never reused."""

    issuer: str
    subject: str

    @property
    def fingerprint(self) -> str:
        """The identity as 32 characters of base32, for suffixes and as a key."""
        digest = hashlib.sha256(f"{self.issuer}\0{self.subject}".encode()).digest()
        return base64.b32encode(digest[:20]).decode().lower()


class ExternalPerson(msgspec.Struct, frozen=True):
    """Whom a good token is about, and what its claims tell."""

    identity: ExternalIdentity
    issued_at_s: float | None
    """When the token was made, in seconds since the epoch."""
    username: str | None
    """The name that the person has there, as it stands."""
    profile: Profile


def usernames(wish: str | None, identity: ExternalIdentity, user_id: UserId) -> Iterator[str]:
    """Yield names to try, the best first: the wish, then with a suffix from the identity.

    The same person gets the same suffix each time. The last name carries random characters of the
    new user's id, so that nobody can keep a person out by taking the others first.
    """
    base = _cleaned(wish or "")
    if any(check_username(base)):
        base = _NAMELESS
    else:
        yield base
    suffixes = [identity.fingerprint[:length] for length in _SUFFIX_CHARACTERS]
    for suffix in (*suffixes, user_id[2:18]):
        yield f"{base[: MAX_USERNAME_CHARACTERS - 1 - len(suffix)]}-{suffix}"


def profile_of(display_name: object, avatar_url: object, locale: object) -> Profile:
    """Make a profile of claims. What is absent or would not do is left out: nobody is kept out
    because a picture's address is too long."""
    shown = " ".join(display_name.split())[:64].rstrip() if isinstance(display_name, str) else ""
    language = locale.replace("_", "-") if isinstance(locale, str) else None
    profile = Profile(
        display_name=shown or None,
        avatar_url=avatar_url if isinstance(avatar_url, str) else None,
        locale=language,
    )
    faulty = {fault.pointer.removeprefix("/"): None for fault in check_profile(profile)}
    return msgspec.structs.replace(profile, **faulty)


def _cleaned(wish: str) -> str:
    """Bring a name into the form of usernames: `Zoë Müller` and `zoe.muller@…` are close enough."""
    local_part = wish.partition("@")[0]
    letters = unicodedata.normalize("NFKD", local_part)
    ascii_only = "".join(c for c in letters if not unicodedata.combining(c))
    joined = _UNUSABLE.sub("-", ascii_only).lstrip("0123456789._-")
    return joined[:MAX_USERNAME_CHARACTERS].rstrip("._-")
