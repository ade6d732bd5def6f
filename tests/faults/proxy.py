"""A TCP proxy that misbehaves on demand: delays, slices, stalls and cuts what goes through it."""

import asyncio
import collections
import contextlib
import socket
from collections.abc import AsyncIterator

__all__ = ["Proxy"]

_CHUNK_BYTES = 65_536


class Proxy:
    """Forwards connections of its port to another; faults apply to live connections too.

    Of several targets, each new connection goes to the next one that takes it.
    """

    def __init__(self, *target_ports: int) -> None:
        self._target_ports = collections.deque(target_ports)
        self._connections: set[tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self.delay_s = 0.0
        self.slice_bytes = 0
        """Write at most so many bytes at once, and let the other end read them one by one."""
        self.cut_when_asked_for: bytes | None = None
        """Cut every connection over which a client sends this."""
        self.refusing = False
        """Take no new connection."""
        self.receive_buffer_bytes: int | None = None
        """What the kernel takes of the target before it is read; else as much as it likes."""
        self.port = 0

    @classmethod
    @contextlib.asynccontextmanager
    async def to(cls, *target_ports: int, port: int = 0) -> AsyncIterator["Proxy"]:
        """Listen while the context lasts, on any free port unless one is named."""
        proxy = cls(*target_ports)
        server = await asyncio.start_server(proxy._accept, "127.0.0.1", port, backlog=1024)
        proxy.port = server.sockets[0].getsockname()[1]
        try:
            yield proxy
        finally:
            server.close()
            proxy.cut()
            for task in list(proxy._tasks):
                task.cancel()
            await asyncio.gather(*proxy._tasks, return_exceptions=True)

    def cut(self) -> int:
        """Break every connection off now. Returns how many there were."""
        connections, self._connections = self._connections, set()
        for ends in connections:
            for end in ends:
                end.transport.abort()
        return len(connections)

    def stall(self) -> None:
        """Swallow nothing and answer nothing, while every connection stays open: half-open TCP."""
        self._flowing.clear()

    def flow(self) -> None:
        """End a stall."""
        self._flowing.set()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        target = None if self.refusing else await self._connect()
        if target is None:
            writer.transport.abort()
            return
        there, out = target
        ends = (writer, out)
        self._connections.add(ends)
        for source, sink, asks in ((reader, out, True), (there, writer, False)):
            task = asyncio.create_task(self._pump(source, sink, ends, asks))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        for _ in range(len(self._target_ports)):
            port = self._target_ports[0]
            self._target_ports.rotate(-1)
            with contextlib.suppress(OSError):
                return await asyncio.open_connection(sock=await self._socket_to(port))
        return None

    async def _socket_to(self, port: int) -> socket.socket:
        connecting = socket.socket()
        try:
            connecting.setblocking(False)
            if self.receive_buffer_bytes:
                connecting.setsockopt(
                    socket.SOL_SOCKET, socket.SO_RCVBUF, self.receive_buffer_bytes
                )
            await asyncio.get_running_loop().sock_connect(connecting, ("127.0.0.1", port))
        except BaseException:
            connecting.close()
            raise
        return connecting

    async def _pump(
        self,
        source: asyncio.StreamReader,
        sink: asyncio.StreamWriter,
        ends: tuple[asyncio.StreamWriter, asyncio.StreamWriter],
        asks: bool,
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(_CHUNK_BYTES):
                await self._flowing.wait()
                if asks and self.cut_when_asked_for and self.cut_when_asked_for in data:
                    break
                if self.delay_s:
                    await asyncio.sleep(self.delay_s)
                for start in range(0, len(data), self.slice_bytes or len(data)):
                    sink.write(data[start : start + (self.slice_bytes or len(data))])
                    await sink.drain()
                    if self.slice_bytes:
                        await asyncio.sleep(0)
        await self._flowing.wait()  # a stalled network does not carry the end either
        self._connections.discard(ends)
        for end in ends:
            end.transport.abort()
