"""The signing keys in PostgreSQL, encrypted under the service secret, for all services.

A new key is read by every service some seconds before the first token is signed with it, so none
meets a token that it cannot check. AES-GCM (NIST SP 800-38D), its key by HKDF (RFC 5869).
"""

import itertools
import os
from collections.abc import Callable, Sequence

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from profile_service.adapters.postgres_access import StorePostgres
from profile_service.ports import KeysUnusable
from profile_service.tokens import KeyRing, key_id
from shared.postgres import Connection, Postgres

__all__ = ["ACTIVATION_DELAY_S", "PostgresKeys", "insert_keys", "key_cipher", "reseal"]

ACTIVATION_DELAY_S = 15.0
"""From making a key to signing with it: several of the intervals at which services look."""

_NONCE_BYTES = 12
_SELECT = "SELECT id, sealed, signs_from_ms FROM signing_keys ORDER BY signs_from_ms, id"
_LOCK = "LOCK TABLE signing_keys IN SHARE ROW EXCLUSIVE MODE"


class _SealedKey(msgspec.Struct, frozen=True):
    id: str
    sealed: bytes
    signs_from_ms: int


class PostgresKeys:
    """`KeySource` over a `Postgres` that was opened with this package's migrations.

    `now` gives seconds since the epoch; the clocks of the services should agree to a few seconds.
    """

    def __init__(self, database: Postgres, secret: bytes, *, now: Callable[[], float]) -> None:
        self._database = StorePostgres(database)
        self._cipher = key_cipher(secret)
        self._now = now
        self._seen: tuple[frozenset[str], str] = (frozenset(), "")

    async def load(self) -> KeyRing:
        """See `KeySource`. Of services that start at once, one makes the first key."""

        async def read_or_make(connection: Connection) -> list[_SealedKey]:
            await connection.execute(_LOCK)
            if not await _read(connection):
                await self._insert(connection, self._now())
            return await _read(connection)

        return self._open(await self._database.write(read_or_make))

    async def load_if_changed(self) -> KeyRing | None:
        """See `KeySource`."""
        keys = await self._database.read(_read)
        if not keys or self._seen == (frozenset(key.id for key in keys), self._signing(keys).id):
            return None
        return self._open(keys)

    async def rotate(self, keep_s: float) -> str:
        """See `KeySource`. The new key signs `ACTIVATION_DELAY_S` later."""

        async def make_and_remove(connection: Connection) -> str:
            await connection.execute(_LOCK)
            keys = await _read(connection)
            newest_ms = max((key.signs_from_ms for key in keys), default=0)
            delay_s = ACTIVATION_DELAY_S if keys else 0.0
            made = await self._insert(
                connection, max(self._now() + delay_s, (newest_ms + 1) / 1000)
            )
            superseded = [
                key.id
                for key, successor in itertools.pairwise(keys)
                if successor.signs_from_ms <= (self._now() - keep_s) * 1000
            ]
            await connection.execute(
                "DELETE FROM signing_keys WHERE id = ANY($1::text[])", superseded
            )
            return made

        return await self._database.write(make_and_remove)

    async def _insert(self, connection: Connection, signs_from_s: float) -> str:
        key = Ed25519PrivateKey.generate()
        await insert_keys(connection, self._cipher, [(signs_from_s, key)])
        return key_id(key.public_key())

    def _open(self, keys: Sequence[_SealedKey]) -> KeyRing:
        opened = {key.id: _unseal(key, self._cipher) for key in keys}
        signing = self._signing(keys).id
        ring = KeyRing(opened[signing], {name: key.public_key() for name, key in opened.items()})
        self._seen = (frozenset(opened), signing)
        return ring

    def _signing(self, keys: Sequence[_SealedKey]) -> _SealedKey:
        """Choose the newest of those whose time has come; if none has, the one that comes first."""
        due = [key for key in keys if key.signs_from_ms <= self._now() * 1000]
        return due[-1] if due else keys[0]


async def reseal(connection: Connection, old_secret: bytes, new_secret: bytes) -> int:
    """Encrypt every key under another service secret; return how many there are.

    Raises:
        KeysUnusable: one is not encrypted under the old one.
    """
    old, new = key_cipher(old_secret), key_cipher(new_secret)
    await connection.execute(_LOCK)
    keys = await _read(connection)
    for key in keys:
        await connection.execute(
            "UPDATE signing_keys SET sealed = $1 WHERE id = $2",
            _seal(_unseal(key, old), new),
            key.id,
        )
    return len(keys)


async def insert_keys(
    connection: Connection, cipher: AESGCM, keys: Sequence[tuple[float, Ed25519PrivateKey]]
) -> None:
    """Store keys, each with the time in seconds from which it signs."""
    for signs_from_s, key in keys:
        await connection.execute(
            "INSERT INTO signing_keys (id, sealed, signs_from_ms) VALUES ($1, $2, $3)",
            key_id(key.public_key()),
            _seal(key, cipher),
            int(signs_from_s * 1000),
        )


async def _read(connection: Connection) -> list[_SealedKey]:
    return [_SealedKey(*row) for row in await connection.fetch(_SELECT)]


def _seal(key: Ed25519PrivateKey, cipher: AESGCM) -> bytes:
    """Encrypt a key; its name is authenticated, so that keys cannot be swapped."""
    nonce = os.urandom(_NONCE_BYTES)
    name = key_id(key.public_key()).encode()
    return nonce + cipher.encrypt(nonce, key.private_bytes_raw(), name)


def _unseal(key: _SealedKey, cipher: AESGCM) -> Ed25519PrivateKey:
    nonce, encrypted = key.sealed[:_NONCE_BYTES], key.sealed[_NONCE_BYTES:]
    try:
        raw = cipher.decrypt(nonce, encrypted, key.id.encode())
    except (InvalidTag, ValueError):
        raise KeysUnusable(
            f"the signing key {key.id} was encrypted under another service secret: give all profile"
            " services the same one; after a change, run `python -m profile_service reseal-keys`"
        ) from None
    return Ed25519PrivateKey.from_private_bytes(raw)


def key_cipher(secret: bytes) -> AESGCM:
    """What encrypts the keys of an installation with that service secret."""
    derivation = HKDF(SHA256(), length=32, salt=None, info=b"duet profile signing keys")
    return AESGCM(derivation.derive(secret))
