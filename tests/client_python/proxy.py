"""A TCP proxy between a client and the gateway that spoils what a test tells it to spoil."""

import asyncio
import contextlib
import enum
import json
import urllib.parse
from collections.abc import AsyncIterator, Callable
from typing import Any

__all__ = ["Fault", "Proxy", "kind_is"]

Frame = dict[str, Any]


class Fault(enum.Enum):
    """What happens to one frame."""

    NONE = enum.auto()
    CUT_BEFORE = enum.auto()
    """The connection breaks before the frame gets through."""
    CUT_WITHIN = enum.auto()
    """Half of the frame gets through, then the connection breaks."""
    CUT_AFTER = enum.auto()
    DOUBLE = enum.auto()
    """The frame gets through twice."""
    STALL = enum.auto()
    """From this frame on nothing gets through in this direction; the connection stays."""


Rule = Callable[[Frame], Fault]


class Proxy:
    """Forwards each connection to `target`. A rule sees every frame once the handshake is over.

    Rules are asked once for each frame: one that spoils "the first ack" counts for itself.
    """

    def __init__(self, target: str) -> None:
        self.target = target
        self.from_client: Rule = lambda _: Fault.NONE
        self.from_gateway: Rule = lambda _: Fault.NONE
        self.connections = 0
        self.seen: list[Frame] = []
        """Every frame that clients sent, in order."""
        self._port = 0
        self._writers: set[asyncio.StreamWriter] = set()
        self._clients: set[asyncio.StreamWriter] = set()

    @property
    def url(self) -> str:
        """Where a client connects."""
        return f"ws://127.0.0.1:{self._port}/v1/ws"

    @classmethod
    @contextlib.asynccontextmanager
    async def before(cls, target: str) -> AsyncIterator["Proxy"]:
        """Listen on a free port while the context lasts."""
        proxy = cls(target)
        server = await asyncio.start_server(proxy._serve, "127.0.0.1", 0)
        proxy._port = server.sockets[0].getsockname()[1]
        try:
            yield proxy
        finally:
            server.close()
            proxy.cut()
            await server.wait_closed()

    def say(self, **frame: Any) -> None:
        """Say something to every client in the gateway's name."""
        payload = json.dumps(frame).encode()
        assert len(payload) < 126
        for client in self._clients:
            client.write(bytes((0x81, len(payload))) + payload)

    def cut(self) -> None:
        """Break every connection."""
        for writer in self._writers:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        address = urllib.parse.urlsplit(self.target)
        try:
            ahead = await asyncio.open_connection(address.hostname, address.port)
        except OSError:
            writer.transport.abort()
            return
        mine = {writer, ahead[1]}
        self._writers |= mine
        self._clients.add(writer)
        ways = [
            asyncio.create_task(self._forward(reader, ahead[1], self._of_client)),
            asyncio.create_task(self._forward(ahead[0], writer, self._of_gateway)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.wait(ways)
            for each in mine:
                each.transport.abort()
            self._writers -= mine
            self._clients.discard(writer)

    def _of_client(self, frame: Frame) -> Fault:
        self.seen.append(frame)
        return self.from_client(frame)

    def _of_gateway(self, frame: Frame) -> Fault:
        return self.from_gateway(frame)

    async def _forward(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, rule: Rule
    ) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            writer.write(await reader.readuntil(b"\r\n\r\n"))
            while True:
                raw, frame = await _read_frame(reader)
                fault = Fault.NONE if frame is None else rule(frame)
                match fault:
                    case Fault.CUT_BEFORE:
                        return
                    case Fault.CUT_WITHIN:
                        writer.write(raw[: len(raw) // 2])
                        await writer.drain()
                        return
                    case Fault.STALL:
                        await asyncio.get_running_loop().create_future()
                    case Fault.DOUBLE:
                        raw += raw
                writer.write(raw)
                await writer.drain()
                if fault is Fault.CUT_AFTER:
                    return


def kind_is(kind: str, fault: Fault, times: int = 1) -> Rule:
    """Spoil the first frames of a kind."""
    left = times

    def rule(frame: Frame) -> Fault:
        nonlocal left
        if frame["type"] == kind and left:
            left -= 1
            return fault
        return Fault.NONE

    return rule


async def _read_frame(reader: asyncio.StreamReader) -> tuple[bytes, Frame | None]:
    """Read a frame (RFC 6455, section 5.2): its bytes, and what it says if it is text."""
    raw = await reader.readexactly(2)
    length = raw[1] & 0x7F
    if length >= 126:
        raw += (extended := await reader.readexactly(2 if length == 126 else 8))
        length = int.from_bytes(extended)
    mask = b"\0\0\0\0"
    if raw[1] & 0x80:
        raw += (mask := await reader.readexactly(4))
    payload = await reader.readexactly(length)
    if raw[0] & 0x0F != 1:
        return raw + payload, None
    text = bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))
    return raw + payload, json.loads(text)
