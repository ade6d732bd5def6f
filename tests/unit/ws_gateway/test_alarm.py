"""Sleeps end on time, with a timerfd and without one."""

import asyncio
import sys
import time
from pathlib import Path

import pytest

from ws_gateway import alarm as module
from ws_gateway.alarm import Alarm


async def test_sleep_is_neither_too_short_nor_a_millisecond_too_long() -> None:
    over_s = []
    with Alarm() as alarm:
        for _ in range(50):
            began_at = time.perf_counter()
            await alarm.sleep(0.0003)
            over_s.append(time.perf_counter() - began_at - 0.0003)
    assert min(over_s) >= 0
    if sys.platform == "linux":
        assert sorted(over_s)[10] < 0.0006  # a busy machine is late now and then


async def test_sleep_of_nothing_ends() -> None:
    async with asyncio.timeout(5):
        with Alarm() as alarm:
            await alarm.sleep(0)


async def test_without_a_timerfd_the_event_loop_keeps_the_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_LIBC", object())
    began_at = time.perf_counter()
    with Alarm() as alarm:
        await alarm.sleep(0.002)
    assert time.perf_counter() - began_at >= 0.001


async def test_sleep_that_is_cancelled_disturbs_no_later_one() -> None:
    with Alarm() as alarm:
        sleeper = asyncio.create_task(alarm.sleep(0.001))
        await asyncio.sleep(0)
        sleeper.cancel()
        began_at = time.perf_counter()
        await alarm.sleep(0.003)
        assert time.perf_counter() - began_at >= 0.003


@pytest.mark.skipif(sys.platform != "linux", reason="counts the descriptors in /proc")
async def test_nothing_is_left_open() -> None:
    before = _descriptors()
    with Alarm() as alarm:
        await alarm.sleep(0.0001)
    assert _descriptors() == before


def _descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))
