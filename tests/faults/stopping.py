"""SIGTERM in bad company, restarts one by one, and what operators do while people talk."""

import asyncio
import contextlib
import json
import sys
import time

import httpx

from tests.faults.figures import Figure, Plan
from tests.faults.load import talking_pairs
from tests.faults.outages import locked_elsewhere
from tests.faults.pressure import deaf
from tests.faults.processes import UNHURRIED, Duet, lasting, running_duet
from tests.support.client import Client

__all__ = ["operations_under_load", "stopped_while_stuck"]

STOPPED_WITHIN_S = 15.0


async def stopped_while_stuck(plan: Plan) -> list[Figure]:
    """SIGTERM while a reader is stuck, a verification hangs, and a commit waits for a lock."""
    tries = plan.of(1, 3)
    took_s, statuses, told, acked = [], [], 0, 0
    for number in range(tries):
        directory = plan.directory / f"stopped-while-stuck-{number}"
        async with (
            running_duet(directory, **UNHURRIED) as duet,
            contextlib.AsyncExitStack() as stack,
        ):
            ann, bob, cid, eve = await duet.sign_up_many(4)
            a = await stack.enter_async_context(Client.talking(duet.url, ann.access_token))
            await stack.enter_async_context(deaf(duet.url, bob))
            for text in range(100):  # until nothing more fits into bob's connection
                await a.say(bob.user_id, "x" * 4000, f"{text}")
            c = await stack.enter_async_context(Client.talking(duet.url, cid.access_token))
            duet.freeze("profile_service")
            unverified = await stack.enter_async_context(Client.open(duet.url))
            await unverified.send(type="connect", access_token=eve.access_token)
            await stack.enter_async_context(locked_elsewhere(duet.messages_db, 3))
            await a.send(type="send", id="waits", to=bob.user_id, text="for the lock")
            await a.nothing_more(ann.user_id)
            status, seconds = await duet.terminate("ws_gateway")
            took_s.append(seconds)
            statuses.append(status)
            told += "draining" in await _last_words(c) and c.socket.close_code == 1012
            acked += "ack" in await _last_words(a)
            duet.thaw("profile_service")
    return [
        Figure(
            fault="SIGTERM with a stuck reader, a stuck verification and a locked database",
            tries=tries,
            counted=f"exit status {sorted(set(statuses))} after at most {max(took_s):.1f} s; "
            f"{told} times a healthy client was told `draining` and closed with 1012",
            passed=max(took_s) < STOPPED_WITHIN_S and set(statuses) == {0} and told == tries,
        )
    ]


async def _last_words(client: Client) -> list[str]:
    words = []
    with contextlib.suppress(Exception):
        async with asyncio.timeout(5):
            while True:
                words.append(json.loads(await client.socket.recv())["type"])
    return words


async def operations_under_load(plan: Plan) -> list[Figure]:
    """Rolling restarts, a key rotation and a backup while people talk; then a restore."""
    rounds = plan.of(1, 5)
    async with running_duet(plan.directory / "operations", **UNHURRIED) as duet:
        people = await duet.sign_up_many(20)
        async with talking_pairs(duet.url, people, pause_s=0.002) as load:
            await load.everybody_acknowledged_since(0)
            statuses, back_s, refused = [], [], 0
            for number in range(rounds):
                for name in ("ws_gateway", "profile_service"):
                    status, _ = await duet.terminate(name)
                    stopped_at = time.monotonic()
                    statuses.append(status)
                    await duet.start(name)
                    await duet.ready(name)
                    back_s.append(await load.everybody_acknowledged_since(stopped_at))
                await _command(duet, "profile_service", "rotate-keys")
                refused += await _refused_after_rotation(duet)
                await _command(duet, "ws_gateway", "backup", f"{duet.messages_db}.{number}")
                await _command(duet, "profile_service", "backup", f"{duet.users_db}.{number}")
            await load.more_acknowledged(200)
            await load.settle()
            books = load.books(duet.messages_db)
            restored = await _restore(duet, f"{duet.messages_db}.0")
            async with asyncio.timeout(20):
                while not all(member.resyncs for member in load.members):
                    await lasting(0.05)
        tracebacks = duet.tracebacks()
    return [
        Figure(
            fault="rolling restart, key rotation and backups under load",
            tries=rounds,
            counted=f"{books}; exit statuses {sorted(set(statuses))}; everybody's next ack within "
            f"{max(back_s):.1f} s of each stop; {refused} tokens refused after a rotation",
            passed=books.are_good and set(statuses) == {0} and not refused and not tracebacks,
        ),
        Figure(
            fault="restore an older backup while clients wait",
            tries=1,
            counted=f"restored ({restored}); {len(people)} of {len(people)} clients were told to "
            "resync when they came back with their cursors",
            passed=restored == "ok" and not tracebacks,
        ),
    ]


async def _command(duet: Duet, name: str, *arguments: str) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", name, *arguments, env=duet.environment
    )
    assert await process.wait() == 0


async def _refused_after_rotation(duet: Duet) -> int:
    """A token of the old key and one of the new one, both at work."""
    person = await duet.sign_up()
    async with asyncio.timeout(15):
        while (await duet.log_in(person)).access_token.split(".")[0] == (
            person.access_token.split(".")[0]
        ):
            await lasting(0.1)
    newer = await duet.log_in(person)
    refused = 0
    for one in (person, newer):
        answer = await duet.http.get("/v1/users/me", headers=one.bearer)
        refused += answer.status_code != httpx.codes.OK
        async with Client.open(duet.url) as client:
            await client.send(type="connect", access_token=one.access_token)
            first = json.loads(await client.socket.recv())
            refused += first["type"] != "connected"
    return refused


async def _restore(duet: Duet, backup: str) -> str:
    await duet.terminate("ws_gateway")
    await _command(duet, "ws_gateway", "restore", backup)
    await duet.start("ws_gateway")
    await duet.ready("ws_gateway")
    return "ok"
