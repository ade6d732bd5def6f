"""The load of a soak (run by `bench.tool`): a bit of everything, at a steady pace, for long.

Sends at a fixed rate, receipts, history pages, connections that come and go and resume, and tokens
that are refreshed. Beside it, the resident memory of both services, each second. The generator
remembers no message that is done: it must not be what grows.
"""

import asyncio
import gc
import random
import sys
import time
from collections.abc import Awaitable

import httpx
import msgspec
from hdrh.histogram import HdrHistogram  # type: ignore[import-untyped]

from bench.pairs import Client, open_client
from bench.people import Person
from bench.proc import rss_bytes
from bench.talk import Talk
from bench.tool import main

__all__ = ["Minute", "SoakPlan", "SoakResult", "Usage"]

_TICK_S = 0.005
_STAY_S = (0.5, 6.0)
"""How long a connection that comes and goes stays, and stays away: between these."""
_DRAIN_TIMEOUT_S = 20.0
_LOOK_S = 0.05


class SoakPlan(msgspec.Struct, frozen=True, kw_only=True):
    """One soak; rates are of all people together. The second of each two people gets messages."""

    url: str
    profile_url: str
    gateway_pid: int
    profile_pid: int
    people: list[Person]
    seconds: float
    messages_per_s: float
    pages_per_s: float = 5.0
    visitors: int = 20
    """Connections that come and go, each a second one of a recipient."""
    refreshes_per_s: float = 2.0


class Usage(msgspec.Struct, frozen=True):
    """Resident memory at one second of the soak."""

    at_s: float
    gateway_bytes: int
    profile_bytes: int


class Minute(msgspec.Struct, frozen=True):
    """Messages that were acknowledged within one minute of the soak."""

    messages: int
    ack_p50_us: float
    ack_p99_us: float


class SoakResult(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it."""

    usage: list[Usage]
    minutes: list[Minute]
    sent: int
    lost: int
    """Messages without ack or delivery at the end."""
    receipts: int
    pages: int
    visits: int
    resumed_messages: int
    refreshes: int


class _Soak:
    """Runs one plan."""

    def __init__(self, plan: SoakPlan) -> None:
        self._plan = plan
        self._talks = [
            Talk(sender, recipient)
            for sender, recipient in zip(plan.people[::2], plan.people[1::2], strict=True)
        ]
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._usage: list[Usage] = []
        self._minutes: list[Minute] = []
        self._visits = self._resumed = self._refreshes = 0

    async def run(self) -> SoakResult:
        """Do everything for so long, then wait for what is under way.

        Raises:
            Unexpected: the server misbehaved.
        """
        plan = self._plan
        await asyncio.gather(*(talk.join(plan.url, self._fail) for talk in self._talks))
        gc.freeze()
        tasks = [
            asyncio.create_task(self._checked(work()))
            for work in (self._send, self._read_back, self._refresh, self._watch, self._take_stock)
        ]
        tasks += [asyncio.create_task(self._checked(self._visit(n))) for n in range(plan.visitors)]
        await asyncio.wait({self._failed}, timeout=plan.seconds)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._failed.done():
            self._failed.result()
        await self._drained()
        for talk in self._talks:
            talk.leave()
        sent = sum(talk.sent for talk in self._talks)
        return SoakResult(
            usage=self._usage,
            minutes=self._minutes,
            sent=sent,
            lost=sent - sum(min(talk.acked, talk.delivered) for talk in self._talks),
            receipts=sum(talk.receipts for talk in self._talks),
            pages=sum(talk.pages for talk in self._talks),
            visits=self._visits,
            resumed_messages=self._resumed,
            refreshes=self._refreshes,
        )

    async def _checked(self, work: Awaitable[None]) -> None:
        try:
            await work
        except Exception as error:
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        if not self._failed.done():
            self._failed.set_exception(error)

    async def _send(self) -> None:
        """Send what is due by now, each message with the time it was due."""
        interval_ns, started_ns, done = 1e9 / self._plan.messages_per_s, time.perf_counter_ns(), 0
        while True:
            await asyncio.sleep(_TICK_S)
            due = int((time.perf_counter_ns() - started_ns) / interval_ns)
            by_talk: dict[int, list[int]] = {}
            for number in range(done, due):
                by_talk.setdefault(number % len(self._talks), []).append(
                    started_ns + int((number + 1) * interval_ns)
                )
            done = due
            for index, intended_ns in by_talk.items():
                self._talks[index].send(intended_ns)

    async def _read_back(self) -> None:
        while True:
            await asyncio.sleep(1 / self._plan.pages_per_s)
            random.choice(self._talks).read_back()

    async def _visit(self, number: int) -> None:
        """Come and go, as a second device of a recipient, and catch up each time."""
        token = self._talks[number % len(self._talks)].recipient.access_token
        cursor: str | None = None

        def on_text(payload: bytes, _last: bool) -> None:
            nonlocal cursor
            _, found, after = payload.rpartition(b'"cursor":"')
            if found:
                cursor = after.partition(b'"')[0].decode()
            self._resumed += payload.startswith(b'{"type":"message"')

        while True:
            client: Client = await open_client(
                self._plan.url, token, resume=cursor, on_text=on_text
            )
            self._visits += 1
            await asyncio.sleep(random.uniform(*_STAY_S))
            client.close()
            await asyncio.sleep(random.uniform(*_STAY_S))

    async def _refresh(self) -> None:
        """Rotate the senders' tokens, one after the other."""
        tokens = [talk.sender.refresh_token for talk in self._talks]
        async with httpx.AsyncClient(
            base_url=self._plan.profile_url, trust_env=False, timeout=30.0
        ) as client:
            while True:
                for number, talk in enumerate(self._talks):
                    await asyncio.sleep(1 / self._plan.refreshes_per_s)
                    response = await client.post(
                        "/v1/token", json={"refresh_token": tokens[number]}
                    )
                    response.raise_for_status()
                    grant = response.json()
                    tokens[number] = grant["refresh_token"]
                    talk.renew(grant["access_token"])
                    self._refreshes += 1

    async def _watch(self) -> None:
        """Note the memory of both services once a second."""
        started = time.monotonic()
        while True:
            self._usage.append(
                Usage(
                    round(time.monotonic() - started, 2),
                    rss_bytes(self._plan.gateway_pid),
                    rss_bytes(self._plan.profile_pid),
                )
            )
            await asyncio.sleep(1.0)

    async def _take_stock(self) -> None:
        """Put latencies down, once a minute."""
        while True:
            await asyncio.sleep(60.0)
            total = HdrHistogram(1, 60_000_000, 3)
            for talk in self._talks:
                total.add(talk.histogram)
                talk.histogram.reset()
            self._minutes.append(
                Minute(
                    total.get_total_count(),
                    float(total.get_value_at_percentile(50)),
                    float(total.get_value_at_percentile(99)),
                )
            )

    async def _drained(self) -> None:
        for _ in range(int(_DRAIN_TIMEOUT_S / _LOOK_S)):
            if all(min(talk.acked, talk.delivered) == talk.sent for talk in self._talks):
                return
            await asyncio.sleep(_LOOK_S)


async def _measure(plan: SoakPlan) -> SoakResult:
    return await _Soak(plan).run()


if __name__ == "__main__":
    sys.exit(main(SoakPlan, _measure))
