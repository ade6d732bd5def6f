"""Processes that die or freeze, and connections that break, while people talk."""

import asyncio
import contextlib
import random
import sqlite3
import time

import httpx

from tests.faults.figures import Figure, Plan, percentile
from tests.faults.load import talking_pairs
from tests.faults.processes import UNHURRIED, Duet, lasting, running_duet
from tests.faults.proxy import Proxy
from tests.support.profile_service import PASSWORD

__all__ = ["broken_connections", "frozen_gateway", "killed_gateway", "killed_profile_service"]

BACK_WITHIN_S = 5.0


async def killed_gateway(plan: Plan) -> list[Figure]:
    """SIGKILL at a random moment under load, then a start; over and over."""
    tries, chance = plan.of(3, 100), random.Random(5)
    back_s = []
    async with running_duet(plan.directory / "killed-gateway", **UNHURRIED) as duet:
        people = await duet.sign_up_many(20)
        async with talking_pairs(duet.url, people) as load:
            for _ in range(tries):
                await load.more_acknowledged(chance.randint(1, 400))
                await duet.kill("ws_gateway")
                killed_at = time.monotonic()
                await duet.start("ws_gateway")
                back_s.append(await load.everybody_acknowledged_since(killed_at))
            await load.settle()
            books = load.books(duet.messages_db)
        tracebacks = duet.tracebacks()
    return [
        Figure(
            fault="kill -9 the gateway under load",
            tries=tries,
            counted=f"{books}; integrity {books.integrity}; everybody's next ack after at most "
            f"{max(back_s):.1f} s (median {percentile(back_s, 0.5):.1f} s), the start included",
            passed=books.are_good and max(back_s) < BACK_WITHIN_S and not tracebacks,
        )
    ]


async def frozen_gateway(plan: Plan) -> list[Figure]:
    """SIGSTOP and SIGCONT: a process that is stuck, a machine that swaps."""
    tries = plan.of(2, 20)
    async with running_duet(plan.directory / "frozen-gateway", **UNHURRIED) as duet:
        people = await duet.sign_up_many(20)
        async with talking_pairs(duet.url, people) as load:
            for _ in range(tries):
                await load.more_acknowledged(200)
                duet.freeze("ws_gateway")
                await lasting(0.5)
                duet.thaw("ws_gateway")
                await load.everybody_acknowledged_since(time.monotonic())
            await load.settle()
            books = load.books(duet.messages_db)
        tracebacks = duet.tracebacks()
    return [
        Figure(
            fault="freeze the gateway for 0.5 s under load",
            tries=tries,
            counted=str(books),
            passed=books.are_good and not tracebacks,
        )
    ]


async def broken_connections(plan: Plan) -> list[Figure]:
    """A network that slices, delays and cuts connections in the middle of frames."""
    tries, chance = plan.of(10, 100), random.Random(7)
    async with (
        running_duet(plan.directory / "broken-connections", **UNHURRIED) as duet,
        Proxy.to(duet.gateway_port) as proxy,
    ):
        people = await duet.sign_up_many(20)
        url = f"ws://127.0.0.1:{proxy.port}/v1/ws"
        async with talking_pairs(url, people) as load:
            cut = 0
            for number in range(tries):
                proxy.slice_bytes = chance.choice([0, 0, 1, 7, 50])
                proxy.delay_s = chance.choice([0.0, 0.0, 0.002, 0.02])
                await load.more_acknowledged(chance.randint(1, 150))
                if number % 5 == 4:
                    proxy.stall()
                    await lasting(0.1)
                cut += proxy.cut()
                proxy.flow()
            proxy.slice_bytes, proxy.delay_s = 0, 0.0
            await load.settle()
            books = load.books(duet.messages_db)
        tracebacks = duet.tracebacks()
    return [
        Figure(
            fault="cut, slice and delay every client's connection under load",
            tries=tries,
            counted=f"{cut} connections cut; {books}; {tracebacks} tracebacks",
            passed=books.are_good and not tracebacks,
        )
    ]


