"""Refresh tokens under crashes and races, stolen ones, and logging out everywhere."""

import asyncio
import contextlib
import random
import sqlite3
import time
from collections.abc import Sequence

import httpx

from tests.faults.figures import Figure, Plan
from tests.faults.processes import Duet, Person, lasting, running_duet
from tests.faults.proxy import Proxy
from tests.support.client import Client

__all__ = ["killed_during_refresh", "logged_out_everywhere", "parallel_refreshes", "replayed_token"]

CLOSED_WITHIN_S = 2.0
FEED_CUT_WITHIN_S = 30.0


async def killed_during_refresh(plan: Plan) -> list[Figure]:
    """SIGKILL while devices refresh; each repeats the token whose answer it did not get."""
    tries, chance = plan.of(3, 200), random.Random(13)
    async with running_duet(plan.directory / "killed-during-refresh") as duet:
        devices = [_Device(duet, person) for person in await duet.sign_up_many(8)]
        workers = [asyncio.create_task(device.keep_refreshing()) for device in devices]
        for _ in range(tries):
            await _more_refreshes(devices, chance.randint(1, 60))
            await duet.kill("profile_service")
            await duet.start("profile_service")
            await _more_refreshes(devices, 1)
        for device in devices:
            device.stopping = True
        await asyncio.gather(*workers)
        alive = [await _is_alive(duet, device) for device in devices]
        thefts = _audit_rows(duet, "reuse")
        tracebacks = duet.tracebacks()
    refused = sum(device.refused for device in devices)
    repeated = sum(device.repeated for device in devices)
    return [
        Figure(
            fault="kill -9 the profile service during refreshes",
            tries=tries,
            counted=f"{sum(device.refreshed for device in devices)} refreshes, {repeated} repeated "
            f"after a lost answer: {refused} refused, {thefts} false thefts; "
            f"{sum(alive)} of {len(devices)} sessions alive in the end",
            passed=not (refused or thefts or tracebacks) and all(alive) and repeated > 0,
        )
    ]


async def parallel_refreshes(plan: Plan) -> list[Figure]:
    """Fifty requests at once with one token: a client with many tabs, or a retry storm."""
    tries, at_once = plan.of(5, 200), 50
    refused = wrong_steps = 0
    async with running_duet(plan.directory / "parallel-refreshes") as duet:
        person = await duet.sign_up()
        token = person.refresh_token
        for _ in range(tries):
            before = _generation(duet, person)
            answers = await asyncio.gather(
                *(
                    duet.http.post("/v1/token", json={"refresh_token": token})
                    for _ in range(at_once)
                )
            )
            refused += sum(answer.status_code != httpx.codes.OK for answer in answers)
            wrong_steps += _generation(duet, person) != before + 1
            token = str(answers[0].json()["refresh_token"])
        thefts = _audit_rows(duet, "reuse")
        tracebacks = duet.tracebacks()
    return [
        Figure(
            fault=f"{at_once} parallel refreshes of one token",
            tries=tries,
            counted=f"{refused} of {tries * at_once} refused, {thefts} false thefts, "
            f"{wrong_steps} times other than one generation step",
            passed=not (refused or thefts or wrong_steps or tracebacks),
        )
    ]


async def replayed_token(plan: Plan) -> list[Figure]:
    """Somebody shows a refresh token that was used up two rotations ago."""
    tries = plan.of(3, 50)
    late = accepted = still_alive = wrong_audit = 0
    slowest_s = 0.0
    async with running_duet(plan.directory / "replayed-token") as duet:
        for number in range(1, tries + 1):
            person = await duet.sign_up()
            stolen = person.refresh_token
            latest = await _rotate(duet, await _rotate(duet, stolen))
            async with contextlib.AsyncExitStack() as stack:
                sockets = await _connected(stack, duet.url, [person] * 3)
                started = time.monotonic()
                answer = await duet.http.post("/v1/token", json={"refresh_token": stolen})
                accepted += answer.status_code != httpx.codes.BAD_REQUEST
                codes = await _closed(sockets)
                took_s = time.monotonic() - started
            slowest_s = max(slowest_s, took_s)
            late += took_s > CLOSED_WITHIN_S or codes != [3000] * 3
            answer = await duet.http.post("/v1/token", json={"refresh_token": latest})
            still_alive += answer.status_code == httpx.codes.OK
            wrong_audit += _audit_rows(duet, "reuse") != number
        tracebacks = duet.tracebacks()
    return [
        Figure(
            fault="replay of an old refresh token",
            tries=tries,
            counted=f"{accepted} accepted, {still_alive} sessions still alive, {late} with sockets "
            f"not closed (3000) in 2 s, {wrong_audit} without exactly one audit row; "
            f"sockets closed after at most {slowest_s:.2f} s",
            passed=not (late or accepted or still_alive or wrong_audit or tracebacks),
        )
    ]


