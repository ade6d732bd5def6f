"""The load generator for messages (run by `bench.tool`).

Closed loop: each pair keeps `window` messages in flight. Open loop: messages leave at a fixed rate
whatever the server does, and latencies count from the time they were meant to leave, so a stall is
charged to every message it held up (no "coordinated omission").
"""

import asyncio
import ctypes
import gc
import os
import sys
import time
from collections.abc import Callable

import msgspec
from hdrh.histogram import HdrHistogram  # type: ignore[import-untyped]

from bench import wire
from bench.pairs import Client, Pair, open_client
from bench.proc import CpuMeter, CpuShares
from bench.tool import main

__all__ = ["Latency", "LoadPlan", "LoadResult", "PairPlan"]

_TICK_NS = 200_000
_DRAIN_TIMEOUT_S = 30.0


class PairPlan(msgspec.Struct, frozen=True):
    """Who writes to whom."""

    sender_token: str
    recipient_token: str
    recipient_id: str


class LoadPlan(msgspec.Struct, frozen=True, kw_only=True):
    """One measurement."""

    url: str
    server_pid: int
    pairs: list[PairPlan]
    window: int = 1
    rate_per_s: float | None = None
    """Messages a second of all pairs together: open loop. Without it: closed loop."""
    warm_up_s: float = 1.0
    measured_s: float = 3.0
    text_characters: int = wire.TEXT_CHARACTERS
    client_ids: wire.IdKind = "uuid7"


class Latency(msgspec.Struct, frozen=True):
    """Percentiles in microseconds, from an HDR histogram with three significant digits."""

    p50_us: float
    p90_us: float
    p99_us: float
    p999_us: float
    max_us: float


