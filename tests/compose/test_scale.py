"""The stack of docker-compose.scale.yml: people at different gateways, and a rolling restart."""

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest
import websockets

from tests.compose.people import Listener, Person, Sender, connected, receive, sign_up
from tests.compose.stack import ScaleStack
from tests.support.embedding import make_certificate

pytestmark = [pytest.mark.compose, pytest.mark.timeout(300)]

SERVICES = (*ScaleStack.profile_services, *ScaleStack.gateways)


@pytest.fixture(scope="module")
def stack() -> Iterator[ScaleStack]:
    stack = ScaleStack()
    try:
        stack.up()
        yield stack
    finally:
        stack.down()


@contextlib.asynccontextmanager
async def at_another_gateway(
    stack: ScaleStack, person: Person
) -> AsyncIterator[websockets.ClientConnection]:
    """A connection of `person` through nginx at a gateway where nobody else is."""
    for _ in range(50):
        async with connected(stack.websocket_url, person) as socket:
            counts = [await asyncio.to_thread(stack.users_at, one) for one in stack.gateways]
            if max(counts) == 1:
                yield socket
                return
    raise AssertionError("nginx gave the same gateway again and again")


async def test_people_at_different_gateways_see_and_hear_each_other(
    stack: ScaleStack, alice: Person, bob: Person
) -> None:
    async with (
        connected(stack.websocket_url, alice) as alices,
        at_another_gateway(stack, bob) as bobs,
    ):
        await alices.send(json.dumps({"type": "send", "id": "1", "to": bob.id, "text": "Hello"}))
        ack = await receive(alices, "ack")
        message = await receive(bobs, "message")
        assert (message["text"], message["seq"]) == ("Hello", ack["seq"])

        mark = {"conversation": message["conversation"], "seq": message["seq"]}
        await bobs.send(json.dumps({"type": "read", **mark}))
        receipt = await receive(alices, "receipt")
        assert (receipt["user"], receipt["read"]) == (bob.id, message["seq"])

        await bobs.send(json.dumps({"type": "typing", "to": alice.id, "active": True}))
        typing = await receive(alices, "typing")
        assert (typing["from"], typing["active"]) == (bob.id, True)

    async with connected(stack.websocket_url, alice) as alices, at_another_gateway(stack, bob):
        presence = await receive(alices, "presence")
        assert (presence["user"], presence["online"]) == (bob.id, True)


async def test_logging_out_closes_connections_at_every_gateway(
    stack: ScaleStack, http: httpx.AsyncClient, alice: Person
) -> None:
    async with contextlib.AsyncExitStack() as sockets:
        devices = [
            await sockets.enter_async_context(connected(stack.websocket_url, alice))
            for _ in range(6)
        ]
        headers = {"Authorization": f"Bearer {alice.access_token}"}
        (await http.delete("/v1/sessions", headers=headers)).raise_for_status()
        async with asyncio.timeout(10):
            for device in devices:
                await device.wait_closed()
                assert device.close_code == 3000


async def test_rolling_restart_under_traffic_loses_nothing(
    stack: ScaleStack, alice: Person, bob: Person
) -> None:
    sender = Sender(stack.websocket_url, alice, bob, in_flight=2)
    listener = Listener(stack.websocket_url, bob)
    before = {service: stack.container(service) for service in SERVICES}
    listening = asyncio.create_task(listener.listen())
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(sender.keep_sending())
        await sender.more_acknowledgements(50)
        await asyncio.to_thread(stack.roll)
        await sender.more_acknowledgements(50)
        sender.finish()
    await listener.received(len(sender.sent))
    listening.cancel()

    assert all(stack.container(service) != before[service] for service in SERVICES)
    assert sender.reconnects > 0
    assert listener.connects > 1
    seqs = [sender.acknowledged[one]["seq"] for one in sender.sent]
    assert seqs == list(range(1, len(sender.sent) + 1))
    assert listener.texts == sender.sent


@pytest.mark.parametrize("path", ["/internal/revocations", "/metrics"])
async def test_what_is_not_for_the_public_is_not_reachable(
    http: httpx.AsyncClient, path: str
) -> None:
    assert (await http.get(path)).status_code == httpx.codes.NOT_FOUND


async def test_tls_is_one_variable_away(stack: ScaleStack, tmp_path: Path) -> None:
    make_certificate(tmp_path / "fullchain.pem", tmp_path / "privkey.pem")
    await asyncio.to_thread(stack.switch_tls_on, tmp_path)
    url = stack.http_url.replace("http://127.0.0.1", "https://localhost")
    trust = ssl.create_default_context(cafile=tmp_path / "fullchain.pem")
    async with httpx.AsyncClient(base_url=url, verify=trust, trust_env=False, timeout=10) as http:
        alice = await sign_up(http, "alice")
        plain = await http.get(stack.http_url)
        assert (plain.status_code, plain.headers["location"][:8]) == (301, "https://")
    async with connected(f"{url.replace('https', 'wss')}/v1/ws", alice, tls=trust):
        pass


@pytest.mark.parametrize("service", SERVICES)
def test_log_has_no_passwords_or_tracebacks(stack: ScaleStack, service: str) -> None:
    lines = stack.logs(service).splitlines()
    assert lines
    for line in lines:
        assert "service" in json.loads(line)
        assert "postgresql://" not in line
        assert "eyJ" not in line
        assert "Traceback" not in line


def test_down_leaves_nothing_behind(stack: ScaleStack) -> None:
    stack.down()
    assert stack.leftovers() == ""
