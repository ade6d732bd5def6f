"""Both services as somebody runs them: sign up, connect, talk, log out, crash, stop."""

import asyncio
import contextlib
import secrets
import signal
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.support.client import Client, Frame
from tests.support.engines import ON_SCALE
from tests.support.gateway import stored_messages
from tests.support.processes import ServiceProcess, gateway_process, profile_process
from tests.support.waiting import until

_PASSWORD = "correct horse battery staple"
_UNLIMITED = {
    "DUET_MESSAGES_PER_S": "100000",
    "DUET_MESSAGE_BURST": "100000",
    "DUET_REQUESTS_PER_S": "100000",
    "DUET_REQUEST_BURST": "100000",
}


class Person(msgspec.Struct):
    """Somebody who has signed up."""

    id: str
    access_token: str
    refresh_token: str


class Stack(msgspec.Struct):
    """The running profile service, and where the gateway's data is."""

    http: httpx.AsyncClient
    profile: ServiceProcess
    profile_url: str
    data_dir: Path

    def gateway(self, **settings: str) -> contextlib.AbstractAsyncContextManager[ServiceProcess]:
        """A gateway on this stack's data."""
        return gateway_process(self.data_dir, self.profile_url, **{**_UNLIMITED, **settings})

    async def sign_up(self) -> Person:
        """Create an account by REST."""
        body = {"username": f"user-{secrets.token_hex(6)}", "password": _PASSWORD}
        answer = await self.http.post("/v1/users", json=body)
        assert answer.status_code == 201, answer.text
        granted: dict[str, Any] = answer.json()
        return Person(granted["user"]["id"], granted["access_token"], granted["refresh_token"])

    @property
    def database(self) -> Path:
        """Where messages are."""
        return self.data_dir / "messages.db"


@pytest.fixture
async def stack(tmp_path: Path) -> AsyncIterator[Stack]:
    async with profile_process(tmp_path) as profile:
        url = await profile.url()
        async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=10) as http:
            yield Stack(http, profile, url, tmp_path)


async def test_two_people_sign_up_connect_and_talk(stack: Stack) -> None:
    ann, bob = await stack.sign_up(), await stack.sign_up()
    async with stack.gateway() as gateway:
        url = await gateway.url()
        async with Client.open(url) as a, Client.talking(url, bob.access_token) as b:
            await a.connect(ann.access_token, refresh_token=ann.refresh_token)
            ack = await a.say(bob.id, "hello bob", "1")
            message = await b.expect("message", text="hello bob")
            assert message["from"] == ann.id
            assert (await b.say(ann.id, "hello ann", "1"))["seq"] == ack["seq"] + 1
            await a.expect("message", text="hello ann")
            await a.send(type="send", id="2", to="u_nobody", text="?")
            await a.expect_error("recipient_not_found")
        gateway.signal(signal.SIGTERM)
        assert await gateway.exit_status() == 0
    for secret in (ann.access_token, ann.refresh_token, bob.access_token, "hello"):
        assert secret not in gateway.log
        assert secret not in stack.profile.log
    assert "Traceback" not in gateway.log


async def test_logging_out_everywhere_closes_every_socket_within_2_s(stack: Stack) -> None:
    ann = await stack.sign_up()
    async with stack.gateway() as gateway:
        url = await gateway.url()
        await gateway.logged("the revocation feed is connected")
        async with contextlib.AsyncExitStack() as sockets:
            clients = [
                await sockets.enter_async_context(Client.talking(url, ann.access_token))
                for _ in range(10)
            ]
            started = time.monotonic()
            answer = await stack.http.delete(
                "/v1/sessions", headers={"Authorization": f"Bearer {ann.access_token}"}
            )
            assert answer.is_success
            for client in clients:
                await client.expect_error("session_ended")
                assert (await client.closed())[0] == 3000
            assert time.monotonic() - started < 2
        async with Client.open(url) as late:
            await late.send(type="connect", access_token=ann.access_token)
            await late.expect_error("unauthorized")


async def test_gateway_waits_for_the_profile_service_and_admits_nobody_meanwhile(
    stack: Stack,
) -> None:
    ann = await stack.sign_up()
    with socket.create_server(("127.0.0.1", 0)) as unheard:
        nowhere = f"http://127.0.0.1:{unheard.getsockname()[1]}"
    async with gateway_process(stack.data_dir, nowhere) as gateway:
        url = await gateway.url()
        async with Client.open(url) as a:
            await a.send(type="connect", access_token=ann.access_token)
            await a.expect_error("verification_unavailable", retryable=True)
            assert (await a.closed())[0] == 1013
        ready = url.replace("ws://", "http://").replace("/v1/ws", "/readyz")
        assert (await stack.http.get(ready)).status_code == 503


