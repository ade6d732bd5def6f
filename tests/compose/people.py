"""People who use the published ports: REST through httpx, the conversation through websockets."""

import asyncio
import contextlib
import json
import secrets
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx
import websockets

RETRY_S = 0.2
RECONNECT_WITHIN_S = 60.0


@dataclass(frozen=True)
class Person:
    """Somebody who has signed up."""

    id: str
    username: str
    password: str = field(repr=False)
    access_token: str = field(repr=False)
    refresh_token: str = field(repr=False)


async def sign_up(http: httpx.AsyncClient, name: str) -> Person:
    """Create an account with a name that begins with `name`."""
    username, password = f"{name}.{secrets.token_hex(4)}", secrets.token_urlsafe(16)
    body = {"username": username, "password": password}
    answer = (await http.post("/v1/users", json=body)).raise_for_status().json()
    return Person(
        answer["user"]["id"], username, password, answer["access_token"], answer["refresh_token"]
    )


@contextlib.asynccontextmanager
async def connected(url: str, person: Person) -> AsyncIterator[websockets.ClientConnection]:
    """A connection of `person` that the gateway has verified."""
    async with websockets.connect(
        url, subprotocols=[websockets.Subprotocol("duet.v1")], proxy=None
    ) as socket:
        await socket.send(json.dumps({"type": "connect", "access_token": person.access_token}))
        reply = json.loads(await socket.recv())
        assert reply["type"] == "connected", reply
        assert reply["user"]["id"] == person.id
        yield socket


async def receive(socket: websockets.ClientConnection, kind: str) -> dict[str, Any]:
    """The next frame of this type; others are passed over."""
    async with asyncio.timeout(10):
        async for raw in socket:
            frame: dict[str, Any] = json.loads(raw)
            assert frame["type"] != "error", frame
            if frame["type"] == kind:
                return frame
    raise AssertionError(f"the connection closed before a {kind!r}")


class Sender:
    """Sends texts in order, several in flight, and reconnects until each is acknowledged.

    It keeps what a careful client keeps: the unacknowledged messages, to send again under the same
    ids. `acknowledged` maps a client id to its first ack.
    """

    def __init__(self, url: str, sender: Person, recipient: Person, in_flight: int = 8) -> None:
        self._url = url
        self._sender = sender
        self._recipient = recipient
        self._in_flight = in_flight
        self._progress = asyncio.Condition()
        self.acknowledged: dict[str, dict[str, Any]] = {}
        self.reconnects = 0

    async def send_all(self, ids: Sequence[str]) -> None:
        """Return when every message is acknowledged; the text of each is its id.

        Raises:
            TimeoutError: the gateway has not come back for too long.
        """
        deadline = asyncio.get_running_loop().time() + RECONNECT_WITHIN_S
        while waiting := [one for one in ids if one not in self.acknowledged]:
            try:
                async with asyncio.timeout_at(deadline), connected(self._url, self._sender) as ws:
                    await self._send_in_order(ws, waiting)
            except (OSError, websockets.WebSocketException) as error:
                if asyncio.get_running_loop().time() > deadline:
                    raise TimeoutError("the gateway has not come back") from error
                self.reconnects += 1
                await asyncio.sleep(RETRY_S)

    async def acknowledgements(self, at_least: int) -> None:
        """Wait until so many messages are acknowledged."""
        async with asyncio.timeout(RECONNECT_WITHIN_S), self._progress:
            await self._progress.wait_for(lambda: len(self.acknowledged) >= at_least)

    async def _send_in_order(self, ws: websockets.ClientConnection, waiting: Sequence[str]) -> None:
        for position, one in enumerate(waiting):
            await ws.send(self._frame(one))
            if position >= self._in_flight:
                await self._take_ack(ws)
        for _ in range(min(self._in_flight, len(waiting))):
            await self._take_ack(ws)

    async def _take_ack(self, ws: websockets.ClientConnection) -> None:
        ack = json.loads(await ws.recv())
        assert ack["type"] == "ack", ack
        self.acknowledged[ack["id"]] = ack
        async with self._progress:
            self._progress.notify_all()

    def _frame(self, one: str) -> str:
        return json.dumps({"type": "send", "id": one, "to": self._recipient.id, "text": one})
