"""Opens many authenticated connections, as fast as the server takes them, and holds them idle.

Measures connects a second and what an idle connection costs the server in memory. Then all are
lost at once and come back: how long until the last one has its `connected`?
"""

import asyncio
import gc
import sys
import time

import msgspec

from bench.pairs import Client, open_client
from bench.proc import CpuMeter, CpuShares, rss_bytes
from bench.tool import main

__all__ = ["ConnectsPlan", "ConnectsResult"]


class ConnectsPlan(msgspec.Struct, frozen=True, kw_only=True):
    """One measurement. Tokens are used in turns."""

    url: str
    server_pid: int
    companions: list[int]
    """Processes that work for the server."""
    tokens: list[str]
    connections: int
    timed_connections: int = 5000
    """So many of them, the first, are the measure of connects a second."""
    storm_connections: int = 0
    """So many come back."""
    storm_s: float = 5.0
    """They set out evenly within this time."""
    in_flight: int = 128
    warm_up_connections: int = 100
    """Opened before memory is looked at, so that code and caches are not charged to the others."""


class ConnectsResult(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it."""

    connects_per_s: float
    bytes_a_connection: float
    server_rss_bytes: int
    """With all connections open."""
    storm_s: float
    """From the first that set out to the last that was back; 0 when none was asked for."""
    cpu: CpuShares


async def _measure(plan: ConnectsPlan) -> ConnectsResult:
    gc.disable()
    first = plan.warm_up_connections
    timed = min(plan.timed_connections, plan.connections - first)
    clients = await _open(plan, 0, first)
    rss_before = rss_bytes(plan.server_pid)
    started, meter = time.monotonic(), CpuMeter(plan.server_pid, plan.companions)
    clients += await _open(plan, first, first + timed)
    elapsed_s, cpu = time.monotonic() - started, meter.shares()
    clients += await _open(plan, first + timed, plan.connections)
    await asyncio.sleep(0.5)  # what the server still has to let go of
    rss_after = rss_bytes(plan.server_pid)
    for client in clients:
        client.close()
    storm_s = await _storm(plan) if plan.storm_connections else 0.0
    return ConnectsResult(
        connects_per_s=timed / elapsed_s,
        bytes_a_connection=(rss_after - rss_before) / (plan.connections - first),
        server_rss_bytes=rss_after,
        storm_s=storm_s,
        cpu=cpu,
    )


async def _storm(plan: ConnectsPlan) -> float:
    """Return how long it takes until all are back."""
    await asyncio.sleep(0.5)  # the server has to notice, as it would have after a cut

    async def come_back(number: int) -> Client:
        await asyncio.sleep(plan.storm_s * number / plan.storm_connections)
        return await open_client(plan.url, plan.tokens[number % len(plan.tokens)])

    started = time.monotonic()
    clients = await asyncio.gather(*map(come_back, range(plan.storm_connections)))
    took_s = time.monotonic() - started
    for client in clients:
        client.close()
    return took_s


async def _open(plan: ConnectsPlan, first: int, end: int) -> list[Client]:
    """Open connections number `first` to `end`, `in_flight` at a time."""
    numbers = iter(range(first, end))

    async def worker() -> list[Client]:
        return [
            await open_client(plan.url, plan.tokens[number % len(plan.tokens)])
            for number in numbers
        ]

    opened = await asyncio.gather(*(worker() for _ in range(plan.in_flight)))
    return [client for clients in opened for client in clients]


if __name__ == "__main__":
    sys.exit(main(ConnectsPlan, _measure))
