"""The feed of revocations: the table is the truth, and a wake-up in the process makes it prompt."""

import asyncio
import re
from collections.abc import AsyncGenerator

import msgspec

from profile_service.ports import FeedEntry, FeedPosition, SessionStore
from shared.revocation import FEED_KEEPALIVE_S, Revocation

__all__ = ["KeepAlive", "Ready", "Reset", "RevocationFeed", "Revoked"]

MAX_PAGE = 100

_ID = re.compile(r"([0-9]{1,18})-([0-9a-f]{16})")


class Ready(msgspec.Struct, frozen=True):
    """The follower stands at `id`; what comes next follows it."""

    id: str


class Reset(msgspec.Struct, frozen=True):
    """The place that the follower resumed from is unknown; it stands at `id` now."""

    id: str


class Revoked(msgspec.Struct, frozen=True):
    """Something that ends live connections."""

    id: str
    revocation: Revocation


class KeepAlive(msgspec.Struct, frozen=True):
    """Nothing happened for a while."""


class RevocationFeed:
    """Lets any number of followers read the revocations, each at its own pace.

    A slow follower costs nothing: pages are read from the store when it is ready for them. Use it
    from one event loop.
    """

    def __init__(self, store: SessionStore, *, keepalive_s: float = FEED_KEEPALIVE_S / 2) -> None:
        self._store = store
        self._keepalive_s = keepalive_s
        self._appended = asyncio.Event()
        self._closed = False

    def notify(self) -> None:
        """Wake the followers. Call it after a transaction that appended a revocation."""
        appended, self._appended = self._appended, asyncio.Event()
        appended.set()

    def close(self) -> None:
        """End every follower, now and in future: the service is going down."""
        self._closed = True
        self.notify()

    async def follow(
        self, last_id: str | None
    ) -> AsyncGenerator[Ready | Reset | Revoked | KeepAlive]:
        """Yield what comes after `last_id`, or after now when it is None, until closed.

        Raises:
            StoreUnavailable: the store does not answer; the follower should resume later.
        """
        at = await self._start(last_id)
        if at is None:
            at = await self._store.feed_end()
            yield Reset(_id(at))
        yield Ready(_id(at))
        while not self._closed:
            appended = self._appended  # taken before reading, so that nothing falls in between
            page = await self._store.revocations_after(at.position, MAX_PAGE)
            for entry in page:
                at = entry.at
                yield _revoked(entry)
            if not page and not await self._wait(appended):
                yield KeepAlive()

    async def _start(self, last_id: str | None) -> FeedPosition | None:
        if last_id is None:
            return await self._store.feed_end()
        match = _ID.fullmatch(last_id)
        if match is None:
            return None
        at = FeedPosition(int(match[1]), match[2])
        return at if await self._store.feed_has(at) else None

    async def _wait(self, appended: asyncio.Event) -> bool:
        try:
            async with asyncio.timeout(self._keepalive_s):
                return await appended.wait()
        except TimeoutError:
            return False


def _id(at: FeedPosition) -> str:
    return f"{at.position}-{at.nonce}"


def _revoked(entry: FeedEntry) -> Revoked:
    return Revoked(_id(entry.at), entry.revocation)
