"""What Duet stands on fails: the profile service, the disk, the database file."""

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx

from tests.faults.figures import Figure, Plan
from tests.faults.load import talking_pairs
from tests.faults.processes import UNHURRIED, Duet, Person, lasting, running_duet
from tests.support.client import Client
from tests.support.gateway import stored_messages
from tests.support.profile_service import PASSWORD

__all__ = [
    "READS_WHILE_LOCKED",
    "full_disk",
    "locked_database",
    "locked_elsewhere",
    "profile_service_down",
]

RECOVERED_WITHIN_S = 5.0
READS_WHILE_LOCKED = "reads while the database is locked"

_HOLD_LOCK = """
import sqlite3, sys, time
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
time.sleep(float(sys.argv[2]))
connection.execute("ROLLBACK")
"""


async def profile_service_down(plan: Plan) -> list[Figure]:
    """Killed, or frozen so that it takes connections and answers nothing."""
    return [
        await _profile_service_down(plan, "killed", plan.of(2, 60)),
        await _profile_service_down(plan, "frozen", plan.of(2, 10)),
    ]


async def _profile_service_down(plan: Plan, how: str, outage_s: int) -> Figure:
    async with running_duet(plan.directory / f"profile-{how}", **UNHURRIED) as duet:
        people = await duet.sign_up_many(20)
        newcomer = await duet.sign_up()
        async with talking_pairs(duet.url, people, pause_s=0.01) as load:
            await load.everybody_acknowledged_since(0)  # who has been written to is known
            connects = sum(member.connects for member in load.members)
            if how == "killed":
                await duet.kill("profile_service")
            else:
                duet.freeze("profile_service")
            outcomes = await _knock(duet, newcomer, outage_s)
            await load.everybody_acknowledged_since(time.monotonic())
            dropped = sum(member.connects for member in load.members) - connects
            if how == "killed":
                await duet.start("profile_service")
            else:
                duet.thaw("profile_service")
            back_at = time.monotonic()
            await duet.ready("profile_service")
            started_s = time.monotonic() - back_at
            async with asyncio.timeout(30):
                while await _connect(duet.url, newcomer) != "connected":
                    await lasting(0.05)
                await duet.readable(ready=True)
            recovered_s = time.monotonic() - back_at
            await load.settle()
            books = load.books(duet.messages_db)
        tracebacks = duet.tracebacks()
    accepted = outcomes.count("connected")
    refused = outcomes.count("verification_unavailable 1013")
    return Figure(
        fault=f"profile service {how} for {outage_s} s",
        tries=len(outcomes),
        counted=f"{dropped} of {len(people)} live connections dropped; of {len(outcomes)} connects "
        f"{accepted} accepted, {refused} told 1013 with retry hint; {books}; recovered "
        f"{recovered_s:.1f} s after it was back (its own start {started_s:.1f} s)",
        passed=not (dropped or accepted or tracebacks)
        and refused == len(outcomes) > 0
        and books.are_good
        and recovered_s < RECOVERED_WITHIN_S,
    )


async def _knock(duet: Duet, person: Person, seconds: float) -> list[str]:
    """Try to connect again and again for so long."""
    ends_at, outcomes = time.monotonic() + seconds, []
    while time.monotonic() < ends_at:
        outcomes.append(await _connect(duet.url, person))
        await lasting(0.2)
    return outcomes


async def _connect(url: str, person: Person) -> str:
    """Try once. Returns "connected", or the error and the close code."""
    async with Client.open(url) as client:
        await client.send(type="connect", access_token=person.access_token)
        first = await _next(client)
        if first["type"] == "connected":
            return "connected"
        assert first["retryable"], first
        assert first["retry_after_ms"] > 0, first
        code, _ = await client.closed()
        return f"{first['code']} {code}"


async def _next(client: Client) -> dict[str, Any]:
    async with asyncio.timeout(15):
        frame: dict[str, Any] = json.loads(await client.socket.recv())
    return frame


