"""Somebody who keeps books: what was acknowledged, what arrived, and what must never happen.

A member behaves as the protocol asks a client to: unanswered messages are sent again with the same
id after every reconnect, in order, and events are resumed from the last cursor that was seen.
"""

import asyncio
import collections
import contextlib
import datetime
import itertools
import json
import time
from collections.abc import Sequence
from typing import Any

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException
from websockets.typing import Subprotocol

from shared.ids import UserId, conversation_id
from tests.faults.processes import Person, lasting

__all__ = ["Member"]

_RECONNECT_S = 0.02
_LOOK_AGAIN_S = 0.25
_decode = msgspec.json.Decoder(dict[str, Any]).decode


class Member:
    """One person at one device, who never gives up.

    Of several URLs, the next is tried whenever a connection ended or could not be made.
    """

    def __init__(
        self,
        urls: Sequence[str],
        person: Person,
        peer: Person,
        *,
        window: int,
        pause_s: float = 0.0,
    ) -> None:
        self._urls = itertools.cycle(urls)
        self.person = person
        self.peer = peer
        self.conversation = conversation_id(UserId(person.user_id), UserId(peer.user_id))
        self.window = window
        self.pause_s = pause_s
        """Between two new messages."""
        self.connected_to: str | None = None
        self.sending = False
        self.here = asyncio.Event()
        self.pending: dict[str, int] = {}
        self.acked: dict[str, int] = {}
        """Client id to seq."""
        self.acked_at: list[float] = []
        self.latencies_s: list[float] = []
        self.arrived: dict[int, str] = {}
        """The peer's messages: seq to text, in the order of arrival."""
        self.arrived_at = 0.0
        self.slowest_arrival_s = 0.0
        """The longest time from a message's `sent_at` to its arrival."""
        self.doubled = 0
        self.disordered = 0
        self.refused: set[str] = set()
        """Client ids that were refused and sent again: those behind may have overtaken them."""
        self.errors: collections.Counter[str] = collections.Counter()
        self.resyncs = 0
        self.connects = 0
        self._socket: ClientConnection | None = None
        self._sent_at: dict[str, float] = {}
        self._number = 0
        self._next_at = 0.0
        self._cursor: str | None = None
        self._last_seq = 0

    def begin(self, after_s: float = 0.0) -> None:
        """Send from then on."""
        self._next_at = time.monotonic() + after_s
        self.sending = True

    async def run(self) -> None:
        """Stay connected until cancelled."""
        while True:
            with contextlib.suppress(OSError, WebSocketException, TimeoutError, _Refused):
                url = next(self._urls)
                async with connect(
                    url,
                    proxy=None,
                    compression=None,
                    subprotocols=[Subprotocol("duet.v1")],
                    open_timeout=5,
                    ping_interval=None,
                    close_timeout=0.1,
                ) as self._socket:
                    self.connected_to = url
                    await self._talk(self._socket)
            self.here.clear()
            self.connected_to = None
            await lasting(_RECONNECT_S)

    def hang_up(self) -> None:
        """Break the connection off; it is made again at once."""
        if self._socket is not None:
            self._socket.transport.abort()

    async def _talk(self, socket: ClientConnection) -> None:
        resume = {} if self._cursor is None else {"resume": self._cursor}
        frame = {"type": "connect", "access_token": self.person.access_token, **resume}
        await socket.send(json.dumps(frame))
        async with asyncio.timeout(10):
            first = _decode(await socket.recv())
        if first["type"] != "connected":
            self.errors[str(first.get("code"))] += 1
            raise _Refused
        self._cursor = first["cursor"]
        self.connects += 1
        self.here.set()
        for client_id in self.pending:
            await self._send(socket, client_id)
        while True:
            while self._may_send():
                self._number += 1
                client_id = f"{self.person.username}-{self._number}"
                self.pending[client_id] = self._number
                self._next_at = time.monotonic() + self.pause_s
                await self._send(socket, client_id)
            try:
                async with asyncio.timeout(min(self.pause_s, _LOOK_AGAIN_S) or _LOOK_AGAIN_S):
                    frame = _decode(await socket.recv())
            except TimeoutError:
                continue
            await self._take(socket, frame)

    def _may_send(self) -> bool:
        return (
            self.sending
            and len(self.pending) < self.window
            and (not self.pause_s or time.monotonic() >= self._next_at)
        )

    async def _send(self, socket: ClientConnection, client_id: str) -> None:
        self._sent_at[client_id] = time.monotonic()
        text = client_id
        await socket.send(
            json.dumps({"type": "send", "id": client_id, "to": self.peer.user_id, "text": text})
        )

    async def _take(self, socket: ClientConnection, frame: dict[str, Any]) -> None:
        match frame["type"]:
            case "ack":
                self._ack(frame["id"], frame["seq"])
            case "message":
                self._message(frame)
            case "resumed":
                self._cursor = frame["cursor"]
            case "resync":
                self.resyncs += 1
            case "error":
                self.errors[frame["code"]] += 1
                if frame.get("retryable") and frame.get("id") in self.pending:
                    self.refused.add(frame["id"])
                    await lasting(min(0.1, frame.get("retry_after_ms", 0) / 1000))
                    await self._send(socket, frame["id"])

    def _ack(self, client_id: str, seq: int) -> None:
        now = time.monotonic()
        self.pending.pop(client_id, None)
        if self.acked.setdefault(client_id, seq) != seq:
            self.doubled += 1
        self.acked_at.append(now)
        self.latencies_s.append(now - self._sent_at.pop(client_id, now))

    def _message(self, frame: dict[str, Any]) -> None:
        self._cursor = frame["cursor"]
        seq = frame["seq"]
        if frame["from"] == self.person.user_id:  # replayed: sent by this device before a fault
            if self.acked.get(frame["id"], seq) != seq:
                self.doubled += 1
            return
        self.doubled += seq in self.arrived
        self.disordered += seq < self._last_seq
        self._last_seq = max(seq, self._last_seq)
        self.arrived[seq] = frame["text"]
        self.arrived_at = time.monotonic()
        waited_s = time.time() - datetime.datetime.fromisoformat(frame["sent_at"]).timestamp()
        self.slowest_arrival_s = max(waited_s, self.slowest_arrival_s)


class _Refused(Exception):
    """The gateway did not accept the connection."""