async def logged_out_everywhere(plan: Plan) -> list[Figure]:
    """One user with many sockets logs out of all devices; then again while the feed is cut."""
    sockets, devices = plan.of(100, 1000), 10
    limits = {"DUET_MAX_CONNECTIONS_PER_USER": "2000"}
    poll = {} if plan.long else {"DUET_REVOCATION_POLL_INTERVAL_S": "2"}
    directory = plan.directory / "logged-out-everywhere"
    async with running_duet(directory, **limits, **poll) as duet:
        with_feed_s, codes = await _log_out(duet, sockets, devices)
        figures = [
            Figure(
                fault=f"log out of all devices with {sockets} sockets",
                tries=1,
                counted=f"{codes.count(3000)} closed with 3000, the last after {with_feed_s:.2f} s",
                passed=codes == [3000] * sockets and with_feed_s < CLOSED_WITHIN_S,
            )
        ]
        async with Proxy.to(duet.profile_port) as proxy:
            await duet.terminate("ws_gateway")
            await duet.start("ws_gateway", DUET_PROFILE_URL=f"http://127.0.0.1:{proxy.port}")
            await duet.ready("ws_gateway")
            proxy.cut_when_asked_for = b"/internal/revocations"
            proxy.cut()
            await duet.readable(ready=False)
            without_feed_s, codes = await _log_out(duet, sockets, devices)
            tracebacks = duet.tracebacks()
    interval_s = float(poll.get("DUET_REVOCATION_POLL_INTERVAL_S", "30"))
    figures.append(
        Figure(
            fault="the same with the revocation feed cut",
            tries=1,
            counted=f"{codes.count(3000)} closed with 3000, the last after {without_feed_s:.1f} s "
            f"(poll every {interval_s:g} s); {tracebacks} tracebacks",
            passed=codes == [3000] * sockets
            and without_feed_s < interval_s + 1
            and without_feed_s < FEED_CUT_WITHIN_S + 1
            and not tracebacks,
        )
    )
    return figures


class _Device:
    """A device that refreshes its tokens again and again, as a client should."""

    def __init__(self, duet: Duet, person: Person) -> None:
        self._duet = duet
        self.token = person.refresh_token
        self.person = person
        self.refreshed = self.repeated = self.refused = 0
        self.stopping = False

    async def keep_refreshing(self) -> None:
        """Refresh until told to stop."""
        while not self.stopping:
            try:
                answer = await self._duet.http.post("/v1/token", json={"refresh_token": self.token})
            except httpx.TransportError as error:
                self.repeated += not isinstance(error, httpx.ConnectError)
                await lasting(0.02)
                continue
            if answer.status_code != httpx.codes.OK:
                self.refused += 1
                return
            self.token = str(answer.json()["refresh_token"])
            self.refreshed += 1


async def _more_refreshes(devices: Sequence[_Device], count: int) -> None:
    goal = sum(device.refreshed for device in devices) + count
    async with asyncio.timeout(30):
        while sum(device.refreshed for device in devices) < goal:
            if all(device.refused for device in devices):
                raise AssertionError("every device was refused")
            await lasting(0.003)


async def _is_alive(duet: Duet, device: _Device) -> bool:
    answer = await duet.http.post("/v1/token", json={"refresh_token": device.token})
    return answer.status_code == httpx.codes.OK


async def _rotate(duet: Duet, token: str) -> str:
    answer = await duet.http.post("/v1/token", json={"refresh_token": token})
    return str(answer.json()["refresh_token"])


async def _log_out(duet: Duet, sockets: int, devices: int) -> tuple[float, list[int]]:
    """Returns how long it took until the last socket was closed, and the close codes."""
    person = await duet.sign_up()
    logged_in = [person, *[await duet.log_in(person) for _ in range(devices - 1)]]
    async with contextlib.AsyncExitStack() as stack:
        people = [logged_in[number % devices] for number in range(sockets)]
        clients = await _connected(stack, duet.url, people)
        started = time.monotonic()
        answer = await duet.http.delete("/v1/sessions", headers=person.bearer)
        assert answer.status_code == httpx.codes.NO_CONTENT, answer.text
        codes = await _closed(clients)
        return time.monotonic() - started, codes


async def _connected(
    stack: contextlib.AsyncExitStack, url: str, people: Sequence[Person]
) -> list[Client]:
    return [
        await stack.enter_async_context(Client.talking(url, person.access_token))
        for person in people
    ]


async def _closed(clients: Sequence[Client]) -> list[int]:
    async def close_code(client: Client) -> int:
        async with asyncio.timeout(60):
            await client.socket.wait_closed()
        return client.socket.close_code or 0

    return list(await asyncio.gather(*map(close_code, clients)))


def _audit_rows(duet: Duet, kind: str) -> int:
    with contextlib.closing(sqlite3.connect(f"file:{duet.users_db}?mode=ro", uri=True)) as users:
        query = "SELECT count(*) FROM audit WHERE kind = ?"
        return int(users.execute(query, (kind,)).fetchone()[0])


def _generation(duet: Duet, person: Person) -> int:
    with contextlib.closing(sqlite3.connect(f"file:{duet.users_db}?mode=ro", uri=True)) as users:
        query = "SELECT generation FROM sessions WHERE user_id = ?"
        return int(users.execute(query, (person.user_id,)).fetchone()[0])