async def full_disk(plan: Plan) -> list[Figure]:
    """The gateway's disk, then the profile service's, has no byte left."""
    rounds = plan.of(1, 10)
    directory = plan.directory / "full-disk"
    directory.mkdir(parents=True)
    with contextlib.ExitStack() as stack:
        disks = []
        for name in ("messages", "users"):
            disk = directory / name
            disk.mkdir()
            if reason := _mount(stack, disk):
                return [
                    Figure(fault="disk full", tries=0, counted="", passed=False, skipped=reason)
                ]
            disks.append(disk)
        duet = Duet(directory, {**UNHURRIED, "DUET_DATA_DIR": str(disks[0])})
        duet.data_dir = disks[0]
        try:
            await duet.start("profile_service", DUET_DATA_DIR=str(disks[1]))
            await duet.start("ws_gateway")
            for service in ("profile_service", "ws_gateway"):
                await duet.ready(service)
            return [
                await _gateway_disk_full(duet, disks[0], rounds),
                await _profile_disk_full(duet, disks[1], rounds),
            ]
        finally:
            await duet.close()


def _mount(stack: contextlib.ExitStack, disk: Path) -> str | None:
    """Put a small file system there. Returns why that cannot be done here, if so."""
    if os.geteuid() != 0:
        return "only root can mount the small file system that this fills"
    size = "size=16m"
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(disk)],
        check=False,
        capture_output=True,
        text=True,
    )
    if mounted.returncode != 0:
        return f"no small file system can be mounted here: {mounted.stderr.strip()}"
    stack.callback(subprocess.run, ["umount", "--lazy", str(disk)], check=True)
    return None


