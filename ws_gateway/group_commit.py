"""Group commit: whatever waits is stored in one transaction, while the next batch gathers.

A lone item is committed at once, and under load batches grow by themselves, because all that
arrives during one commit forms the next. A transaction costs hardly more for fifty items than for
five, so after items from several sources the next begins a millisecond after theirs began, or
later (ADR 20). Items from one source come together anyway.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Generic, TypeVar

import msgspec

from ws_gateway.alarm import Alarm
from ws_gateway.ports import StoreUnavailable

__all__ = ["Batch", "GroupCommit", "QueueFull"]

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")

_SEVERAL = 4
"""Sources of one batch from which on the next one is paced."""


class QueueFull(Exception):
    """More waits than the store can take, or nobody commits any more. Nothing was queued."""


class Batch(msgspec.Struct, Generic[Item, Outcome], frozen=True):
    """What became of items that were committed together, in the order they were submitted."""

    items: Sequence[Item]
    outcomes: Sequence[Outcome | Exception]
    """One for each item: what the store returned, or why this one was not stored."""
    commit_s: float
    longest_wait_s: float
    """From the oldest item's `submit` to now."""


class GroupCommit(Generic[Item, Outcome]):
    """Feeds batches to `commit`, one at a time, and hands each to `committed`.

    `source` tells where an item came from. `could_not_tell` is called while the exception is
    handled, when `committed` has raised. One task runs `run`. `submit` is for code on the same
    event loop; it never waits. Only `run` awaits the store, and nobody cancels it: a commit whose
    report is lost would be an ack that never comes. Stop it by `drain`.
    """

    def __init__(
        self,
        commit: Callable[[Sequence[Item]], Awaitable[Sequence[Outcome]]],
        committed: Callable[[Batch[Item, Outcome]], None],
        *,
        could_not_tell: Callable[[], None],
        source: Callable[[Item], Hashable],
        max_batch: int = 512,
        max_waiting: int = 20_000,
        pace_s: float = 0.001,
    ) -> None:
        self._commit = commit
        self._committed = committed
        self._could_not_tell = could_not_tell
        self._source = source
        self._max_batch = max_batch
        self._max_waiting = max_waiting
        self._room = max_waiting // 2
        self._pace_s = pace_s
        self._waiting: list[Item] = []
        self._oldest_at = 0.0
        self._wake = asyncio.Event()
        self._draining = False
        self._ended = False
        self._committing = False
        self._reported: list[asyncio.Future[None]] = []

    @property
    def waiting(self) -> int:
        """How many items wait for the next batch."""
        return len(self._waiting)

    @property
    def has_room(self) -> bool:
        """Whether less waits than half of what may."""
        return len(self._waiting) < self._room

    def submit(self, item: Item) -> bool:
        """Queue an item; its outcome comes through `committed`. Returns `has_room`: else its source
        should wait for that, and the rest of the room is for those who have nothing in here yet.

        Raises:
            QueueFull: refused.
        """
        if self._ended or len(self._waiting) >= self._max_waiting:
            raise QueueFull
        if not self._waiting:
            self._oldest_at = time.perf_counter()
            self._wake.set()
        self._waiting.append(item)
        return self.has_room

    async def settled(self) -> None:
        """Wait until the batch that is being committed now, if any, was handed to `committed`."""
        if self._committing:
            reported = asyncio.get_running_loop().create_future()
            self._reported.append(reported)
            await reported

    async def run(self) -> None:
        """Commit batches until `drain` was called and nothing waits."""
        with Alarm() as alarm:
            await self._commit_batches(alarm)

    def drain(self) -> None:
        """Let `run` return once what waits is committed."""
        self._draining = True
        self._wake.set()

    def abandon(self) -> None:
        """Give up what waits, without an outcome; `run` returns after the commit under way."""
        self._waiting.clear()
        self.drain()

    async def _commit_batches(self, alarm: Alarm) -> None:
        paced_until = 0.0
        while True:
            await self._wake.wait()
            if (ahead_s := paced_until - time.perf_counter()) > 0:
                await alarm.sleep(ahead_s)
            if not self._waiting:
                self._ended = True
                return
            items, self._waiting = self._waiting, []
            if len(items) > self._max_batch:
                items, self._waiting = items[: self._max_batch], items[self._max_batch :]
            elif not self._draining:
                self._wake.clear()
            oldest_at, started_at = self._oldest_at, time.perf_counter()
            paced_until = started_at + self._pace_s if self._gathers(items) else 0.0
            self._oldest_at = started_at  # of those that had to stay behind, near enough
            self._committing = True
            outcomes = await self._outcomes(items)
            self._committing = False
            now = time.perf_counter()
            try:
                self._committed(Batch(items, outcomes, now - started_at, now - oldest_at))
            except Exception:
                self._could_not_tell()
            for reported in self._reported:
                if not reported.done():
                    reported.set_result(None)
            self._reported.clear()

    def _gathers(self, items: Sequence[Item]) -> bool:
        """Whether so many send at once that the next batch is worth waiting for."""
        sources: set[Hashable] = set()
        for item in items:  # of a large batch, only as many as it takes
            sources.add(self._source(item))
            if len(sources) == _SEVERAL:
                return True
        return False

    async def _outcomes(self, items: Sequence[Item]) -> Sequence[Outcome | Exception]:
        """Commit all together, or each alone when one of them spoils the batch for the others."""
        try:
            return await self._commit(items)
        except StoreUnavailable as error:
            return [error] * len(items)
        except Exception as error:
            if len(items) == 1:
                return [error]
            return await self._outcomes_one_by_one(items)

    async def _outcomes_one_by_one(self, items: Sequence[Item]) -> Sequence[Outcome | Exception]:
        outcomes: list[Outcome | Exception] = []
        for item in items:
            outcomes.extend(await self._outcomes([item]))
            if isinstance(outcomes[-1], StoreUnavailable):  # to each it would say so in turn
                return outcomes + outcomes[-1:] * (len(items) - len(outcomes))
        return outcomes
