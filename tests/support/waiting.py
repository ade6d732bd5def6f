"""Waiting for what gives no event of its own, with a deadline."""

import asyncio
from collections.abc import Callable

__all__ = ["Gate", "until"]

_LOOK_EVERY_S = 0.002


async def until(condition: Callable[[], bool], *, within_s: float = 10.0) -> None:
    """Return as soon as `condition` holds.

    Raises:
        TimeoutError: it did not in time.
    """
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110 - the condition has no event
            await asyncio.sleep(_LOOK_EVERY_S)


class Gate:
    """A place in a fake where calls can be held. Open at first."""

    def __init__(self) -> None:
        self._open = asyncio.Event()
        self._open.set()
        self._arrived = 0
        self._arrival = asyncio.Condition()

    def close(self) -> None:
        """Hold whoever comes from now on."""
        self._open.clear()

    def open(self) -> None:
        """Let everybody through."""
        self._open.set()

    async def passed(self) -> None:
        """Arrive, and go on when the gate is open."""
        async with self._arrival:
            self._arrived += 1
            self._arrival.notify_all()
        await self._open.wait()

    async def arrivals(self, count: int) -> None:
        """Return once so many calls have arrived since the start."""
        async with asyncio.timeout(10), self._arrival:
            await self._arrival.wait_for(lambda: self._arrived >= count)
