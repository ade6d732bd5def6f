"""How services prove themselves to each other: a short-lived HS256 token from a shared secret.

The secret is made by whichever service starts first and kept in a file that only its owner can
read; both services must see the same file (or be given the same `DUET_SERVICE_SECRET`).
"""

import contextlib
import os
import secrets
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import jwt
import msgspec

__all__ = ["MIN_SECRET_BYTES", "ServiceAuthError", "ServiceCredentials", "load_or_create_secret"]

MIN_SECRET_BYTES = 32
TOKEN_LIFETIME_S = 60
REUSE_S = 30
"""A minted token is presented again for this long: signing one for each request buys nothing."""
CLOCK_SKEW_S = 300
"""The services may be on machines whose clocks differ, or jump. As much as Kerberos allows for."""

_AUDIENCE = "duet-internal"
_ALGORITHM = "HS256"
_TYPE = "service+jwt"
_MAX_BELIEVED = 64


class ServiceAuthError(Exception):
    """The caller did not prove that it is one of our services. Answer 401 and say no more."""


class _Claims(msgspec.Struct, frozen=True):
    iss: str
    iat: int
    exp: int


class ServiceCredentials:
    """Mints and checks service tokens for the service called `name`.

    Safe to use from one event loop; `now` gives seconds since the epoch.
    """

    def __init__(self, secret: bytes, name: str, *, now: Callable[[], float] = time.time) -> None:
        if len(secret) < MIN_SECRET_BYTES:
            raise ValueError(f"the service secret needs at least {MIN_SECRET_BYTES} bytes")
        self._secret = secret
        self._name = name
        self._now = now
        self._token = ""
        self._minted_at = float("-inf")
        self._believed: dict[str, _Claims] = {}
        """Tokens whose signature was good: each is shown with every request for half a minute."""

    def authorization(self) -> str:
        """Return the value of an `Authorization` header that is good for at least 30 seconds."""
        now = self._now()
        if not 0 <= now - self._minted_at < REUSE_S:
            claims = {
                "iss": self._name,
                "aud": _AUDIENCE,
                "iat": int(now),
                "exp": int(now) + TOKEN_LIFETIME_S,
            }
            self._token = jwt.encode(claims, self._secret, _ALGORITHM, headers={"typ": _TYPE})
            self._minted_at = now
        return f"Bearer {self._token}"

    def verify(self, authorization: str | None) -> str:
        """Check an `Authorization` header and return the name of the service that sent it.

        Raises:
            ServiceAuthError: it is absent, malformed, expired, or made with another secret.
        """
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise ServiceAuthError("no service token")
        claims = self._believed.get(token)
        if claims is None:
            claims = self._read(token)
            if len(self._believed) >= _MAX_BELIEVED:
                self._believed.clear()
            self._believed[token] = claims
        now = self._now()
        if claims.iat > now + CLOCK_SKEW_S or claims.exp <= now - CLOCK_SKEW_S:
            raise ServiceAuthError("outside its lifetime")
        return claims.iss

    def _read(self, token: str) -> _Claims:
        try:
            decoded = jwt.decode_complete(
                token,
                self._secret,
                algorithms=[_ALGORITHM],
                audience=_AUDIENCE,
                options={
                    "require": ["iss", "aud", "iat", "exp"],
                    "verify_exp": False,
                    "verify_iat": False,
                },
            )
        except jwt.InvalidTokenError as error:
            raise ServiceAuthError(str(error)) from error
        if decoded["header"].get("typ") != _TYPE:
            raise ServiceAuthError("wrong token type")
        try:
            return msgspec.convert(decoded["payload"], _Claims)
        except msgspec.ValidationError:
            raise ServiceAuthError("malformed claims") from None


def load_or_create_secret(path: Path) -> bytes:
    """Read the shared secret, making it first when there is none.

    Two services that start at once agree: the file appears complete or not at all, and the first
    one wins.

    Raises:
        ValueError: the file holds fewer than 32 bytes.
        OSError: it cannot be read or made.
    """
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".secret-")  # 0600
        try:
            with os.fdopen(descriptor, "w") as file:
                file.write(secrets.token_urlsafe(48) + "\n")
                file.flush()
                os.fsync(file.fileno())
            with contextlib.suppress(FileExistsError):
                os.link(temporary, path)
        finally:
            Path(temporary).unlink()
    secret = path.read_bytes().strip()
    if len(secret) < MIN_SECRET_BYTES:
        raise ValueError(f"{path} holds fewer than {MIN_SECRET_BYTES} bytes; delete it")
    return secret
