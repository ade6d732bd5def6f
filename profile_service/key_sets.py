"""Key sets of an identity provider (RFC 7517): which of its keys verifies which token. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import jwt
import msgspec
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

__all__ = ["KEY_TYPES", "KeySet", "PublicKey"]

PublicKey: TypeAlias = RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey

KEY_TYPES: Mapping[str, tuple[str, str | None]] = {
    "RS256": ("RSA", None),
    "RS384": ("RSA", None),
    "RS512": ("RSA", None),
    "PS256": ("RSA", None),
    "PS384": ("RSA", None),
    "PS512": ("RSA", None),
    "ES256": ("EC", "P-256"),
    "ES384": ("EC", "P-384"),
    "ES512": ("EC", "P-521"),
    "EdDSA": ("OKP", "Ed25519"),
}
"""Algorithms that can be verified, with the type and the curve of their keys (RFC 7518, RFC 8037).

A symmetric algorithm is not among them: whoever can verify with it can sign, too.
"""

MIN_RSA_BITS = 2048
"""RFC 7518, section 3.3."""


class _Member(msgspec.Struct, frozen=True):
    """What a key says of itself; the numbers are for the library."""

    kty: str
    kid: str | None = None
    crv: str | None = None
    alg: str | None = None
    use: str | None = None
    d: Any = None
    """Of a private key: nobody should publish it, and nobody should believe it any more."""

    def algorithms(self) -> frozenset[str]:
        fitting = (name for name, kind in KEY_TYPES.items() if kind in self._kinds())
        return frozenset(name for name in fitting if self.alg in {None, name})

    def _kinds(self) -> tuple[tuple[str, str | None], ...]:
        return ((self.kty, self.crv), (self.kty, None))


class _Key(msgspec.Struct, frozen=True):
    kid: str | None
    algorithms: frozenset[str]
    public: PublicKey


class KeySet:
    """The usable keys of a set. Immutable."""

    def __init__(self, keys: Sequence[_Key]) -> None:
        self._keys = tuple(keys)

    def __len__(self) -> int:
        return len(self._keys)

    @classmethod
    def parse(cls, raw: bytes) -> "KeySet":
        """Read a JSON Web Key Set; keys of no use here, such as those for encryption, are skipped.

        Raises:
            ValueError: it is no key set, or holds no usable key.
        """
        try:
            members = msgspec.json.decode(raw, type=dict[str, Any]).get("keys")
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
            raise ValueError(f"not a JSON Web Key Set: {error}") from None
        if not isinstance(members, list):
            raise ValueError("not a JSON Web Key Set: it has no list of keys")
        keys = [key for member in members if (key := _key(member)) is not None]
        if not keys:
            raise ValueError(f"none of the {len(members)} keys can verify a signature here")
        return cls(keys)

    def find(self, kid: str | None, algorithm: str) -> PublicKey | None:
        """Return the key of that name for that algorithm; without a name, the only one for it."""
        named = [
            key
            for key in self._keys
            if algorithm in key.algorithms and (kid is None or key.kid == kid)
        ]
        return named[0].public if len(named) == 1 or (named and kid is not None) else None


def _key(value: object) -> _Key | None:
    try:
        member = msgspec.convert(value, _Member)
        algorithms = member.algorithms()
        if not algorithms or member.use not in {None, "sig"} or member.d is not None:
            return None
        public = jwt.PyJWK(msgspec.convert(value, dict[str, Any]), min(algorithms)).key
    except (msgspec.MsgspecError, jwt.PyJWTError, ValueError, TypeError):
        return None
    if not isinstance(public, PublicKey):
        return None
    if isinstance(public, RSAPublicKey) and public.key_size < MIN_RSA_BITS:
        return None
    return _Key(member.kid, algorithms, public)
