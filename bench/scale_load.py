"""The load across gateways (run by `bench.tool`), and what each message costs everybody.

Closed loop: each pair keeps `window` messages in flight. Processor time, what PostgreSQL wrote and
what NATS carried are read before and after the measured time, with the messages that were done.
"""

import asyncio
import gc
import sys
import time
from pathlib import Path

import asyncpg
import httpx
import msgspec
from hdrh.histogram import HdrHistogram  # type: ignore[import-untyped]

from bench import wire
from bench.load import Latency
from bench.pairs import Client, Pair, open_client
from bench.proc import cpu_s
from bench.tool import main

__all__ = ["ScalePair", "ScalePlan", "ScaleResult", "family"]

_DRAIN_TIMEOUT_S = 20.0

_POSTGRES = """
SELECT (pg_current_wal_lsn() - '0/0')::float8 AS wal_bytes,
       (SELECT wal_sync FROM pg_stat_wal)::float8 AS wal_syncs,
       (SELECT sum(xact_commit) FROM pg_stat_database)::float8 AS commits
"""


class ScalePair(msgspec.Struct, frozen=True):
    """Who writes to whom, and where both are connected."""

    sender_url: str
    recipient_url: str
    sender_token: str
    recipient_token: str
    recipient_id: str


class ScalePlan(msgspec.Struct, frozen=True, kw_only=True):
    """One measurement."""

    pairs: list[ScalePair]
    window: int
    roots: dict[str, list[int]]
    """By name: processes whose time is measured, together with their children's."""
    gateway_metrics: list[str]
    """URLs of what the gateways tell about themselves."""
    database_url: str
    nats_monitor_url: str
    warm_up_s: float = 2.0
    measured_s: float = 8.0


class ScaleResult(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it; `spent` is what was used in the measured time."""

    messages: int
    elapsed_s: float
    ack: Latency
    delivery: Latency
    spent: dict[str, float]
    """Processor seconds of each name of `roots` and of the `generator`; `wal_bytes`, `wal_syncs`
    and `commits` of PostgreSQL; `nats_in` and `nats_out` messages; `batches` and `changes`."""


async def _measure(plan: ScalePlan) -> ScaleResult:
    clients = await asyncio.gather(
        *(open_client(pair.sender_url, pair.sender_token) for pair in plan.pairs),
        *(open_client(pair.recipient_url, pair.recipient_token) for pair in plan.pairs),
    )
    load = _Load(plan, clients)
    database = await asyncpg.connect(plan.database_url)
    async with httpx.AsyncClient(trust_env=False) as http:
        gc.collect()
        gc.freeze()
        gc.disable()
        load.start()
        await load.last(plan.warm_up_s)
        before, from_ns, done = (
            await _spent(plan, database, http),
            time.perf_counter_ns(),
            load.done,
        )
        await load.last(plan.measured_s)
        messages, until_ns = load.done - done, time.perf_counter_ns()
        after = await _spent(plan, database, http)
        await load.drain()
    await database.close()
    for client in clients:
        client.close()
    ack, delivery = load.latencies(from_ns, until_ns)
    return ScaleResult(
        messages=messages,
        elapsed_s=(until_ns - from_ns) / 1e9,
        ack=ack,
        delivery=delivery,
        spent={name: after[name] - before[name] for name in before},
    )


class _Load:
    def __init__(self, plan: ScalePlan, clients: list[Client]) -> None:
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._window = plan.window
        self._sending = True
        count = len(plan.pairs)
        self._pairs = [
            Pair(sender, recipient, pair.recipient_id, wire.ClientIds("uuid7"), self._go_on)
            for pair, sender, recipient in zip(
                plan.pairs, clients[:count], clients[count:], strict=True
            )
        ]
        for client in clients:
            client.failed = self._fail

    @property
    def done(self) -> int:
        return sum(pair.completed for pair in self._pairs)

    def start(self) -> None:
        for pair in self._pairs:
            pair.send([time.perf_counter_ns()] * self._window)

    async def last(self, seconds: float) -> None:
        await asyncio.wait({self._failed}, timeout=seconds)
        if self._failed.done():
            self._failed.result()

    async def drain(self) -> None:
        self._sending = False
        deadline = time.monotonic() + _DRAIN_TIMEOUT_S
        while any(pair.completed < pair.sent for pair in self._pairs):
            if time.monotonic() > deadline:
                raise TimeoutError("messages were lost")
            await self.last(0.01)

    def latencies(self, from_ns: int, until_ns: int) -> tuple[Latency, Latency]:
        ack, delivery = HdrHistogram(1, 60_000_000, 3), HdrHistogram(1, 60_000_000, 3)
        for pair in self._pairs:
            for intended, acked, delivered in zip(
                pair.intended_ns, pair.acked_ns, pair.delivered_ns, strict=False
            ):
                if from_ns <= intended < until_ns:
                    ack.record_value(max(1, (acked - intended) // 1000))
                    delivery.record_value(max(1, (delivered - intended) // 1000))
        return _latency(ack), _latency(delivery)

    def _go_on(self, pair: Pair, count: int) -> None:
        if self._sending:
            pair.send([time.perf_counter_ns()] * count)

    def _fail(self, error: Exception) -> None:
        if not self._failed.done():
            self._failed.set_exception(error)


async def _spent(
    plan: ScalePlan, database: "asyncpg.Connection[asyncpg.Record]", http: httpx.AsyncClient
) -> dict[str, float]:
    spent = {
        name: sum(cpu_s(pid) for root in roots for pid in family(root))
        for name, roots in plan.roots.items()
    }
    spent["generator"] = time.process_time()
    spent |= dict(await database.fetchrow(_POSTGRES) or {})
    nats = (await http.get(f"{plan.nats_monitor_url}/varz")).json()
    spent |= {"nats_in": nats["in_msgs"], "nats_out": nats["out_msgs"]}
    batch = "duet_gateway_commit_batch_messages"
    spent |= {"batches": 0.0, "changes": 0.0}
    for url in plan.gateway_metrics:
        for line in (await http.get(url)).text.splitlines():
            if line.startswith(f"{batch}_count"):
                spent["batches"] += float(line.split()[-1])
            if line.startswith(f"{batch}_sum"):
                spent["changes"] += float(line.split()[-1])
    return spent


def family(root: int) -> list[int]:
    """A process and its children."""
    children = Path(f"/proc/{root}/task/{root}/children").read_text().split()
    return [root, *map(int, children)]


def _latency(histogram: HdrHistogram) -> Latency:
    p50, p90, p99, p999 = (
        float(histogram.get_value_at_percentile(percentile)) for percentile in (50, 90, 99, 99.9)
    )
    return Latency(p50, p90, p99, p999, float(histogram.get_max_value()))


if __name__ == "__main__":
    sys.exit(main(ScalePlan, _measure))
