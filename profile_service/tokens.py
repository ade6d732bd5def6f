"""Access and refresh tokens: JSON Web Tokens signed with Ed25519 (RFC 8037), checked by us.

The two kinds differ in header type and audience, so that neither passes for the other (RFC 8725
section 3.12). PyJWT does the signature; the claims are decoded strictly into a struct, because
PyJWT accepts absent claims and never looks at `typ`.
"""

import base64
import collections
import hashlib
import secrets
from collections.abc import Callable, Mapping

import jwt
import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from profile_service.errors import InvalidAccessToken, InvalidRefreshToken
from profile_service.rotation import PresentedRefresh, Session
from shared.ids import SessionId, UserId
from shared.introspection import IssuedTokens

__all__ = ["KeyRing", "TokenAuthority", "TokenClaims", "key_id"]

ACCESS_TYPE = "at+jwt"
REFRESH_TYPE = "rt+jwt"
MAX_TOKEN_CHARACTERS = 2048
CLOCK_SKEW_S = 600
"""A clock that was set back by less than this does not make fresh tokens look forged, and so does
not log everybody out. The signature says that they are ours; this only bounds a leaked key."""
MAX_REMEMBERED_TOKENS = 16_384
"""About 10 MB. A remembered token costs a hash instead of a signature check (1 against 100 µs)."""

_ALGORITHM = "EdDSA"
_jws = jwt.PyJWS(algorithms=[_ALGORITHM])


class TokenClaims(msgspec.Struct, frozen=True, kw_only=True):
    """What both kinds of token say; times in seconds since the epoch."""

    iss: str
    sub: UserId
    aud: str
    iat: int
    exp: int
    jti: str
    sid: SessionId
    ver: int
    """The user's token version when it was issued."""
    gen: int
    """The session's generation when it was issued."""

    def presented(self) -> PresentedRefresh:
        """What the rule of rotation needs to know of a refresh token."""
        return PresentedRefresh(
            session_id=self.sid, user_id=self.sub, token_version=self.ver, generation=self.gen
        )


class _Header(msgspec.Struct, frozen=True):
    typ: str
    kid: str


class KeyRing:
    """The key that signs and all that still verify, by key id. Immutable."""

    def __init__(self, signing: Ed25519PrivateKey, verifying: Mapping[str, Ed25519PublicKey]):
        self.signing = signing
        self.signing_id = key_id(signing.public_key())
        self.verifying = {**verifying, self.signing_id: signing.public_key()}

    def jwks(self) -> dict[str, list[dict[str, str]]]:
        """The public halves as a JSON Web Key Set (RFC 7517), for offline verification."""
        return {
            "keys": [
                {
                    "kty": "OKP",
                    "crv": "Ed25519",
                    "use": "sig",
                    "alg": _ALGORITHM,
                    "kid": identifier,
                    "x": _base64url(key.public_bytes_raw()),
                }
                for identifier, key in self.verifying.items()
            ]
        }


