"""Short sleeps that end when they should: the event loop's own timers know only milliseconds."""

import asyncio
import ctypes
import os
import time
from types import TracebackType
from typing import Final

__all__ = ["Alarm"]

_LIBC = ctypes.CDLL(None)
_NS: Final = 1_000_000_000
_TIME_T_BYTES = 8
"""What a `timespec` is made of here; elsewhere the event loop's timers have to do."""


class Alarm:
    """Sleeps for fractions of a millisecond, by a timerfd where there is one (Linux).

    A context manager, for one sleeper at a time on the running event loop.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._timer: int | None = None
        self._setting = (ctypes.c_long * 4)()  # interval and first expiration, seconds and rest
        self._rung: asyncio.Future[None] | None = None

    def __enter__(self) -> "Alarm":
        self._timer = _create()
        if self._timer is not None:
            self._loop.add_reader(self._timer, self._ring)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._timer is not None:
            self._loop.remove_reader(self._timer)
            os.close(self._timer)
            self._timer = None

    async def sleep(self, delay_s: float) -> None:
        """Return after so long, or a few hundredths of a millisecond later."""
        if self._timer is None:
            await asyncio.sleep(delay_s)
            return
        delay_ns = max(1, int(delay_s * _NS))  # 0 would never ring
        self._setting[2], self._setting[3] = divmod(delay_ns, _NS)
        self._rung = self._loop.create_future()
        _LIBC.timerfd_settime(self._timer, 0, self._setting, None)
        await self._rung

    def _ring(self) -> None:
        if self._timer is None:
            return
        try:
            os.read(self._timer, 8)
        except BlockingIOError:  # it was set anew since
            return
        if self._rung is not None and not self._rung.done():
            self._rung.set_result(None)


def _create() -> int | None:
    """Make a timer; `os.timerfd_create` comes with Python 3.13."""
    create = getattr(_LIBC, "timerfd_create", None)
    if create is None or ctypes.sizeof(ctypes.c_long) != _TIME_T_BYTES:
        return None
    timer: int = create(time.CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
    return timer if timer >= 0 else None