class LoadResult(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it."""

    messages_per_s: float
    ack: Latency
    delivery: Latency
    cpu: CpuShares
    late_p99_us: float
    """How late the generator itself wrote, open loop only; part of the latencies."""
    sent: int
    lost: int
    """Messages without ack or delivery at the end."""


class Load:
    """Runs one plan."""

    def __init__(self, plan: LoadPlan) -> None:
        self._plan = plan
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._pairs: list[Pair] = []
        self._sending = True
        self._lateness_ns: list[int] = []
        self._next = 0
        self._started_ns = 0
        self._interval_ns = 0.0

    async def run(self) -> LoadResult:
        """Connect, warm up, measure, wait for what is in flight.

        Raises:
            Unexpected: the server misbehaved.
        """
        plan = self._plan
        clients = await asyncio.gather(
            *(open_client(plan.url, p.sender_token) for p in plan.pairs),
            *(open_client(plan.url, p.recipient_token) for p in plan.pairs),
        )
        for client in clients:
            client.failed = self._fail
        self._pair_up(clients)
        gc.collect()
        gc.freeze()
        gc.disable()  # nothing cyclic is made, and a collection would look like the server's
        stop = self._start_sending()
        await self._wait(plan.warm_up_s)
        meter, before = CpuMeter(plan.server_pid), self._sample()
        await self._wait(plan.measured_s)
        after, cpu = self._sample(), meter.shares()
        self._sending = False
        stop()
        await self._drained()
        result = self._result(before, after, cpu)
        for client in clients:
            client.close()
        return result

    def _pair_up(self, clients: list[Client]) -> None:
        count = len(self._plan.pairs)
        for plan, sender, recipient in zip(
            self._plan.pairs, clients[:count], clients[count:], strict=True
        ):
            ids = wire.ClientIds(self._plan.client_ids)
            self._pairs.append(
                Pair(
                    sender,
                    recipient,
                    plan.recipient_id,
                    ids,
                    self._done,
                    text_characters=self._plan.text_characters,
                )
            )

    def _start_sending(self) -> Callable[[], None]:
        """Begin; returns what ends it."""
        self._started_ns = time.perf_counter_ns()
        if self._plan.rate_per_s is None:
            for pair in self._pairs:
                pair.send([self._started_ns] * self._plan.window)
            return lambda: None
        self._interval_ns = 1e9 / self._plan.rate_per_s
        loop = asyncio.get_running_loop()
        timer = _periodic_timer(_TICK_NS)
        loop.add_reader(timer, self._tick, timer)

        def stop() -> None:
            loop.remove_reader(timer)
            os.close(timer)

        return stop

    def _done(self, pair: Pair, count: int) -> None:
        if self._sending and self._plan.rate_per_s is None:
            pair.send([time.perf_counter_ns()] * count)

    def _tick(self, timer: int) -> None:
        """Send what is due by now, each message with the time it was due."""
        os.read(timer, 8)
        now_ns = time.perf_counter_ns()
        due = int((now_ns - self._started_ns) / self._interval_ns)
        by_pair: dict[int, list[int]] = {}
        for number in range(self._next, due):
            intended_ns = self._started_ns + int((number + 1) * self._interval_ns)
            by_pair.setdefault(number % len(self._pairs), []).append(intended_ns)
            self._lateness_ns.append(now_ns - intended_ns)
        self._next = max(self._next, due)
        for index, intended in by_pair.items():
            self._pairs[index].send(intended)

    def _fail(self, error: Exception) -> None:
        if not self._failed.done():
            self._failed.set_exception(error)

    async def _wait(self, seconds: float) -> None:
        await asyncio.wait({self._failed}, timeout=seconds)
        if self._failed.done():
            self._failed.result()

    async def _drained(self) -> None:
        """Wait until everything that was sent is done, or for the timeout."""
        deadline = time.monotonic() + _DRAIN_TIMEOUT_S
        while any(p.completed < p.sent for p in self._pairs) and time.monotonic() < deadline:
            await self._wait(0.01)

    def _sample(self) -> "_Sample":
        return _Sample(time.perf_counter_ns(), sum(pair.completed for pair in self._pairs))

    def _result(self, before: "_Sample", after: "_Sample", cpu: CpuShares) -> LoadResult:
        elapsed_s = (after.at_ns - before.at_ns) / 1e9
        ack, delivery = _histogram(), _histogram()
        for pair in self._pairs:
            for intended, acked, delivered in zip(
                pair.intended_ns, pair.acked_ns, pair.delivered_ns, strict=False
            ):
                if before.at_ns <= intended < after.at_ns:
                    ack.record_value(max(1, (acked - intended) // 1000))
                    delivery.record_value(max(1, (delivered - intended) // 1000))
        sent = sum(pair.sent for pair in self._pairs)
        self._lateness_ns.sort()
        return LoadResult(
            messages_per_s=(after.completed - before.completed) / elapsed_s,
            ack=_latency(ack),
            delivery=_latency(delivery),
            cpu=cpu,
            late_p99_us=(
                self._lateness_ns[len(self._lateness_ns) * 99 // 100] / 1000
                if self._lateness_ns
                else 0.0
            ),
            sent=sent,
            lost=sent - sum(pair.completed for pair in self._pairs),
        )


class _Sample(msgspec.Struct, frozen=True):
    at_ns: int
    completed: int


def _histogram() -> HdrHistogram:
    return HdrHistogram(1, 60_000_000, 3)


def _latency(histogram: HdrHistogram) -> Latency:
    p50, p90, p99, p999 = (
        float(histogram.get_value_at_percentile(percentile)) for percentile in (50, 90, 99, 99.9)
    )
    return Latency(p50, p90, p99, p999, float(histogram.get_max_value()))


def _periodic_timer(interval_ns: int) -> int:
    """A timerfd: the event loop's own timers have a resolution of a millisecond."""
    libc = ctypes.CDLL(None, use_errno=True)
    timer: int = libc.timerfd_create(time.CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
    specification = (ctypes.c_long * 4)(0, interval_ns, 0, interval_ns)
    if timer < 0 or libc.timerfd_settime(timer, 0, specification, None) != 0:
        raise OSError(ctypes.get_errno(), "timerfd")
    return timer


async def _measure(plan: LoadPlan) -> LoadResult:
    return await Load(plan).run()


if __name__ == "__main__":
    sys.exit(main(LoadPlan, _measure))
