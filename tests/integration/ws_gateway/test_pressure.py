"""Readers that do not read and writers that do not stop: gone in time, at nobody else's cost."""

import asyncio
import contextlib
import json
import socket as sockets
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from websockets.frames import Frame, Opcode

from tests.support.gateway import TestGateway, running_gateway
from tests.support.raw_socket import RawSocket
from tests.support.waiting import until
from ws_gateway.websocket import GatewayWebSocket

_TEXT = "x" * 4000


@contextlib.asynccontextmanager
async def deaf(gateway: TestGateway, access_token: str) -> AsyncIterator[RawSocket]:
    """A verified client with small buffers that reads nothing more unless told to."""
    small = sockets.socket(sockets.AF_INET)
    small.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, 4096)
    small.setblocking(False)
    await asyncio.get_running_loop().sock_connect(
        small, (gateway.gateway.host, gateway.gateway.port)
    )
    async with RawSocket.open(gateway.url, small) as raw:
        await raw.connect(access_token)
        yield raw


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[TestGateway]:
    async with running_gateway(
        tmp_path, outbox_max_bytes=16_384, outbox_grace_s=0.1, close_timeout_s=0.2
    ) as gateway:
        yield gateway


async def test_slow_reader_is_aborted_while_others_are_served(gateway: TestGateway) -> None:
    ann, bob = gateway.profile.sign_up("ann"), gateway.profile.sign_up("bob")
    async with (
        gateway.talking(ann) as a,
        deaf(gateway, bob.access_token) as slow,
        gateway.talking(bob) as b,
    ):
        sent = 0
        while gateway.connections_of(bob.user_id) == 2:
            sent += 1
            await a.say(bob.user_id, _TEXT, f"{sent}")
            await b.expect("message", seq=sent)
        await slow.ended()
        await a.say(bob.user_id, "still served", "last")
        await b.expect("message", text="still served")
    assert gateway.sample("duet_gateway_outbox_aborts_total") == 1
    assert gateway.sample("duet_gateway_closes_total", code="1006") == 1


async def test_reader_that_catches_up_within_the_grace_stays(tmp_path: Path) -> None:
    async with running_gateway(tmp_path, outbox_max_bytes=16_384, outbox_grace_s=30) as gateway:
        ann, bob = gateway.profile.sign_up("ann"), gateway.profile.sign_up("bob")
        async with gateway.talking(ann) as a, deaf(gateway, bob.access_token) as slow:
            count = 50
            for number in range(count):
                await a.say(bob.user_id, _TEXT, f"{number}")
            seen: list[int] = []
            while len(seen) < count:
                frame = json.loads(bytes((await slow.read_frame()).data))
                if frame["type"] == "message":
                    seen.append(frame["seq"])
            assert seen == list(range(1, count + 1))
        assert gateway.sample("duet_gateway_outbox_aborts_total") == 0


async def test_ping_flood_of_a_client_that_reads_no_pongs_is_aborted(
    gateway: TestGateway,
) -> None:
    ann = gateway.profile.sign_up("ann")
    ping = Frame(Opcode.PING, b"x" * 125).serialize(mask=True) * 200
    async with deaf(gateway, ann.access_token) as flooder:
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(10):
                while gateway.connections_of(ann.user_id):
                    await flooder.send_bytes(ping)
    await until(lambda: gateway.gateway.server.connections == 0)
    assert gateway.sample("duet_gateway_outbox_aborts_total") == 1


async def test_reader_stuck_at_its_close_is_ended(gateway: TestGateway) -> None:
    ann, bob = gateway.profile.sign_up("ann"), gateway.profile.sign_up("bob")
    async with gateway.talking(ann) as a, deaf(gateway, bob.access_token):
        for number in range(3):
            await a.say(bob.user_id, _TEXT, f"{number}")
        gateway.profile.log_out(bob)
        await until(lambda: gateway.gateway.server.connections == 1)


async def test_silent_connection_is_reaped_by_keepalive(tmp_path: Path) -> None:
    async with running_gateway(
        tmp_path, ping_interval_s=0.05, ping_timeout_s=0.05, close_timeout_s=0.05
    ) as gateway:
        ann = gateway.profile.sign_up("ann")
        async with deaf(gateway, ann.access_token):
            await until(lambda: gateway.gateway.server.connections == 0)
        assert gateway.sample("duet_gateway_closes_total", code="1011") == 1
        assert gateway.connections_of(ann.user_id) == 0


async def test_client_that_answers_pings_is_kept(tmp_path: Path) -> None:
    async with running_gateway(tmp_path, ping_interval_s=0.02, ping_timeout_s=5) as gateway:
        ann = gateway.profile.sign_up("ann")
        async with deaf(gateway, ann.access_token) as quiet:
            for _ in range(5):
                ping = await quiet.read_frame()
                assert ping.opcode is Opcode.PING
                await quiet.send_frame(Opcode.PONG, bytes(ping.data))
            assert gateway.connections_of(ann.user_id) == 1


async def test_text_in_very_many_fragments_is_not_taken_faster_than_it_is_read(
    gateway: TestGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    most_unread = 0
    take = GatewayWebSocket.data_received

    def watch(websocket: GatewayWebSocket, data: bytes) -> None:
        nonlocal most_unread
        take(websocket, data)
        most_unread = max(most_unread, len(websocket._unread))

    monkeypatch.setattr(GatewayWebSocket, "data_received", watch)
    ann, bob = gateway.profile.sign_up("ann"), gateway.profile.sign_up("bob")
    text = json.dumps({"type": "send", "id": "1", "to": bob.user_id, "text": "hi"}).encode()
    frames = [Frame(Opcode.TEXT, text, fin=False), *[Frame(Opcode.CONT, b"", fin=False)] * 4000]
    fragments = [frame.serialize(mask=True) for frame in (*frames, Frame(Opcode.CONT, b""))]
    async with RawSocket.open(gateway.url) as raw:
        await raw.connect(ann.access_token)
        raw.write(b"".join(fragments) * 50)
        for _ in range(50):
            assert json.loads(bytes((await raw.read_frame()).data))["type"] == "ack"
    assert 0 < most_unread < 300_000  # of 1.2 million bytes


async def test_flood_of_requests_from_one_client_starves_nobody(gateway: TestGateway) -> None:
    ann, bob = gateway.profile.sign_up("ann"), gateway.profile.sign_up("bob")
    cid = gateway.profile.sign_up("cid")
    junk = Frame(Opcode.TEXT, b'{"type":"nope"}').serialize(mask=True) * 500
    async with (
        gateway.talking(ann) as a,
        gateway.talking(bob) as b,
        deaf(gateway, cid.access_token) as flooder,
    ):
        number = 0
        while gateway.connections_of(cid.user_id):
            with contextlib.suppress(ConnectionError):
                flooder.write(junk)
            await a.say(bob.user_id, "hi", f"{number}")
            number += 1
            await b.expect("message", seq=number)
    assert gateway.sample("duet_gateway_outbox_aborts_total") == 1