class TokenAuthority:
    """Issues tokens and checks those that come back. Use it from one event loop.

    `keys` may be replaced at any time; tokens of keys that are gone stop being valid at once.
    `now` gives seconds since the epoch.
    """

    def __init__(
        self,
        keys: KeyRing,
        *,
        issuer: str,
        audience: str,
        access_lifetime_s: int,
        refresh_lifetime_s: int,
        now: Callable[[], float],
    ) -> None:
        self._keys = keys
        self._issuer = issuer
        self._audiences = {ACCESS_TYPE: audience, REFRESH_TYPE: f"{issuer}#token"}
        self._access_lifetime_s = access_lifetime_s
        self._refresh_lifetime_s = refresh_lifetime_s
        self._now = now
        self._remembered: collections.OrderedDict[bytes, TokenClaims] = collections.OrderedDict()

    @property
    def keys(self) -> KeyRing:
        """The keys in use."""
        return self._keys

    @keys.setter
    def keys(self, keys: KeyRing) -> None:
        self._keys = keys
        self._remembered.clear()

    def issue(self, session: Session, token_version: int) -> IssuedTokens:
        """Make a pair of tokens for a session as it is stored now; neither outlives it."""
        now, session_end = int(self._now()), session.expires_at_ms // 1000
        access_end = min(now + self._access_lifetime_s, session_end)
        refresh_end = min(now + self._refresh_lifetime_s, session_end)
        access = self._issue(ACCESS_TYPE, session, token_version, now, access_end)
        refresh = self._issue(REFRESH_TYPE, session, token_version, now, refresh_end)
        return IssuedTokens(access, refresh, max(0, access_end - now))

    def check_access(self, token: str, *, even_expired: bool = False) -> TokenClaims:
        """Check an access token offline. Whether its session still lives must be checked after.

        Raises:
            InvalidAccessToken: malformed, forged, of another kind, or expired.
        """
        claims = self._check(ACCESS_TYPE, token)
        if claims is None or (not even_expired and self.is_expired(claims)):
            raise InvalidAccessToken("not a valid access token")
        return claims

    def check_refresh(self, token: str) -> TokenClaims:
        """Check a refresh token offline. What it buys is for `rotation.decide` to say.

        Raises:
            InvalidRefreshToken: malformed, forged, of another kind, or expired.
        """
        claims = self._check(REFRESH_TYPE, token)
        if claims is None or self.is_expired(claims):
            raise InvalidRefreshToken("not a valid refresh token")
        return claims

    def is_expired(self, claims: TokenClaims) -> bool:
        """Tell whether the token's time is over."""
        return claims.exp <= self._now()

    def lacks_key_of(self, token: str) -> bool:
        """Tell whether a token names a key that is not known here."""
        if len(token) > MAX_TOKEN_CHARACTERS or not token.isascii():
            return False
        try:
            return _unverified_header(token).kid not in self._keys.verifying
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return False

    def _issue(self, kind: str, session: Session, token_version: int, now: int, end: int) -> str:
        claims = TokenClaims(
            iss=self._issuer,
            sub=session.user_id,
            aud=self._audiences[kind],
            iat=now,
            exp=end,
            jti=secrets.token_urlsafe(12),
            sid=session.id,
            ver=token_version,
            gen=session.generation,
        )
        headers = {"typ": kind, "kid": self._keys.signing_id}
        token = _jws.encode(msgspec.json.encode(claims), self._keys.signing, _ALGORITHM, headers)
        self._remember(_fingerprint(kind, token), claims)
        return token

    def _check(self, kind: str, token: str) -> TokenClaims | None:
        if len(token) > MAX_TOKEN_CHARACTERS or not token.isascii():
            return None
        fingerprint = _fingerprint(kind, token)
        claims = self._remembered.get(fingerprint)
        if claims is None:
            claims = self._verify(kind, token)
            if claims is None:
                return None
            self._remember(fingerprint, claims)
        return None if claims.iat > self._now() + CLOCK_SKEW_S else claims

    def _verify(self, kind: str, token: str) -> TokenClaims | None:
        try:
            header = _unverified_header(token)
            key = self._keys.verifying.get(header.kid)
            if key is None or header.typ != kind:
                return None
            payload = _jws.decode_complete(token, key, algorithms=[_ALGORITHM])["payload"]
            claims = msgspec.json.decode(payload, type=TokenClaims)
        except (jwt.InvalidTokenError, msgspec.MsgspecError, ValueError, RecursionError):
            return None
        if claims.iss != self._issuer or claims.aud != self._audiences[kind]:
            return None
        return claims

    def _remember(self, fingerprint: bytes, claims: TokenClaims) -> None:
        self._remembered[fingerprint] = claims
        if len(self._remembered) > MAX_REMEMBERED_TOKENS:
            self._remembered.popitem(last=False)


def key_id(key: Ed25519PublicKey) -> str:
    """Name a key by its JWK thumbprint (RFC 7638), so that the name says which key it is."""
    members = {"crv": "Ed25519", "kty": "OKP", "x": _base64url(key.public_bytes_raw())}
    return _base64url(hashlib.sha256(msgspec.json.encode(members)).digest())


def _unverified_header(token: str) -> _Header:
    """Read what says which key to check with; PyJWT's own way costs half as much as the check.

    The signature covers this segment, and PyJWT reads it again before it believes it.
    """
    segment = token.partition(".")[0]
    return msgspec.json.decode(
        base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4)), type=_Header
    )


def _fingerprint(kind: str, token: str) -> bytes:
    return hashlib.blake2b(token.encode(), digest_size=16, person=kind.encode()).digest()


def _base64url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")