class Talker:
    """Sends as fast as acks come, until told to stop, and resends what was not acknowledged."""

    def __init__(self, sender: Person, recipient: Person) -> None:
        self.sender = sender
        self.recipient = recipient
        self.acks: dict[str, Frame] = {}
        self.unanswered: list[str] = []
        self._made = 0

    async def talk_until_the_end(self, url: str, in_flight: int = 16) -> None:
        """Send until the connection breaks."""
        with contextlib.suppress(ConnectionClosed, OSError, InvalidStatus):
            async with Client.talking(url, self.sender.access_token) as client:
                for client_id in self.unanswered:
                    await self._send(client, client_id)
                while True:
                    while len(self.unanswered) < in_flight:
                        self._made += 1
                        self.unanswered.append(f"m{self._made}")
                        await self._send(client, self.unanswered[-1])
                    ack = await client.expect("ack", past={"message"})
                    self.unanswered.remove(ack["id"])
                    self.acks[ack["id"]] = ack

    async def resend_everything(self, url: str) -> None:
        """Send every message again; each must be answered as the first time."""
        async with Client.talking(url, self.sender.access_token) as client:
            for client_id, first in self.acks.items():
                await self._send(client, client_id)
                again = await client.expect("ack", past={"message"}, id=client_id)
                assert again == {**first, "duplicate": True}
            for client_id in self.unanswered:
                await self._send(client, client_id)
                self.acks[client_id] = await client.expect("ack", past={"message"}, id=client_id)
            self.unanswered.clear()

    async def _send(self, client: Client, client_id: str) -> None:
        await client.send(type="send", id=client_id, to=self.recipient.id, text=client_id)


async def _talk_until_killed(stack: Stack, talkers: list[Talker], acknowledged: int) -> None:
    async with stack.gateway() as gateway:
        url = await gateway.url()
        talking = [asyncio.create_task(talker.talk_until_the_end(url)) for talker in talkers]
        await until(lambda: sum(len(talker.acks) for talker in talkers) >= acknowledged)
        gateway.signal(signal.SIGKILL)
        assert await gateway.exit_status() == -signal.SIGKILL
        await asyncio.gather(*talking)


async def test_no_acknowledged_message_is_lost_or_doubled_when_the_gateway_is_killed(
    stack: Stack,
) -> None:
    people = [await stack.sign_up() for _ in range(6)]
    talkers = [Talker(people[n], people[n + 1]) for n in (0, 2, 4)]
    talkers.append(Talker(people[1], people[0]))  # both sides of one conversation
    for count in (300, 600, 900):
        await _talk_until_killed(stack, talkers, count)

    async with stack.gateway() as gateway:
        url = await gateway.url()
        for talker in talkers:
            await talker.resend_everything(url)

    stored = stored_messages(stack.database)
    seqs: dict[str, list[int]] = {}
    for conversation, seq, _, _ in stored:
        seqs.setdefault(conversation, []).append(seq)
    assert all(order == list(range(1, len(order) + 1)) for order in seqs.values())
    acknowledged = sorted(
        (ack["conversation"], ack["seq"], client_id)
        for talker in talkers
        for client_id, ack in talker.acks.items()
    )
    assert acknowledged == sorted(row[:3] for row in stored)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_signal_drains_and_exits_with_0(stack: Stack, number: signal.Signals) -> None:
    ann = await stack.sign_up()
    async with stack.gateway() as gateway:
        async with Client.talking(await gateway.url(), ann.access_token) as a:
            gateway.signal(number)
            await a.expect("draining")
            assert (await a.closed())[0] == 1012
        assert await gateway.exit_status() == 0
        await gateway.logged("stopped")
        assert "Traceback" not in gateway.log


async def test_signal_while_the_profile_service_hangs_still_exits(stack: Stack) -> None:
    ann = await stack.sign_up()
    async with stack.gateway(DUET_PROFILE_TIMEOUT_S="1") as gateway:
        url = await gateway.url()
        await gateway.logged("the revocation feed is connected")
        async with Client.talking(url, ann.access_token) as a:
            stack.profile.signal(signal.SIGSTOP)
            await a.send(type="send", id="1", to="u_somebody", text="hi")
            await a.nothing_more(ann.id)
            gateway.signal(signal.SIGTERM)
            await a.expect("draining")
            await a.expect_error("verification_unavailable", id="1")
            assert (await a.closed())[0] == 1012
        assert await gateway.exit_status() == 0
        stack.profile.signal(signal.SIGCONT)


async def test_occupied_port_is_one_clear_line_and_status_1(stack: Stack) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        async with stack.gateway(DUET_GATEWAY_PORT=port) as gateway:
            assert await gateway.exit_status() == 1
    (line,) = [line for line in gateway.lines if '"error"' in line]
    assert f"127.0.0.1:{port} is in use" in line
    assert "DUET_GATEWAY_PORT" in line
    assert "Traceback" not in gateway.log


@pytest.mark.skipif(ON_SCALE, reason="any number of gateways share PostgreSQL")
async def test_second_gateway_on_the_same_data_is_one_clear_line_and_status_1(
    stack: Stack,
) -> None:
    async with stack.gateway() as first:
        await first.url()
        async with stack.gateway() as second:
            assert await second.exit_status() == 1
    (line,) = [line for line in second.lines if '"error"' in line]
    assert "open in another process" in line


async def test_bad_settings_are_all_reported_at_once_with_status_2(stack: Stack) -> None:
    faults = {
        "DUET_GATEWAY_PORT": "70000",
        "DUET_SERVICE_SECRET": "short",
        "DUET_PROFILE_URL": "ftp://x",
        "DUET_ALLOWED_ORIGINS": "https://chat.example/path",
        "DUET_LOG_LEVEL": "loud",
    }
    async with stack.gateway(**faults) as gateway:
        assert await gateway.exit_status() == 2
    for name in faults:
        assert name in gateway.log
    assert "short" not in gateway.log.replace("shorter", "")
    assert "Traceback" not in gateway.log


async def test_unwritable_data_directory_is_one_clear_line_and_status_1(
    stack: Stack, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("not a directory")
    async with stack.gateway(DUET_DATA_DIR=str(tmp_path / "file")) as gateway:
        assert await gateway.exit_status() == 1
    assert "Traceback" not in gateway.log
    assert "cannot start" in gateway.log
