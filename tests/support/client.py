"""A WebSocket client for tests: sends frames as dictionaries, and expects the next one by type."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Collection
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Origin, Subprotocol

__all__ = ["Client", "Frame"]

Frame = dict[str, Any]

_WITHIN_S = 10.0
_UNASKED = frozenset({"presence", "typing", "receipt", "changed", "expiring"})
"""Frames that may come in between; a test that wants one expects it by name."""


class Client:
    """One connection. Make it with `open`, or `talking` for one that is verified already."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.connected: Frame = {}
        """The `connected` frame, once there was one."""
        self._passed: list[Frame] = []

    @classmethod
    @contextlib.asynccontextmanager
    async def open(
        cls,
        url: str,
        *,
        origin: str | None = None,
        subprotocol: str | None = "duet.v1",
        authorization: str | None = None,
        **options: Any,
    ) -> AsyncIterator["Client"]:
        """Connect, not yet verified; closed at the end."""
        subprotocols = None if subprotocol is None else [Subprotocol(subprotocol)]
        headers = {} if authorization is None else {"Authorization": authorization}
        async with connect(
            url,
            proxy=None,
            compression=None,
            origin=None if origin is None else Origin(origin),
            subprotocols=subprotocols,
            additional_headers=headers,
            open_timeout=_WITHIN_S,
            ping_interval=None,
            close_timeout=1,
            **options,
        ) as socket:
            yield cls(socket)

    @classmethod
    @contextlib.asynccontextmanager
    async def talking(cls, url: str, access_token: str, **options: Any) -> AsyncIterator["Client"]:
        """Connect and be verified; closed at the end."""
        async with cls.open(url, **options) as client:
            await client.connect(access_token)
            yield client

    async def connect(self, access_token: str, **fields: Any) -> Frame:
        """Send `connect`. Returns the `connected` frame."""
        await self.send(type="connect", access_token=access_token, **fields)
        self.connected = await self.expect("connected")
        return self.connected

    async def say(self, to: str, text: str, client_id: str) -> Frame:
        """Send a message. Returns its ack."""
        await self.send(type="send", id=client_id, to=to, text=text)
        return await self.expect("ack", id=client_id)

    async def send(self, **frame: Any) -> None:
        """Send one frame."""
        await self.socket.send(json.dumps(frame))

    async def send_raw(self, data: str | bytes, *, text: bool | None = None) -> None:
        """Send one frame as it stands."""
        await self.socket.send(data, text=text)

    async def expect(self, kind: str, *, past: Collection[str] = (), **fields: Any) -> Frame:
        """Return the next frame, which must be of this type and have these fields.

        Frames that come unasked, such as presence, and those of the types in `past`, are passed
        over unless one is what is expected. Unasked ones are remembered: nothing says whether they
        come before an answer or after it.
        """
        for remembered in self._passed:
            if remembered["type"] == kind and fields.items() <= remembered.items():
                self._passed.remove(remembered)
                return remembered
        async with asyncio.timeout(_WITHIN_S):
            while True:
                frame: Frame = json.loads(await self.socket.recv())
                if frame["type"] == kind or frame["type"] not in {*_UNASKED, *past}:
                    break
                if frame["type"] in _UNASKED:
                    self._passed.append(frame)
        shown = {name: frame.get(name) for name in fields}
        assert (frame["type"], shown) == (kind, fields), frame
        return frame

    async def expect_error(self, code: str, **fields: Any) -> Frame:
        """Return the next frame, which must be an error with this code."""
        return await self.expect("error", code=code, **fields)

    async def nothing_more(self, to_oneself: str) -> None:
        """Check that no frame waits: the answer to a request made now must be the next one."""
        await self.send(type="send", id="nothing-more", to=to_oneself, text="?")
        await self.expect_error("recipient_is_sender", id="nothing-more")

    async def ask(self, kind: str, **request: Any) -> Frame:
        """Send a request of this type. Returns its answer, which has the same type."""
        await self.send(type=kind, id=f"ask-{kind}", **request)
        return await self.expect(kind, id=f"ask-{kind}")

    async def collect(self, upto: str) -> list[Frame]:
        """Read up to the next frame of this type. Returns all that came before, whatever it is."""
        collected: list[Frame] = []
        async with asyncio.timeout(3 * _WITHIN_S):
            while (frame := json.loads(await self.socket.recv()))["type"] != upto:
                collected.append(frame)
        return collected

    async def gather(self, **counts: int) -> dict[str, list[Frame]]:
        """Read until so many frames of each of these types have come, in whatever order."""
        gathered: dict[str, list[Frame]] = {kind: [] for kind in counts}
        async with asyncio.timeout(3 * _WITHIN_S):
            while any(len(gathered[kind]) < count for kind, count in counts.items()):
                frame = json.loads(await self.socket.recv())
                gathered.setdefault(frame["type"], []).append(frame)
        return gathered

    async def arrived(self) -> list[Frame]:
        """Return all that was sent to this connection until now and was not read yet."""
        await self.send(type="typing", to=3)  # no such frame: its refusal marks the end
        return await self.collect("error")

    async def closed(self) -> tuple[int, str]:
        """Wait until the connection is closed, with nothing more said.

        Returns the server's close code and reason; 1006 when it said none.
        """
        async with asyncio.timeout(_WITHIN_S):
            try:
                while True:
                    frame = json.loads(await self.socket.recv())
                    assert frame["type"] in _UNASKED, frame
            except ConnectionClosed as closed:
                received = closed.rcvd
        return (1006, "") if received is None else (received.code, received.reason)

    def vanish(self) -> None:
        """Break the connection off without a word."""
        self.socket.transport.abort()