async def killed_profile_service(plan: Plan) -> list[Figure]:
    """SIGKILL under a load of sign-ups."""
    tries, chance = plan.of(3, 100), random.Random(11)
    async with running_duet(plan.directory / "killed-profile") as duet:
        crowd = _Crowd(duet)
        workers = [asyncio.create_task(crowd.keep_signing_up(number)) for number in range(6)]
        lost, back_s = 0, []
        for _ in range(tries):
            await crowd.more(chance.randint(1, 40))
            acknowledged = set(crowd.acknowledged)
            await duet.kill("profile_service")
            killed_at = time.monotonic()
            acknowledged |= set(crowd.acknowledged)
            await duet.start("profile_service")
            await crowd.more(1)
            back_s.append(time.monotonic() - killed_at)
            lost += len(acknowledged - _usernames(duet))
        crowd.stopping = True
        await asyncio.gather(*workers)
        sample = chance.sample(sorted(crowd.acknowledged), min(50, len(crowd.acknowledged)))
        entered = [await _can_log_in(duet, name) for name in sample]
        doubled, integrity = _doubled(duet)
        tracebacks = duet.tracebacks()
    return [
        Figure(
            fault="kill -9 the profile service under load",
            tries=tries,
            counted=f"{len(crowd.acknowledged)} acknowledged sign-ups: {lost} lost, {doubled} "
            f"usernames doubled, {crowd.refused} refused; integrity {integrity}; "
            f"{sum(entered)} of {len(sample)} can log in; next sign-up after at most "
            f"{max(back_s):.1f} s",
            passed=not (lost or doubled or crowd.refused or tracebacks)
            and integrity == "ok"
            and all(entered),
        )
    ]


class _Crowd:
    """People who sign up one after the other, and try again with the same name when cut off."""

    def __init__(self, duet: Duet) -> None:
        self._duet = duet
        self._signed_up = asyncio.Condition()
        self.acknowledged: set[str] = set()
        self.refused = 0
        self.stopping = False

    async def keep_signing_up(self, worker: int) -> None:
        """Sign up until told to stop."""
        number = 0
        while not self.stopping:
            number += 1
            await self._sign_up(f"crowd-{worker}-{number}")

    async def more(self, count: int) -> None:
        """Wait for so many further sign-ups."""
        goal = len(self.acknowledged) + count
        async with asyncio.timeout(30), self._signed_up:
            await self._signed_up.wait_for(lambda: len(self.acknowledged) >= goal)

    async def _sign_up(self, username: str) -> None:
        cut_off = False
        while True:
            try:
                answer = await self._duet.http.post(
                    "/v1/users", json={"username": username, "password": PASSWORD}
                )
            except httpx.TransportError:
                cut_off = True
                await lasting(0.02)
                continue
            stored_before_the_cut = cut_off and answer.status_code == httpx.codes.CONFLICT
            if answer.status_code == httpx.codes.CREATED or stored_before_the_cut:
                async with self._signed_up:
                    self.acknowledged.add(username)
                    self._signed_up.notify_all()
            else:
                self.refused += 1
            return


async def _can_log_in(duet: Duet, username: str) -> bool:
    answer = await duet.http.post("/v1/sessions", json={"username": username, "password": PASSWORD})
    return answer.status_code == httpx.codes.CREATED


def _usernames(duet: Duet) -> set[str]:
    with contextlib.closing(sqlite3.connect(f"file:{duet.users_db}?mode=ro", uri=True)) as users:
        return {name for (name,) in users.execute("SELECT username FROM users")}


def _doubled(duet: Duet) -> tuple[int, str]:
    with contextlib.closing(sqlite3.connect(f"file:{duet.users_db}?mode=ro", uri=True)) as users:
        (doubled,) = users.execute(
            "SELECT count(*) - count(DISTINCT lower(username)) FROM users"
        ).fetchone()
        (integrity,) = users.execute("PRAGMA integrity_check").fetchone()
    return int(doubled), str(integrity)
