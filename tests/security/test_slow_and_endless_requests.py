"""Slowloris and its kin: who does not finish a request, or a handshake, does not hold the port."""

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from profile_service.server import BoundedProtocol
from tests.support.gateway import running_gateway
from tests.support.profile_service import RunningService, fast_settings, running_service
from tests.support.waiting import until

_BEGUN = [
    b"",
    b"G",
    b"GET /healthz HTTP/1.1\r\nHost: x\r\n",
    b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\nGET /healthz HTTP/1.1\r\nHost: x",
]
_IDS = ["nothing", "a letter", "half a head", "half of the second head"]


@contextlib.asynccontextmanager
async def _connected(
    port: int, data: bytes
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def _ends(reader: asyncio.StreamReader) -> bytes:
    """Read until the server ends the connection."""
    received = b""
    async with asyncio.timeout(10):
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65_536):
                received += data
    return received


async def _stays_open(reader: asyncio.StreamReader, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await reader.read()  # returns at the end only
            pytest.fail("the connection was ended")


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[RunningService]:
    async with running_service(fast_settings(tmp_path)) as service:
        yield service


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> list[BoundedProtocol]:
    """The connections of the profile service, for each of which the system holds little."""
    made = BoundedProtocol.connection_made
    held: list[BoundedProtocol] = []

    def with_little_room(protocol: BoundedProtocol, transport: asyncio.Transport) -> None:
        made(protocol, transport)
        held.append(protocol)
        accepted = transport.get_extra_info("socket")
        accepted.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)

    monkeypatch.setattr(BoundedProtocol, "connection_made", with_little_room)
    return held


@pytest.mark.parametrize("begun", _BEGUN, ids=_IDS)
async def test_profile_service_waits_so_long_for_a_head_and_no_longer(
    service: RunningService, monkeypatch: pytest.MonkeyPatch, begun: bytes
) -> None:
    monkeypatch.setattr(BoundedProtocol, "head_timeout_s", 0.2)
    async with _connected(service.port, begun) as (reader, _):
        started = time.monotonic()
        await _ends(reader)
        assert time.monotonic() - started < 5
    assert (await service.client.get("/healthz")).status_code == 200


@pytest.mark.parametrize(
    ("fields", "later"),
    [
        (b"", b"\r\n"),
        (b"Content-Length: 1000000\r\n", b"x"),
        (b"Transfer-Encoding: chunked\r\n", b"1"),
    ],
    ids=["an empty line", "a body", "half a chunk"],
)
async def test_bytes_that_begin_no_request_keep_no_connection(
    service: RunningService, monkeypatch: pytest.MonkeyPatch, fields: bytes, later: bytes
) -> None:
    made = BoundedProtocol.connection_made

    def impatient(protocol: BoundedProtocol, transport: asyncio.Transport) -> None:
        made(protocol, transport)
        protocol.timeout_keep_alive = 1

    monkeypatch.setattr(BoundedProtocol, "connection_made", impatient)
    request = b"GET /healthz HTTP/1.1\r\nHost: x\r\n" + fields + b"\r\n"
    async with _connected(service.port, request) as (reader, writer):
        await reader.readuntil(b"}")  # so that the answer is complete
        ended = asyncio.create_task(_ends(reader))
        while not ended.done():
            with contextlib.suppress(ConnectionError):
                writer.write(later)
                await writer.drain()
            await asyncio.wait([ended], timeout=0.1)
        assert await ended == b""


