"""Opens many authenticated connections, as fast as the server takes them, and holds them idle.

Measures connects a second and what an idle connection costs the server in memory.
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
    in_flight: int = 128
    warm_up_connections: int = 100
    """Opened before memory is looked at, so that code and caches are not charged to the others."""


class ConnectsResult(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it."""

    connects_per_s: float
    bytes_a_connection: float
    server_rss_bytes: int
    """With all connections open."""
    cpu: CpuShares


async def _measure(plan: ConnectsPlan) -> ConnectsResult:
    gc.disable()
    clients = await _open(plan, 0, plan.warm_up_connections)
    rss_before = rss_bytes(plan.server_pid)
    started, meter = time.monotonic(), CpuMeter(plan.server_pid, plan.companions)
    clients += await _open(plan, plan.warm_up_connections, plan.connections)
    elapsed_s, cpu = time.monotonic() - started, meter.shares()
    await asyncio.sleep(0.5)  # what the server still has to let go of
    rss_after = rss_bytes(plan.server_pid)
    opened = plan.connections - plan.warm_up_connections
    for client in clients:
        client.close()
    return ConnectsResult(
        connects_per_s=opened / elapsed_s,
        bytes_a_connection=(rss_after - rss_before) / opened,
        server_rss_bytes=rss_after,
        cpu=cpu,
    )


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
