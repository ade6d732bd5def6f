"""Tokens, and where they are kept: in memory, in a file, or in the platform's keyring."""

import asyncio
import contextlib
import os
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Protocol

import msgspec
from filelock import FileLock, Timeout

__all__ = [
    "CredentialStore",
    "FileCredentials",
    "KeyringCredentials",
    "MemoryCredentials",
    "Tokens",
]

_LOCK_AGAIN_S = 0.02


class Tokens(msgspec.Struct, frozen=True):
    """What proves who you are. Secret: `repr` shows none of it."""

    access_token: str
    refresh_token: str
    expires_at: float
    """When the access token expires, in seconds since the epoch of this machine's clock."""
    session_id: str
    user_id: str
    username: str

    def __repr__(self) -> str:
        return f"Tokens(…, username={self.username!r})"


class CredentialStore(Protocol):
    """Keeps one device's tokens. All but `locked` may block; they are called in a thread.

    A refresh token works once: `save` must be durable when it returns. Where several processes
    share the tokens, `locked` must keep all but one out: two refreshes at once may look like theft.
    """

    def load(self) -> Tokens | None:
        """Return the tokens, or None when there are none."""
        ...

    def save(self, tokens: Tokens) -> None:
        """Replace the tokens, all or nothing."""
        ...

    def clear(self) -> None:
        """Forget the tokens."""
        ...

    def locked(self) -> contextlib.AbstractAsyncContextManager[object]:
        """Hold others off while the tokens are being refreshed."""
        ...


class MemoryCredentials:
    """Tokens that end with the process: a later one has to log in."""

    def __init__(self, tokens: Tokens | None = None) -> None:
        self._tokens = tokens
        self._lock = asyncio.Lock()

    def load(self) -> Tokens | None:
        """Return the tokens."""
        return self._tokens

    def save(self, tokens: Tokens) -> None:
        """Replace the tokens."""
        self._tokens = tokens

    def clear(self) -> None:
        """Forget the tokens."""
        self._tokens = None

    def locked(self) -> contextlib.AbstractAsyncContextManager[object]:
        """Hold off other clients in this process that share this object."""
        return self._lock


class FileCredentials:
    """Tokens in a file that only its owner can read, replaced as a whole."""

    def __init__(self, path: Path | str) -> None:
        self._path = Path(path)

    def load(self) -> Tokens | None:
        """Return the tokens; a damaged file counts as none."""
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=Tokens)
        except (FileNotFoundError, msgspec.DecodeError):
            return None

    def save(self, tokens: Tokens) -> None:
        """Write a new file beside the old one, have it on the disk, then put it in its place."""
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor, temporary = tempfile.mkstemp(dir=self._path.parent, prefix=".tokens-")  # 0600
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(msgspec.json.encode(tokens))
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).replace(self._path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise

    def clear(self) -> None:
        """Delete the file."""
        self._path.unlink(missing_ok=True)

    def locked(self) -> contextlib.AbstractAsyncContextManager[object]:
        """Hold off other processes by a lock on a file beside it."""
        return _file_lock(self._path.with_name(self._path.name + ".lock"))


class KeyringCredentials:
    """Tokens in the platform's keyring (needs `pip install duet-client[keyring]`).

    `lock_path` is where processes that share them meet.

    Raises:
        ImportError: the extra is not installed.
    """

    def __init__(self, name: str, lock_path: Path, *, service: str = "duet") -> None:
        import keyring  # noqa: PLC0415 - an optional extra

        self._keyring = keyring
        self._service = service
        self._name = name
        self._lock_path = lock_path

    @classmethod
    def works(cls) -> bool:
        """Whether there is a keyring that keeps secrets, and not merely something of that shape."""
        try:
            import keyring  # noqa: PLC0415
            from keyring.backends import fail, null  # noqa: PLC0415
        except ImportError:
            return False
        return not isinstance(keyring.get_keyring(), (fail.Keyring, null.Keyring))

    def load(self) -> Tokens | None:
        """Return the tokens; a damaged entry counts as none."""
        kept = self._keyring.get_password(self._service, self._name)
        try:
            return None if kept is None else msgspec.json.decode(kept, type=Tokens)
        except msgspec.DecodeError:
            return None

    def save(self, tokens: Tokens) -> None:
        """Replace the entry."""
        text = msgspec.json.encode(tokens).decode()
        self._keyring.set_password(self._service, self._name, text)

    def clear(self) -> None:
        """Delete the entry."""
        with contextlib.suppress(self._keyring.errors.PasswordDeleteError):
            self._keyring.delete_password(self._service, self._name)

    def locked(self) -> contextlib.AbstractAsyncContextManager[object]:
        """Hold off other processes by a lock on a file."""
        return _file_lock(self._lock_path)


@contextlib.asynccontextmanager
async def _file_lock(path: Path) -> AsyncIterator[None]:
    """Hold a lock between processes. Asked for again and again, so that cancelling is simple."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    lock = FileLock(path, thread_local=False, mode=0o600)
    while True:
        try:
            lock.acquire(blocking=False)
            break
        except Timeout:
            await asyncio.sleep(_LOCK_AGAIN_S)
    try:
        yield
    finally:
        lock.release()