@contextlib.contextmanager
def _filled(disk: Path) -> Iterator[None]:
    """Leave no byte free."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        for size in (65_536, 4096, 1):
            with contextlib.suppress(OSError):
                while True:
                    file.write(b"\x00" * size)
    try:
        yield
    finally:
        ballast.unlink()


async def _gateway_disk_full(duet: Duet, disk: Path, rounds: int) -> Figure:
    ann, bob = await duet.sign_up_many(2)
    refused = unreadable = wrong = not_recovered = 0
    acked: set[str] = set()
    async with (
        Client.talking(duet.url, ann.access_token) as a,
        Client.talking(duet.url, bob.access_token) as b,
    ):
        number = 0
        for _ in range(rounds):
            with _filled(disk):
                refusals = 0
                while refusals < 20:
                    number += 1
                    answer = await _try_to_send(a, bob, f"full-{number}", "x" * 4000)
                    if answer["type"] == "ack":  # there was room in the log that was made before
                        acked.add(f"full-{number}")
                        await b.expect("message")
                    elif answer["code"] == "store_unavailable" and answer["retryable"]:
                        refusals += 1
                    else:
                        wrong += 1
                refused += refusals
                await a.send(type="history", id="h", **{"with": bob.user_id}, limit=5)
                unreadable += (await _next(a))["type"] != "history"
            number += 1
            answer = await _try_to_send(a, bob, f"full-{number}", "after")
            if answer["type"] == "ack":
                acked.add(f"full-{number}")
                await b.expect("message", text="after")
            else:
                not_recovered += 1
        await b.nothing_more(bob.user_id)
    stored = {client_id for _, _, client_id, _ in stored_messages(duet.messages_db)}
    tracebacks = duet.tracebacks()
    return Figure(
        fault="disk of the gateway full",
        tries=rounds,
        counted=f"{refused} sends refused (retryable), {wrong} answered otherwise; "
        f"{len(acked - stored)} of {len(acked)} acknowledged not stored, "
        f"{len(stored - acked)} stored unacknowledged; {unreadable} reads failed; "
        f"{not_recovered} first sends refused once there was room, no restart",
        passed=not (wrong or unreadable or not_recovered or tracebacks)
        and acked == stored
        and refused > 0,
    )


async def _try_to_send(client: Client, to: Person, client_id: str, text: str) -> dict[str, Any]:
    await client.send(type="send", id=client_id, to=to.user_id, text=text)
    while (frame := await _next(client))["type"] in {"presence", "receipt"}:
        pass
    return frame


async def _profile_disk_full(duet: Duet, disk: Path, rounds: int) -> Figure:
    person = await duet.sign_up()
    statuses: list[int] = []
    wrong = unreadable = not_recovered = 0
    for number in range(rounds):
        with _filled(disk):
            attempts, refusals = 0, 0
            while refusals < 5 and attempts < 3000:
                attempts += 1
                answer = await _patch(duet, person, f"{number}-{attempts}" + "x" * 400)
                statuses.append(answer.status_code)
                refusals += answer.status_code == httpx.codes.SERVICE_UNAVAILABLE
            wrong += refusals < 5
            wrong += not answer.headers.get("retry-after")
            answer = await duet.http.post(
                "/v1/users", json={"username": f"full-{number}", "password": PASSWORD}
            )
            wrong += answer.status_code != httpx.codes.SERVICE_UNAVAILABLE
            me = await duet.http.get("/v1/users/me", headers=person.bearer)
            unreadable += me.status_code != httpx.codes.OK
            unreadable += await _connect(duet.url, person) != "connected"
        answer = await duet.http.post(
            "/v1/users", json={"username": f"full-{number}", "password": PASSWORD}
        )
        not_recovered += answer.status_code != httpx.codes.CREATED
    wrong += sum(status not in {200, 503} for status in statuses)
    tracebacks = duet.tracebacks()
    return Figure(
        fault="disk of the profile service full",
        tries=rounds,
        counted=f"{statuses.count(503)} changes refused with 503 and Retry-After, {wrong} answered "
        f"otherwise; {unreadable} reads or token checks failed; {not_recovered} sign-ups refused "
        "once there was room, no restart",
        passed=not (wrong or unreadable or not_recovered or tracebacks),
    )


async def _patch(duet: Duet, person: Person, bio: str) -> httpx.Response:
    return await duet.http.patch("/v1/users/me", json={"bio": bio}, headers=person.bearer)


async def locked_database(plan: Plan) -> list[Figure]:
    """Another process holds the write lock of the database, as a stuck backup would."""
    seconds = plan.of(4, 10)
    async with running_duet(plan.directory / "locked-database", **UNHURRIED) as duet:
        ann, bob, *people = await duet.sign_up_many(22)
        async with (
            talking_pairs(duet.url, people) as load,
            Client.talking(duet.url, ann.access_token) as a,
        ):
            await load.more_acknowledged(200)
            await a.say(bob.user_id, "what is to be read", "unlocked")
            async with locked_elsewhere(duet.messages_db, seconds):
                locked_at = time.monotonic()
                refusals, reads_s, unread = await _while_locked(a, bob, seconds)
            await load.everybody_acknowledged_since(time.monotonic())
            recovered_s = time.monotonic() - locked_at - seconds
            await load.settle()
            books = load.books(duet.messages_db)
            errors = set().union(*(member.errors for member in load.members))
        tracebacks = duet.tracebacks()
    return [
        Figure(
            fault=f"database locked by another process for {seconds} s",
            tries=1,
            counted=f"{refusals} sends refused (retryable); {books}, retried ones included; errors "
            f"{', '.join(sorted(errors))}; everybody acknowledged again "
            f"{max(0, recovered_s):.1f} s after the lock, no restart",
            passed=books.lost == books.doubled == 0
            and books.integrity == "ok"
            and errors == {"store_unavailable"}
            and recovered_s < RECOVERED_WITHIN_S
            and not tracebacks,
        ),
        Figure(
            fault=READS_WHILE_LOCKED,
            tries=len(reads_s) + unread,
            counted=f"{len(reads_s)} history pages answered, {unread} refused (retryable); the "
            f"slowest took {max(reads_s, default=0):.1f} s",
            passed=not unread and bool(reads_s) and max(reads_s) < 1,
        ),
    ]


async def _while_locked(client: Client, to: Person, seconds: float) -> tuple[int, list[float], int]:
    """Send and read for almost so long. Returns sends refused, times of reads, reads refused."""
    ends_at, number, reads_s = time.monotonic() + seconds - 2.5, 0, []
    refusals = unread = 0
    while number == 0 or time.monotonic() < ends_at:
        number, started = number + 1, time.monotonic()
        await client.send(type="history", id="h", **{"with": to.user_id})
        if (await _next(client))["type"] == "history":
            reads_s.append(time.monotonic() - started)
        else:
            unread += 1
        await client.send(type="send", id=f"locked-{number}", to=to.user_id, text="hello")
        answer = await _next(client)
        refusals += answer.get("code") == "store_unavailable" and answer["retryable"]
    return refusals, reads_s, unread


@contextlib.asynccontextmanager
async def locked_elsewhere(database: Path, seconds: float) -> AsyncIterator[None]:
    """Have a process of its own hold the write lock; at the end, wait until it lets go."""
    command: Sequence[str] = (sys.executable, "-c", _HOLD_LOCK, str(database), str(seconds))
    holder = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    assert holder.stdout is not None
    assert await holder.stdout.readline() == b"locked\n"
    yield
    assert await holder.wait() == 0
