"""Whatever breaks between client and gateway: no message lost, none doubled, all in order."""

import asyncio
import contextlib
import itertools
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from pathlib import Path
from types import ModuleType

import pytest

import duet_client
from duet_client import Client, FileCredentials, NewMessage, Tokens
from tests.client_python import listener, talker
from tests.client_python.proxy import Fault, Proxy, Rule, kind_is
from tests.client_python.services import Duet, expect

_QUICK = {"answer_timeout_s": 0.5, "ping_interval_s": 0.5, "ping_timeout_s": 0.5}


async def _send_all(client: Client, to: str, texts: list[str]) -> list[int]:
    """Send without waiting, then wait for every ack. Returns the seqs."""
    outgoing = [await client.send(to, text) for text in texts]
    async with asyncio.timeout(30):
        return [(await each.acknowledged()).seq for each in outgoing]


async def _receive(client: Client, count: int) -> list[str]:
    return [(await expect(client, NewMessage, within_s=30)).text for _ in range(count)]


async def _stored(client: Client, who: str) -> list[str]:
    return [message.text for message in (await client.history(who, limit=200)).messages]


_NUMBERS = [str(number) for number in range(20)]


@pytest.mark.parametrize(
    "rule",
    [
        kind_is("ack", Fault.CUT_BEFORE, 3),
        kind_is("ack", Fault.CUT_WITHIN, 3),
        kind_is("ack", Fault.CUT_AFTER, 3),
        kind_is("ack", Fault.DOUBLE, 20),
        kind_is("ack", Fault.STALL, 2),
        kind_is("connected", Fault.CUT_WITHIN, 2),
    ],
    ids=[
        "ack lost",
        "ack cut",
        "cut after ack",
        "ack doubled",
        "stall before ack",
        "connected cut",
    ],
)
async def test_messages_arrive_once_and_in_order_though_acks_are_spoilt(
    duet: Duet, ann: Tokens, bob: Tokens, tmp_path: Path, rule: Rule
) -> None:
    async with Proxy.before(duet.gateway.url) as proxy, duet.connect(bob, tmp_path / "b") as b:
        proxy.from_gateway = rule
        async with duet.connect(ann, tmp_path / "a", gateway_url=proxy.url, **_QUICK) as a:
            assert await _send_all(a, bob.user_id, _NUMBERS) == list(range(1, 21))
        assert await _receive(b, 20) == _NUMBERS
        assert await _stored(b, ann.user_id) == _NUMBERS


@pytest.mark.parametrize(
    "fault", [Fault.CUT_BEFORE, Fault.CUT_WITHIN, Fault.CUT_AFTER, Fault.DOUBLE]
)
async def test_messages_arrive_once_and_in_order_though_sends_are_spoilt(
    duet: Duet, ann: Tokens, bob: Tokens, tmp_path: Path, fault: Fault
) -> None:
    async with Proxy.before(duet.gateway.url) as proxy, duet.connect(bob, tmp_path / "b") as b:
        proxy.from_client = kind_is("send", fault, 5)
        async with duet.connect(ann, tmp_path / "a", gateway_url=proxy.url, **_QUICK) as a:
            assert await _send_all(a, bob.user_id, _NUMBERS) == list(range(1, 21))
        assert await _receive(b, 20) == _NUMBERS


@pytest.mark.parametrize(
    "fault",
    [Fault.CUT_BEFORE, Fault.CUT_WITHIN, Fault.CUT_AFTER, Fault.DOUBLE, Fault.STALL],
)
async def test_events_come_once_and_in_order_though_they_are_spoilt(
    duet: Duet, ann: Tokens, bob: Tokens, tmp_path: Path, fault: Fault
) -> None:
    async with Proxy.before(duet.gateway.url) as proxy, duet.connect(ann, tmp_path / "a") as a:
        proxy.from_gateway = kind_is("message", fault, 3)
        async with duet.connect(bob, tmp_path / "b", gateway_url=proxy.url, **_QUICK) as b:
            await _send_all(a, bob.user_id, _NUMBERS)
            assert await _receive(b, 20) == _NUMBERS
            await (await a.send(bob.user_id, "last")).acknowledged()
            assert await _receive(b, 1) == ["last"]


async def test_lost_ack_is_made_good_by_the_same_id(
    duet: Duet, ann: Tokens, bob: Tokens, tmp_path: Path
) -> None:
    async with Proxy.before(duet.gateway.url) as proxy:
        proxy.from_gateway = kind_is("ack", Fault.CUT_BEFORE)
        async with duet.connect(ann, tmp_path / "a", gateway_url=proxy.url) as a:
            outgoing = await a.send(bob.user_id, "hi")
            assert (await outgoing.acknowledged()).seq == 1
            assert len(await _stored(a, bob.user_id)) == 1
        sends = [frame["id"] for frame in proxy.seen if frame["type"] == "send"]
        assert set(sends) == {outgoing.id}


async def test_reader_that_falls_behind_gets_everything_and_holds_little(
    duet: Duet, ann: Tokens, bob: Tokens, tmp_path: Path
) -> None:
    texts = [str(number) for number in range(300)]
    options = {"max_waiting_events": 10}
    async with (
        duet.connect(ann, tmp_path / "a") as a,
        duet.connect(bob, tmp_path / "b", **options) as b,
    ):
        await _send_all(a, bob.user_id, texts)
        assert await _receive(b, 300) == texts


