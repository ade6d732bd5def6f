"""A profile service that does not answer as agreed is unavailable, whatever it does instead."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from shared.ids import SessionId, UserId
from shared.introspection import TokenPair
from shared.revocation import HeldSession
from shared.service_auth import ServiceCredentials
from ws_gateway.adapters.profile_client import ProfileClient
from ws_gateway.metrics import Metrics
from ws_gateway.ports import ProfileServiceUnavailable

Ask = Callable[[ProfileClient], Awaitable[object]]

TOKENS = TokenPair("token")
ACTIVE = {"active": True, "sub": "u_1", "username": "ann", "sid": "s_1", "ver": 1, "exp": 5}


def answer(body: object, status: str = "200 OK", content_type: str = "application/json") -> bytes:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = f"HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {len(content)}"
    return head.encode() + b"\r\n\r\n" + content


@contextlib.asynccontextmanager
async def served(reply: bytes | None, timeout_s: float = 5) -> AsyncIterator[ProfileClient]:
    """A client of a service that says this to everybody, or nothing at all."""

    serving: set[asyncio.Task[None] | None] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.add(asyncio.current_task())
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            if reply is None:
                await reader.read()
            else:
                writer.write(reply)
                await writer.drain()
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    credentials = ServiceCredentials(b"s" * 32, "ws_gateway")
    client = ProfileClient(f"http://127.0.0.1:{port}", credentials, Metrics(), timeout_s=timeout_s)
    try:
        yield client
    finally:
        await client.close()
        server.close()
        await server.wait_closed()
        async with asyncio.timeout(5):
            await asyncio.gather(*(task for task in serving if task))


ASKS: dict[str, Ask] = {
    "verify": lambda client: client.verify(TOKENS),
    "username": lambda client: client.username(UserId("u_1")),
    "ended": lambda client: client.ended([HeldSession(SessionId("s_1"), UserId("u_1"), 1)]),
    "events": lambda client: anext(client.events(None)),
}


@pytest.mark.parametrize("ask", ASKS.values(), ids=ASKS)
@pytest.mark.parametrize(
    "reply",
    [
        answer({"detail": "who are you"}, "401 Unauthorized"),
        answer({}, "404 Not Found"),
        answer({}, "413 Content Too Large"),
        answer({}, "500 Internal Server Error"),
        answer({}, "503 Service Unavailable"),
        answer(b"", "301 Moved Permanently"),
        answer(b"not json"),
        answer(b"<html></html>", content_type="text/html"),
        answer({"users": 5, "ended": "x"}),
        answer(5),
        b"nonsense\r\n\r\n",
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{",
    ],
    ids=[
        "401", "404", "413", "500", "503", "301", "not-json", "html", "wrong-types", "number",
        "no-http", "hangs-up", "cut-off",
    ],
)  # fmt: skip
async def test_other_answers_mean_unavailable(ask: Ask, reply: bytes) -> None:
    async with served(reply) as client:
        with pytest.raises(ProfileServiceUnavailable):
            await ask(client)


@pytest.mark.parametrize("ask", list(ASKS.values())[:3], ids=list(ASKS)[:3])
async def test_silence_means_unavailable_in_time(ask: Ask) -> None:
    async with served(None, timeout_s=0.05) as client:
        with pytest.raises(ProfileServiceUnavailable):
            await ask(client)


@pytest.mark.parametrize("missing", ["sub", "username", "sid", "ver", "exp"])
async def test_active_introspection_must_be_whole(missing: str) -> None:
    verdict = {name: value for name, value in ACTIVE.items() if name != missing}
    async with served(answer([verdict])) as client:
        with pytest.raises(ProfileServiceUnavailable, match="lacks a field"):
            await client.verify(TOKENS)


@pytest.mark.parametrize("count", [0, 2])
async def test_wrong_number_of_introspections_is_not_believed(count: int) -> None:
    async with served(answer([ACTIVE] * count)) as client:
        with pytest.raises(ProfileServiceUnavailable, match="number"):
            await client.verify(TOKENS)


@pytest.mark.parametrize(
    "stream",
    [
        b"event: revocation\nid: 1\ndata: not json\n\n",
        b'event: revocation\nid: 1\ndata: {"kind":"unheard-of","user_id":"u_1"}\n\n',
        b'event: revocation\nid: 1\ndata: {"kind":"session"}\n\n',
    ],
    ids=["not-json", "unknown-kind", "no-user"],
)
async def test_event_that_cannot_be_read_breaks_the_feed_off(stream: bytes) -> None:
    async with served(answer(stream, content_type="text/event-stream")) as client:
        with pytest.raises(ProfileServiceUnavailable):
            async for _ in client.events("0"):
                pass


async def test_unknown_kinds_of_event_are_passed_over() -> None:
    stream = b": keep-alive\n\nevent: news\nid: 1\ndata: {}\n\nevent: ready\nid: 2\ndata: {}\n\n"
    async with served(answer(stream, content_type="text/event-stream")) as client:
        events = [event_id async for event_id, _ in client.events("0")]
    assert events == ["2"]
