"""A clock that moves when a test says so, and timers that follow it."""

import asyncio
from collections.abc import Callable
from typing import cast

__all__ = ["ManualClock", "ManualTimers"]


class ManualClock:
    """Time in seconds, as a callable. It stands still until `advance`."""

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self._now = now

    def __call__(self) -> float:
        return self._now

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self._now += seconds


class _Timer:
    def __init__(self, due: float, callback: Callable[[], None]) -> None:
        self.due = due
        self.callback = callback
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class ManualTimers:
    """`call_later` without an event loop: `advance` calls what has become due, in order."""

    def __init__(self) -> None:
        self._now = 0.0
        self._timers: list[_Timer] = []

    @property
    def pending(self) -> int:
        """How many timers are set."""
        return sum(not timer.cancelled for timer in self._timers)

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> asyncio.TimerHandle:
        """Set a timer."""
        timer = _Timer(self._now + delay_s, callback)
        self._timers.append(timer)
        return cast(asyncio.TimerHandle, timer)

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self._now += seconds
        due = sorted(
            (t for t in self._timers if t.due <= self._now and not t.cancelled),
            key=lambda timer: timer.due,
        )
        for timer in due:
            self._timers.remove(timer)
            if not timer.cancelled:
                timer.callback()