async def test_client_closes_within_a_second_though_nothing_gets_through(
    duet: Duet, ann: Tokens, bob: Tokens, tmp_path: Path
) -> None:
    async with Proxy.before(duet.gateway.url) as proxy:
        async with duet.connect(ann, tmp_path / "a", gateway_url=proxy.url) as a:
            proxy.from_client = proxy.from_gateway = lambda _: Fault.STALL
            for _ in range(300):
                await a.send(bob.user_id, "x" * 4000)
            asking = asyncio.create_task(a.conversations())
            loop = asyncio.get_running_loop()
            closing_at = loop.time()
        assert loop.time() - closing_at < 1
        with pytest.raises(duet_client.ClientClosed):
            await asking
    async with duet.connect(ann, tmp_path / "a") as a:
        assert len(a.queued) == 300


async def test_gateway_killed_while_sending_loses_doubles_and_reorders_nothing(
    own_gateway: Duet, ann: Tokens, bob: Tokens, tmp_path: Path
) -> None:
    gateway = own_gateway.gateway
    texts = [str(number) for number in range(150)]
    async with (
        own_gateway.connect(ann, tmp_path / "a") as a,
        own_gateway.connect(bob, tmp_path / "b") as b,
    ):
        received = asyncio.create_task(_receive(b, len(texts)))
        outgoing = [await a.send(bob.user_id, text) for text in texts]
        for milestone in (20, 60, 100):
            async with asyncio.timeout(30):
                await outgoing[milestone].acknowledged()
            gateway.kill()
            gateway.start()
        async with asyncio.timeout(30):
            seqs = [(await each.acknowledged()).seq for each in outgoing]
            assert await received == texts
        assert seqs == list(range(1, 151))
        assert await _stored(b, ann.user_id) == texts


async def test_process_killed_while_sending_loses_doubles_and_reorders_nothing(
    duet: Duet, ann: Tokens, bob: Tokens, tmp_path: Path
) -> None:
    FileCredentials(tmp_path / "tokens").save(ann)
    queued = 0
    for stop_after in (30, 70, 110):
        arguments = (bob.user_id, str(queued), "199")
        async with _running(duet, talker, tmp_path, *arguments) as process:
            queued = await _read_until(process, stop_after) + 1
            process.kill()
    async with _running(duet, talker, tmp_path, bob.user_id, str(queued), "199") as process:
        await _read_until(process, None)
        assert await process.wait() == 0
    async with duet.connect(bob, tmp_path / "b") as b:
        assert await _stored(b, ann.user_id) == [str(number) for number in range(200)]


async def test_process_killed_while_receiving_misses_nothing_and_repeats_little(
    duet: Duet, ann: Tokens, bob: Tokens, tmp_path: Path
) -> None:
    FileCredentials(tmp_path / "tokens").save(bob)
    texts = [str(number) for number in range(400)]
    runs: list[list[str]] = []
    async with duet.connect(ann, tmp_path / "a") as a:
        async with _running(duet, listener, tmp_path) as process:
            assert await _lines(process, 1) == ["connected"]
        for text in texts:
            await a.send(bob.user_id, text)
        for count in (100, 150, None):
            async with _running(duet, listener, tmp_path) as process:
                seen = await _lines(process, 1 + (count or 400), last="399")
                process.kill()
                assert process.stdout is not None
                unread = (await process.stdout.read()).decode().split("\n")[:-1]
                runs.append([*seen[1:], *unread])
    assert runs[0] == texts[: len(runs[0])]
    for before, after in itertools.pairwise(runs):
        repeated = int(before[-1]) + 1 - int(after[0])
        assert 0 <= repeated <= 64
        assert after == texts[int(after[0]) :][: len(after)]
    assert runs[-1][-1] == "399"


@contextlib.asynccontextmanager
async def _running(
    duet: Duet, script: ModuleType, folder: Path, *arguments: str
) -> AsyncIterator[Process]:
    """Run a script as a process of its own, killed at the end."""
    paths = os.pathsep.join(path for path in sys.path if path)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(script.__file__),
        duet.profile_url,
        duet.gateway.url,
        str(folder / "tokens"),
        str(folder / "state"),
        *arguments,
        stdout=PIPE,
        env={**os.environ, "PYTHONPATH": paths},
    )
    try:
        async with asyncio.timeout(30):
            yield process
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        await process.communicate()


async def _lines(process: Process, count: int, last: str = "") -> list[str]:
    """Read so many lines, or up to one that is `last`."""
    assert process.stdout is not None
    lines: list[str] = []
    while len(lines) < count and last not in lines[-1:]:
        lines.append((await process.stdout.readline()).decode().rstrip())
        assert lines[-1]
    return lines


async def _read_until(process: Process, number: int | None) -> int:
    """Read what the process says until it has queued `number`, or to the end."""
    assert process.stdout is not None
    queued = -1
    async for line in process.stdout:
        queued = int(line)
        if queued == number:
            break
    return queued
