"""`ExternalKeys` from a file or a URL: read when needed, remembered, and never waited for twice."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Protocol

import httpx
import structlog

from profile_service.errors import ExternalKeysUnavailable
from profile_service.key_sets import KeySet, PublicKey

__all__ = ["CachedKeys", "KeySetFile", "KeySetUnreadable", "KeySetUrl", "open_keys"]

MAX_KEY_SET_BYTES = 256 * 1024
FIRST_RETRY_S = 1.0
"""As long as there are no keys at all, they are asked for this often: nobody can sign in."""

_log = structlog.get_logger(__name__)


class KeySetUnreadable(Exception):
    """The key set cannot be had. The message says from where and why."""


class KeySetSource(Protocol):
    """Where a key set comes from."""

    async def read(self) -> bytes:
        """Read it as it is now.

        Raises:
            KeySetUnreadable: the message says why.
        """
        ...


class KeySetFile:
    """A key set in a file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __str__(self) -> str:
        return str(self._path)

    async def read(self) -> bytes:
        """See `KeySetSource`."""
        try:
            return await asyncio.to_thread(self._path.read_bytes)
        except OSError as error:
            raise KeySetUnreadable(error.strerror or str(error)) from None


class KeySetUrl:
    """A key set at a URL. No redirects, no proxies of the environment, one deadline for all of it.

    `close` it when it is of no more use.
    """

    def __init__(self, url: str, *, timeout_s: float) -> None:
        self._url = url
        self._timeout_s = timeout_s
        trusted = httpx.create_ssl_context(trust_env=False)
        trusted.load_default_certs()  # of the machine, too: there may be a company's own
        self._client = httpx.AsyncClient(
            verify=trusted,
            trust_env=False,
            timeout=timeout_s,
            headers={"Accept": "application/json", "Accept-Encoding": "identity"},
        )

    def __str__(self) -> str:
        return self._url

    async def read(self) -> bytes:
        """See `KeySetSource`."""
        body = bytearray()
        try:
            async with (
                asyncio.timeout(self._timeout_s),
                self._client.stream("GET", self._url) as got,
            ):
                if got.status_code != httpx.codes.OK:
                    raise KeySetUnreadable(f"answered {got.status_code}")
                async for chunk in got.aiter_raw():
                    body += chunk
                    if len(body) > MAX_KEY_SET_BYTES:
                        raise KeySetUnreadable(f"is longer than {MAX_KEY_SET_BYTES} bytes")
        except (httpx.HTTPError, OSError) as error:  # a TimeoutError is an OSError
            raise KeySetUnreadable(str(error) or type(error).__name__) from None
        return bytes(body)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()


class CachedKeys:
    """The keys of a source, remembered. Any coroutine of one event loop may ask.

    A key that is not known makes it read the source again, at most every `refetch_s`; keys older
    than `max_age_s` are read again while they are still used. What is known stays known while the
    source fails. `monotonic` gives seconds; `on_read` hears whether a reading succeeded.
    """

    def __init__(
        self,
        source: KeySetSource,
        *,
        refetch_s: float,
        max_age_s: float,
        monotonic: Callable[[], float],
        on_read: Callable[[bool], None],
    ) -> None:
        self._source = source
        self._refetch_s = refetch_s
        self._max_age_s = max_age_s
        self._monotonic = monotonic
        self._on_read = on_read
        self._keys: KeySet | None = None
        self._read_at = float("-inf")
        self._tried_at = float("-inf")
        self._failing = False
        self._reading: asyncio.Task[None] | None = None

    async def find(self, kid: str | None, algorithm: str) -> PublicKey | None:
        """See `ExternalKeys`."""
        key = None if self._keys is None else self._keys.find(kid, algorithm)
        if key is not None:
            if self._monotonic() - self._read_at > self._max_age_s:
                self.read_soon()
            return key
        self.read_soon()
        if self._reading is not None:
            await asyncio.shield(self._reading)
        if self._failing or self._keys is None:
            wait_s = self._tried_at + self._interval_s - self._monotonic()
            raise ExternalKeysUnavailable(retry_after_s=max(wait_s, FIRST_RETRY_S))
        return self._keys.find(kid, algorithm)

    def read_soon(self) -> None:
        """Begin to read the source, unless it is being read or was just now."""
        if self._reading is None and self._monotonic() - self._tried_at >= self._interval_s:
            self._tried_at = self._monotonic()
            self._reading = asyncio.create_task(self._read())

    async def read_now(self) -> None:
        """Read the source and wait for it.

        Raises:
            KeySetUnreadable: the message names the source and says why.
        """
        try:
            keys = KeySet.parse(await self._source.read())
        except (KeySetUnreadable, ValueError) as error:
            raise KeySetUnreadable(f"key set {self._source}: {error}") from None
        self._keys = keys
        self._read_at = self._monotonic()

    async def close(self) -> None:
        """Stop reading."""
        if self._reading is not None:
            self._reading.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._reading

    @property
    def _interval_s(self) -> float:
        return FIRST_RETRY_S if self._keys is None else self._refetch_s

    async def _read(self) -> None:
        failed = self._failing
        try:
            await self.read_now()
        except KeySetUnreadable as error:
            self._failing = True
            if not failed:  # once a streak
                _log.warning("external_keys_unavailable", reason=str(error))
        else:
            self._failing = False
            _log.info("external_keys_read", source=str(self._source), keys=len(self._keys or ()))
        finally:
            self._reading = None
        self._on_read(not self._failing)


@contextlib.asynccontextmanager
async def open_keys(
    source: Path | str,
    *,
    timeout_s: float,
    refetch_s: float,
    max_age_s: float,
    monotonic: Callable[[], float],
    on_read: Callable[[bool], None],
) -> AsyncIterator[CachedKeys]:
    """Keep the keys of a file, or of a URL, while the context lasts.

    A file must be there now. A URL is read in the background: whoever answers there may well start
    after this.

    Raises:
        KeySetUnreadable: the file cannot be read, or is no key set.
    """
    async with contextlib.AsyncExitStack() as stack:
        reader: KeySetSource
        if isinstance(source, Path):
            reader = KeySetFile(source)
        else:
            reader = url = KeySetUrl(source, timeout_s=timeout_s)
            stack.push_async_callback(url.close)
        keys = CachedKeys(
            reader, refetch_s=refetch_s, max_age_s=max_age_s, monotonic=monotonic, on_read=on_read
        )
        stack.push_async_callback(keys.close)
        if isinstance(source, Path):
            await keys.read_now()
        else:
            keys.read_soon()
        yield keys
