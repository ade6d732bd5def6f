"""What no decent client sends: each gets its documented close code, and harms nobody else."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from websockets.frames import Frame, Opcode

from tests.support.fake_profile import FakeSession
from tests.support.gateway import TestGateway, running_gateway
from tests.support.raw_socket import RawSocket
from tests.support.waiting import until


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[TestGateway]:
    async with running_gateway(tmp_path, close_timeout_s=0.05) as gateway:
        yield gateway


@pytest.fixture
def ann(gateway: TestGateway) -> FakeSession:
    return gateway.profile.sign_up("ann")


@pytest.fixture(params=["connected", "not-connected"])
async def socket(
    request: pytest.FixtureRequest, gateway: TestGateway, ann: FakeSession
) -> AsyncIterator[RawSocket]:
    async with RawSocket.open(gateway.url) as socket:
        if request.param == "connected":
            await socket.connect(ann.access_token)
        yield socket
        await socket.ended()
        # and the gateway lets go of it, although this end of the TCP connection stays open
        await until(lambda: gateway.gateway.server.connections == 0)
        assert gateway.connections_of(ann.user_id) == 0


async def test_binary_frame_gives_1003(socket: RawSocket) -> None:
    await socket.send_frame(Opcode.BINARY, b"{}")
    assert await socket.close_code() == 1003


async def test_bad_utf8_gives_1007(socket: RawSocket) -> None:
    await socket.send_frame(Opcode.TEXT, b'{"type":"send","id":"1","to":"x","text":"\xff"}')
    assert await socket.close_code() == 1007


async def test_bad_utf8_in_an_ignored_field_gives_1007(socket: RawSocket) -> None:
    await socket.send_frame(Opcode.TEXT, b'{"type":"send","id":"1","to":"x","text":"y","z":"\xff"}')
    assert await socket.close_code() == 1007


async def test_bad_utf8_in_fragments_gives_1007(socket: RawSocket) -> None:
    await socket.send_frame(Opcode.TEXT, b'{"type":"\xe2\x82', fin=False)
    await socket.send_frame(Opcode.CONT, b'"}', fin=True)
    assert await socket.close_code() == 1007


async def test_character_split_between_fragments_is_whole(
    gateway: TestGateway, ann: FakeSession
) -> None:
    bob = gateway.profile.sign_up("bob")
    text = json.dumps(
        {"type": "send", "id": "1", "to": bob.user_id, "text": "\u20ac"}, ensure_ascii=False
    ).encode()
    middle = text.index("\u20ac".encode()) + 1
    async with gateway.talking(bob) as b, RawSocket.open(gateway.url) as socket:
        await socket.connect(ann.access_token)
        await socket.send_frame(Opcode.TEXT, text[:middle], fin=False)
        await socket.send_frame(Opcode.PING, b"")
        await socket.send_frame(Opcode.CONT, text[middle:])
        await b.expect("message", text="\u20ac")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hello",
        '{"type":"send"',
        '{"type":"send","id":"1","to":"x","text":"y","n":NaN}',
        '{"type":"send","id":"1","to":"x","text":"\\ud800"}',
        '{"type":"send","id":"1","to":"x","text":"y"} {}',
        '{"type":"send","id":"1","to":"x","n":' + "[" * 20_000 + "]" * 20_000 + "}",
        "\ufeff{}",
    ],
    ids=["empty", "word", "cut-off", "nan", "lone-surrogate", "two", "deep", "byte-order-mark"],
)
async def test_what_is_not_json_gives_1008(socket: RawSocket, text: str) -> None:
    await socket.send_text(text)
    error = json.loads(bytes((await socket.read_frame()).data))
    assert (error["type"], error["code"]) == ("error", "malformed_json")
    assert await socket.close_code() == 1008


async def test_frame_over_the_limit_gives_1009(socket: RawSocket) -> None:
    await socket.send_frame(Opcode.TEXT, b" " * 65_537)
    assert await socket.close_code() == 1009


async def test_fragments_over_the_limit_give_1009(socket: RawSocket) -> None:
    for number in range(3):
        opcode = Opcode.CONT if number else Opcode.TEXT
        await socket.send_frame(opcode, b" " * 30_000, fin=False)
    assert await socket.close_code() == 1009


async def test_ten_thousand_empty_fragments_give_1009(socket: RawSocket) -> None:
    fragment = Frame(Opcode.CONT, b"", fin=False).serialize(mask=True)
    socket.write(Frame(Opcode.TEXT, b"", fin=False).serialize(mask=True) + fragment * 10_000)
    assert await socket.close_code() == 1009


@pytest.mark.parametrize(
    "data",
    [
        b"\x81\x02{}",
        b"\xf1\x80\x00\x00\x00\x00",
        b"\x83\x80\x00\x00\x00\x00",
        b"\x80\x80\x00\x00\x00\x00",
        b"\x09\x80\x00\x00\x00\x00",
        b"\x89\xfe\x00\x7e\x00\x00\x00\x00" + b"x" * 126,
        b"\x88\x81\x00\x00\x00\x00x",
    ],
    ids=[
        "unmasked",
        "reserved-bits",
        "reserved-opcode",
        "continuation-of-nothing",
        "fragmented-ping",
        "long-ping",
        "short-close",
    ],
)
async def test_violation_of_the_websocket_protocol_gives_1002(
    socket: RawSocket, data: bytes
) -> None:
    await socket.send_bytes(data)
    assert await socket.close_code() == 1002


async def test_bytes_behind_the_fault_are_not_read(
    gateway: TestGateway, ann: FakeSession, socket: RawSocket
) -> None:
    bob = gateway.profile.sign_up("bob")
    frame = json.dumps({"type": "send", "id": "1", "to": bob.user_id, "text": "hi"}).encode()
    async with gateway.talking(bob) as b:
        await socket.send_bytes(
            Frame(Opcode.TEXT, b"nonsense").serialize(mask=True)
            + Frame(Opcode.TEXT, frame).serialize(mask=True) * 3
        )
        assert await socket.close_code() == 1008
        await b.nothing_more(bob.user_id)


async def test_client_that_closes_gets_its_code_back(socket: RawSocket) -> None:
    await socket.send_frame(Opcode.CLOSE, (1000).to_bytes(2))
    assert await socket.close_code() == 1000


async def test_message_sent_just_before_the_close_is_delivered(
    gateway: TestGateway, ann: FakeSession
) -> None:
    bob = gateway.profile.sign_up("bob")
    frame = json.dumps({"type": "send", "id": "1", "to": bob.user_id, "text": "bye"}).encode()
    async with gateway.talking(bob) as b, RawSocket.open(gateway.url) as socket:
        await socket.connect(ann.access_token)
        await socket.send_bytes(
            Frame(Opcode.TEXT, frame).serialize(mask=True)
            + Frame(Opcode.CLOSE, (1000).to_bytes(2)).serialize(mask=True)
        )
        await b.expect("message", text="bye")


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET /v1/ws HTTP/1.1\r\n" + b"X-Long: " + b"x" * 20_000 + b"\r\n\r\n",
        b"GET /v1/ws HTTP/1.1\r\n" + b"X: y\r\n" * 300 + b"\r\n",
        b"GET /v1/ws HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST /v1/ws HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}",
        b"GET /v1/ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: short\r\nSec-WebSocket-Version: 13\r\n\r\n",
        b"nonsense\r\n\r\n",
    ],
    ids=["tls", "long-header", "many-headers", "no-upgrade", "post", "bad-key", "nonsense"],
)
async def test_what_is_no_opening_handshake_is_turned_away(
    gateway: TestGateway, request_bytes: bytes
) -> None:
    reader, writer = await asyncio.open_connection(gateway.gateway.host, gateway.gateway.port)
    writer.write(request_bytes)
    writer.write_eof()
    async with asyncio.timeout(10):
        try:
            answer = await reader.read()
        except ConnectionResetError:
            answer = b""
    assert not answer.startswith(b"HTTP/1.1 101")
    assert b"Traceback" not in answer
    writer.close()
