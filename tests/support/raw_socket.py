"""A client that speaks WebSocket by hand, for what no decent client would send."""

import asyncio
import base64
import contextlib
import json
import secrets
import socket
from collections.abc import AsyncIterator

from websockets.frames import Frame, Opcode

__all__ = ["RawSocket"]

_WITHIN_S = 15.0


class RawSocket:
    """A TCP connection after the opening handshake. Reads only when told to."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    @contextlib.asynccontextmanager
    async def open(
        cls, url: str, connected: socket.socket | None = None
    ) -> AsyncIterator["RawSocket"]:
        """Connect and do the opening handshake; the TCP connection is aborted at the end."""
        host, _, rest = url.removeprefix("ws://").partition(":")
        port, _, path = rest.partition("/")
        if connected is None:
            reader, writer = await asyncio.open_connection(host, int(port))
        else:
            reader, writer = await asyncio.open_connection(sock=connected, limit=4096)
        try:
            key = base64.b64encode(secrets.token_bytes(16)).decode()
            writer.write(
                f"GET /{path} HTTP/1.1\r\nHost: {host}:{port}\r\nUpgrade: websocket\r\n"
                f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n"
                "Sec-WebSocket-Protocol: duet.v1\r\n\r\n".encode()
            )
            answer = await reader.readuntil(b"\r\n\r\n")
            assert answer.startswith(b"HTTP/1.1 101"), answer
            yield cls(reader, writer)
        finally:
            writer.transport.abort()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    @property
    def descriptor(self) -> int:
        """The socket's file descriptor, for another process to write to."""
        return int(self._writer.get_extra_info("socket").fileno())

    async def connect(self, access_token: str) -> None:
        """Send `connect` and read `connected`."""
        await self.send_text(json.dumps({"type": "connect", "access_token": access_token}))
        assert json.loads(bytes((await self.read_frame()).data))["type"] == "connected"

    async def send_text(self, text: str) -> None:
        """Send one text frame."""
        await self.send_frame(Opcode.TEXT, text.encode())

    async def send_frame(self, opcode: Opcode, data: bytes, *, fin: bool = True) -> None:
        """Send one frame, whatever is in it."""
        await self.send_bytes(Frame(opcode, data, fin).serialize(mask=True))

    async def send_bytes(self, data: bytes) -> None:
        """Send bytes; returns when the operating system or the transport has taken them."""
        self._writer.write(data)
        await self._writer.drain()

    def write(self, data: bytes) -> None:
        """Send bytes without waiting."""
        self._writer.write(data)

    async def read_frame(self) -> Frame:
        """Read one frame.

        Raises:
            asyncio.IncompleteReadError, ConnectionError: the server ended the connection.
        """
        async with asyncio.timeout(_WITHIN_S):
            first, length = await self._reader.readexactly(2)
            if length == 126:
                length = int.from_bytes(await self._reader.readexactly(2))
            elif length == 127:
                length = int.from_bytes(await self._reader.readexactly(8))
            return Frame(Opcode(first & 15), await self._reader.readexactly(length), first > 127)

    async def close_code(self) -> int:
        """Read until the server says `close`. Returns its code, 1006 when it never said one."""
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while (frame := await self.read_frame()).opcode is not Opcode.CLOSE:
                pass
            return int.from_bytes(frame.data[:2])
        return 1006

    async def ended(self) -> None:
        """Read until the server ends the TCP connection, without ever closing it here."""
        async with asyncio.timeout(_WITHIN_S):
            with contextlib.suppress(ConnectionError):
                while await self._reader.read(65536):
                    pass
