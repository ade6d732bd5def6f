"""The signing keys as files: one PEM a key, readable by the owner only, the newest one signs.

A file's name begins with the time at which it was made, so that the order needs no second file that
could disagree. A superseded key verifies until every token that it signed has expired.
"""

import contextlib
import itertools
import os
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from profile_service.ports import KeysUnusable
from profile_service.tokens import KeyRing, key_id
from shared.sqlite import sync

__all__ = ["KeyDirectory"]

_TIME_FORMAT = "%Y%m%dT%H%M%S%fZ"


class KeyDirectory:
    """The directory of keys at `path`. `now` gives seconds since the epoch."""

    def __init__(self, path: Path, *, now: Callable[[], float]) -> None:
        self._path = path
        self._now = now
        self._seen: frozenset[str] = frozenset()

    async def load(self) -> KeyRing:
        """See `KeySource`."""
        return self._load()

    async def load_if_changed(self) -> KeyRing | None:
        """See `KeySource`."""
        if frozenset(file.name for file in self._files()) == self._seen:
            return None
        return self._load()

    async def rotate(self, keep_s: float) -> str:
        """See `KeySource`. The new key signs as soon as it is read, which is one directory away."""
        self._load()
        try:
            made = self._make()
            files = self._files()
            for file, successor in itertools.pairwise(files):
                if _made_at_s(successor) <= self._now() - keep_s:
                    file.unlink()
        except OSError as error:
            raise KeysUnusable(f"signing keys in {self._path}: {error}") from error
        return made

    def read(self) -> list[tuple[float, Ed25519PrivateKey]]:
        """Read every key with the time at which it was made, in seconds; the newest one signs.

        Raises:
            KeysUnusable: the message says which file and why.
        """
        try:
            return [(_made_at_s(file), _read(file)) for file in self._files()]
        except OSError as error:
            raise KeysUnusable(f"signing keys in {self._path}: {error}") from error

    def _load(self) -> KeyRing:
        try:
            self._path.mkdir(parents=True, exist_ok=True, mode=0o700)
            if not self._files():
                self._make()
            files = self._files()
            keys = [_read(file) for file in files]
        except OSError as error:
            raise KeysUnusable(f"signing keys in {self._path}: {error}") from error
        self._seen = frozenset(file.name for file in files)
        older = (key.public_key() for key in keys[:-1])
        return KeyRing(keys[-1], {key_id(key): key for key in older})

    def _files(self) -> list[Path]:
        return sorted(self._path.glob("*.pem"))

    def _make(self) -> str:
        key = Ed25519PrivateKey.generate()
        pem = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        newest_s = max(map(_made_at_s, self._files()), default=0.0)
        made_at_s = max(self._now(), newest_s + 0.001)  # it signs, whatever the clock says
        made_at = datetime.fromtimestamp(made_at_s, UTC).strftime(_TIME_FORMAT)
        identifier = key_id(key.public_key())
        descriptor, temporary = tempfile.mkstemp(dir=self._path, prefix=".key-")  # 0600
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(pem)
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).rename(self._path / f"{made_at}-{identifier[:12]}.pem")
        except BaseException:
            with contextlib.suppress(OSError):
                Path(temporary).unlink()
            raise
        sync(self._path)  # or a power cut takes the name: what a lost key signed would be worthless
        return identifier


def _read(file: Path) -> Ed25519PrivateKey:
    try:
        key = serialization.load_pem_private_key(file.read_bytes(), password=None)
        _made_at_s(file)
    except (ValueError, TypeError) as error:
        raise KeysUnusable(f"{file} is not a signing key: {error}") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise KeysUnusable(f"{file} is not an Ed25519 key")
    return key


def _made_at_s(file: Path) -> float:
    made_at = datetime.strptime(file.name.partition("-")[0], _TIME_FORMAT)
    return made_at.replace(tzinfo=UTC).timestamp()
