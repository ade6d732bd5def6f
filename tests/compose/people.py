"""People who use the published ports: REST through httpx, the conversation through websockets."""

import asyncio
import collections
import contextlib
import json
import secrets
import ssl
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx
import websockets

UNASKED = frozenset({"presence", "typing", "receipt", "changed", "expiring", "draining"})
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
async def connected(
    url: str, person: Person, cursor: str | None = None, *, tls: ssl.SSLContext | None = None
) -> AsyncIterator[websockets.ClientConnection]:
    """A connection of `person` that the gateway has verified; what came after `cursor` follows."""
    async with websockets.connect(
        url, subprotocols=[websockets.Subprotocol("duet.v1")], proxy=None, ssl=tls
    ) as socket:
        frame = {"type": "connect", "access_token": person.access_token}
        await socket.send(json.dumps(frame | ({} if cursor is None else {"resume": cursor})))
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
    """Sends numbered texts in order, several in flight, and reconnects whenever it must.

    It keeps what a careful client keeps: the unacknowledged messages, to send again under the same
    ids. `acknowledged` maps a client id to its first ack.
    """

    def __init__(self, url: str, sender: Person, recipient: Person, in_flight: int = 8) -> None:
        self._url = url
        self._sender = sender
        self._recipient = recipient
        self._in_flight = in_flight
        self._progress = asyncio.Condition()
        self._enough = asyncio.Event()
        self.sent: list[str] = []
        self.acknowledged: dict[str, dict[str, Any]] = {}
        self.reconnects = 0

    async def send(self, ids: Sequence[str]) -> None:
        """Send just these, and return when all of them are acknowledged."""
        self.sent += ids
        self._enough.set()
        await self.keep_sending()

    async def keep_sending(self) -> None:
        """Send new messages until `finish`, and return when all of them are acknowledged.

        Raises:
            TimeoutError: the gateway has not come back for too long.
        """
        deadline = asyncio.get_running_loop().time() + RECONNECT_WITHIN_S
        while self._unacknowledged() or not self._enough.is_set():
            try:
                async with asyncio.timeout_at(deadline), connected(self._url, self._sender) as ws:
                    await self._converse(ws)
            except (OSError, websockets.WebSocketException) as error:
                if asyncio.get_running_loop().time() > deadline:
                    raise TimeoutError("the gateway has not come back") from error
                self.reconnects += 1
                await asyncio.sleep(RETRY_S)

    def finish(self) -> None:
        """Send nothing new from now on."""
        self._enough.set()

    async def more_acknowledgements(self, count: int) -> None:
        """Wait until so many more messages are acknowledged."""
        target = len(self.acknowledged) + count
        async with asyncio.timeout(RECONNECT_WITHIN_S), self._progress:
            await self._progress.wait_for(lambda: len(self.acknowledged) >= target)

    def _unacknowledged(self) -> list[str]:
        return [one for one in self.sent if one not in self.acknowledged]

    async def _converse(self, ws: websockets.ClientConnection) -> None:
        again = collections.deque(self._unacknowledged())
        in_flight = 0
        while True:
            while in_flight < self._in_flight and (again or not self._enough.is_set()):
                if not again:
                    again.append(f"message-{len(self.sent) + 1}")
                    self.sent.append(again[0])
                one = again.popleft()
                frame = {"type": "send", "id": one, "to": self._recipient.id, "text": one}
                await ws.send(json.dumps(frame))
                in_flight += 1
            if not in_flight:
                return
            await self._take_ack(ws)
            in_flight -= 1

    async def _take_ack(self, ws: websockets.ClientConnection) -> None:
        while (ack := json.loads(await ws.recv()))["type"] in UNASKED:
            pass
        if ack.get("retryable"):
            raise OSError(ack["code"])  # as a broken connection: all of it is sent again
        assert ack["type"] == "ack", ack
        self.acknowledged[ack["id"]] = ack
        async with self._progress:
            self._progress.notify_all()


class Listener:
    """Receives, and goes on from its cursor whenever it had to reconnect."""

    def __init__(self, url: str, person: Person) -> None:
        self._url = url
        self._person = person
        self._cursor: str | None = None
        self._news = asyncio.Condition()
        self.texts: list[str] = []
        """In the order of arrival."""
        self.connects = 0

    async def listen(self) -> None:
        """Receive until cancelled."""
        while True:
            with contextlib.suppress(OSError, websockets.WebSocketException):
                async with connected(self._url, self._person, self._cursor) as ws:
                    self.connects += 1
                    async for raw in ws:
                        await self._take(json.loads(raw))
            await asyncio.sleep(RETRY_S)

    async def received(self, count: int) -> None:
        """Wait until so many messages have arrived."""
        async with asyncio.timeout(RECONNECT_WITHIN_S), self._news:
            await self._news.wait_for(lambda: len(self.texts) >= count)

    async def _take(self, frame: dict[str, Any]) -> None:
        self._cursor = frame.get("cursor", self._cursor)
        if frame["type"] == "message":
            async with self._news:
                self.texts.append(frame["text"])
                self._news.notify_all()