@pytest.mark.parametrize(
    ("requests", "later"),
    [
        (b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 8, b""),
        (b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n", b""),
        (b"GET /openapi.json HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", b""),
        (b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n", b"\0"),
    ],
    ids=["many answers", "the last answer", "the only answer", "an answer before a refusal"],
)
async def test_who_reads_no_answer_holds_no_connection(
    service: RunningService,
    held: list[BoundedProtocol],
    monkeypatch: pytest.MonkeyPatch,
    requests: bytes,
    later: bytes,
) -> None:
    monkeypatch.setattr(BoundedProtocol, "answer_timeout_s", 0.5)
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", service.port))
        await until(lambda: bool(held))
        held[0].timeout_keep_alive = 1
        client.sendall(requests)
        await until(lambda: held[0].transport.get_write_buffer_size() > 0)
        client.sendall(later)
        await until(lambda: held[0] not in held[0].connections)


async def test_who_has_read_a_long_answer_may_go_on(
    service: RunningService, held: list[BoundedProtocol], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BoundedProtocol, "answer_timeout_s", 2.0)
    request = b"GET /docs/swagger-ui-bundle.js HTTP/1.1\r\nHost: x\r\n\r\n"
    async with _connected(service.port, request) as (reader, _):
        await until(lambda: bool(held) and held[0].flow.write_paused)
        head = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(int(head.partition(b"content-length: ")[2].split()[0]))
        await _stays_open(reader, 2.5)


async def test_dripping_bytes_gains_no_time(
    service: RunningService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BoundedProtocol, "head_timeout_s", 0.3)
    async with _connected(service.port, b"GET /healthz HTTP/1.1\r\n") as (reader, writer):
        ended = asyncio.create_task(_ends(reader))
        while not ended.done():
            with contextlib.suppress(ConnectionError):
                writer.write(b"X: y\r\n")
                await writer.drain()
            await asyncio.wait([ended], timeout=0.02)
        assert b"200" not in await ended


async def test_profile_service_keeps_no_endless_head(service: RunningService) -> None:
    async with _connected(service.port, b"GET /healthz HTTP/1.1\r\n") as (reader, writer):
        ended = asyncio.create_task(_ends(reader))
        sent = 0
        while not ended.done() and sent < 50_000_000:
            with contextlib.suppress(ConnectionError):
                writer.write(b"X: " + b"y" * 8000 + b"\r\n")
                await writer.drain()
            sent += 8000
        await ended
        assert sent < 50_000_000


@pytest.mark.parametrize("before", [b"", b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"])
@pytest.mark.parametrize("fields", [1, 100], ids=["one field", "many fields"])
async def test_long_head_that_comes_at_once_is_refused(
    service: RunningService, fields: int, before: bytes
) -> None:
    field = b"X: " + b"y" * (BoundedProtocol.max_head_bytes // fields) + b"\r\n"
    head = b"GET /healthz HTTP/1.1\r\nHost: x\r\n" + field * fields + b"\r\n"
    async with _connected(service.port, before + head) as (reader, _):
        answer = await _ends(reader)
    assert (answer.count(b"200 OK"), answer.count(b"400 Bad Request")) == (0, 1)


async def test_idle_connection_and_a_long_stream_are_not_cut(
    service: RunningService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BoundedProtocol, "head_timeout_s", 0.2)
    async with service.client.stream(
        "GET", "/internal/revocations", headers=service.as_service
    ) as feed:
        lines = feed.aiter_lines()
        assert await anext(lines) == "event: ready"
        request = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
        async with _connected(service.port, request) as (reader, writer):
            await reader.readuntil(b"\r\n\r\n")
            await _stays_open(reader, 0.6)  # longer than a head may take
            writer.write(request)
            async with asyncio.timeout(5):
                assert b"200" in await reader.readuntil(b"\r\n\r\n")
        await service.sign_up()  # and the feed still stands
        assert not feed.is_closed


@pytest.mark.parametrize("begun", _BEGUN[:3], ids=_IDS[:3])
async def test_gateway_waits_so_long_for_a_handshake_and_no_longer(
    tmp_path: Path, begun: bytes
) -> None:
    async with running_gateway(tmp_path, handshake_timeout_s=0.2) as gateway:
        async with _connected(gateway.gateway.port, begun) as (reader, _):
            await _ends(reader)
        assert (await gateway.get("/healthz")).status_code == 200
