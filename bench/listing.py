"""What somebody with many conversations waits for: connecting, and the list of conversations."""

import asyncio
import sys
import time

import msgspec

from bench import wire
from bench.pairs import open_client
from bench.tool import Unexpected, main

__all__ = ["ListingPlan", "ListingResult"]


class ListingPlan(msgspec.Struct, frozen=True, kw_only=True):
    """Connect so often, and ask for a page of 50 conversations each time."""

    url: str
    token: str
    repeats: int = 100


class ListingResult(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it."""

    connect_p50_us: float
    connect_p99_us: float
    list_p50_us: float
    list_p99_us: float


async def _measure(plan: ListingPlan) -> ListingResult:
    connect_us, list_us = [], []
    for number in range(plan.repeats):
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

        def on_text(payload: bytes, _last: bool, answer: asyncio.Future[bytes] = answer) -> None:
            if payload.startswith((b'{"type":"conversations"', b'{"type":"error"')):
                answer.set_result(payload)

        started_ns = time.perf_counter_ns()
        client = await open_client(plan.url, plan.token, on_text=on_text)
        connect_us.append((time.perf_counter_ns() - started_ns) / 1000)
        started_ns = time.perf_counter_ns()
        client.write(wire.masked_text(b'{"type":"conversations","id":"%d"}' % number))
        payload = await answer
        list_us.append((time.perf_counter_ns() - started_ns) / 1000)
        if payload.startswith(b'{"type":"error"'):
            raise Unexpected(payload.decode())
        client.close()
    connect_us.sort()
    list_us.sort()
    middle, almost_last = plan.repeats // 2, plan.repeats * 99 // 100
    return ListingResult(
        connect_p50_us=connect_us[middle],
        connect_p99_us=connect_us[almost_last],
        list_p50_us=list_us[middle],
        list_p99_us=list_us[almost_last],
    )


if __name__ == "__main__":
    sys.exit(main(ListingPlan, _measure))
