"""Tokens of an embedder's identity provider: JWTs (RFC 7519), checked as RFC 8725 advises.

The algorithm comes from a list in the settings, the key from the provider's own key set, and both
must belong together; only then are the claims looked at.
"""

from collections.abc import Callable, Collection
from typing import Any

import jwt
import msgspec

from profile_service.errors import InvalidExternalToken
from profile_service.external_people import ExternalIdentity, ExternalPerson, profile_of
from profile_service.ports import ExternalKeys

__all__ = ["ClaimNames", "ExternalTokens"]

MAX_TOKEN_CHARACTERS = 8192
MAX_SUBJECT_CHARACTERS = 255
"""OpenID Connect Core, section 2."""


class ClaimNames(msgspec.Struct, frozen=True, kw_only=True):
    """Which claims tell what; the defaults are those of OpenID Connect."""

    subject: str = "sub"
    username: str = "preferred_username"
    display_name: str = "name"
    avatar_url: str = "picture"
    locale: str = "locale"


class _Header(msgspec.Struct, frozen=True):
    alg: str
    kid: str | None = None
    crit: Any = msgspec.UNSET


class _Registered(msgspec.Struct, frozen=True):
    iss: str
    aud: str | list[str]
    exp: float
    iat: float | None = None
    nbf: float | None = None


class ExternalTokens:
    """Checks the provider's tokens. Any coroutine may call it.

    `now` gives seconds since the epoch; clocks may differ by `leeway_s`.
    """

    def __init__(
        self,
        keys: ExternalKeys,
        *,
        issuer: str,
        audience: str,
        algorithms: Collection[str],
        claim_names: ClaimNames,
        leeway_s: float,
        now: Callable[[], float],
    ) -> None:
        self._keys = keys
        self._issuer = issuer
        self._audience = audience
        self._jws = jwt.PyJWS(algorithms=list(algorithms))
        self._algorithms = frozenset(algorithms)
        self._names = claim_names
        self._leeway_s = leeway_s
        self._now = now

    async def check(self, token: str) -> ExternalPerson:
        """Find out whom a token is about.

        Raises:
            InvalidExternalToken: it is not good; `reason` says why.
            ExternalKeysUnavailable: whether it is good cannot be told now.
        """
        if len(token) > MAX_TOKEN_CHARACTERS or not token.isascii():
            raise InvalidExternalToken("malformed")
        claims = _decoded(await self._verified_payload(token))
        registered = self._registered(claims)
        subject = claims.get(self._names.subject)
        if not isinstance(subject, str) or not 0 < len(subject) <= MAX_SUBJECT_CHARACTERS:
            raise InvalidExternalToken("claims")
        if "\0" in subject:  # cannot be stored in PostgreSQL
            raise InvalidExternalToken("claims")
        username = claims.get(self._names.username)
        return ExternalPerson(
            identity=ExternalIdentity(self._issuer, subject),
            issued_at_s=registered.iat,
            username=username if isinstance(username, str) else None,
            profile=profile_of(
                claims.get(self._names.display_name),
                claims.get(self._names.avatar_url),
                claims.get(self._names.locale),
            ),
        )

    def age_s(self, person: ExternalPerson) -> float | None:
        """How long ago the token was made; None when it does not say."""
        return None if person.issued_at_s is None else self._now() - person.issued_at_s

    async def _verified_payload(self, token: str) -> bytes:
        try:
            header = msgspec.convert(self._jws.get_unverified_header(token), _Header)
        except (jwt.InvalidTokenError, msgspec.MsgspecError):
            raise InvalidExternalToken("malformed") from None
        if header.alg not in self._algorithms:
            raise InvalidExternalToken("algorithm")
        if header.crit is not msgspec.UNSET:  # an extension that must be understood, and is not
            raise InvalidExternalToken("malformed")
        key = await self._keys.find(header.kid, header.alg)
        if key is None:
            raise InvalidExternalToken("unknown_key")
        try:
            verified = self._jws.decode_complete(token, key, algorithms=[header.alg])
        except jwt.InvalidSignatureError:
            raise InvalidExternalToken("signature") from None
        except jwt.PyJWTError:
            raise InvalidExternalToken("malformed") from None
        payload: bytes = verified["payload"]
        return payload

    def _registered(self, claims: dict[str, Any]) -> _Registered:
        try:
            registered = msgspec.convert(claims, _Registered)
        except msgspec.MsgspecError:
            raise InvalidExternalToken("claims") from None
        if registered.iss != self._issuer:
            raise InvalidExternalToken("issuer")
        audience = registered.aud
        if self._audience not in ([audience] if isinstance(audience, str) else audience):
            raise InvalidExternalToken("audience")
        now = self._now()
        if registered.exp + self._leeway_s <= now:
            raise InvalidExternalToken("expired")
        if max(registered.nbf or 0, registered.iat or 0) - self._leeway_s > now:
            raise InvalidExternalToken("not_yet_valid")
        return registered


def _decoded(payload: bytes) -> dict[str, Any]:
    try:
        return msgspec.json.decode(payload, type=dict[str, Any])
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        raise InvalidExternalToken("malformed") from None
