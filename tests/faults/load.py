"""A load that keeps books: what was acknowledged, what arrived, and what must never happen.

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
from collections.abc import AsyncIterator, Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException
from websockets.typing import Subprotocol

from shared.ids import UserId, conversation_id
from tests.faults.books import Books, BySender, StoredRow, holes, rows_in_sqlite
from tests.faults.processes import Person, lasting
from tests.support.waiting import until

__all__ = ["Load", "Member", "Pair", "talking", "talking_pairs"]

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


class Pair(msgspec.Struct, frozen=True):
    """Two people who talk to each other."""

    one: Member
    other: Member

    @property
    def members(self) -> tuple[Member, Member]:
        """Both."""
        return self.one, self.other


class Load:
    """Pairs that talk while the context of `talking_pairs` lasts."""

    def __init__(self, pairs: Sequence[Pair]) -> None:
        self.pairs = pairs
        self.members = [member for pair in pairs for member in pair.members]

    @property
    def acknowledged(self) -> int:
        """How many messages have their ack."""
        return sum(len(member.acked) for member in self.members)

    async def more_acknowledged(self, count: int, within_s: float = 30.0) -> None:
        """Wait for so many further acks."""
        goal = self.acknowledged + count
        await until(lambda: self.acknowledged >= goal, within_s=within_s)

    async def everybody_acknowledged_since(self, moment: float, within_s: float = 30.0) -> float:
        """Wait until each member had an ack after a moment. Returns the seconds that took."""
        await until(
            lambda: all(m.acked_at and m.acked_at[-1] > moment for m in self.members),
            within_s=within_s,
        )
        return time.monotonic() - moment

    async def everybody_heard_since(self, moment: float, within_s: float = 30.0) -> float:
        """Wait until each member got a message after a moment. Returns the seconds that took."""
        await until(lambda: all(m.arrived_at > moment for m in self.members), within_s=within_s)
        return time.monotonic() - moment

    @property
    def slowest_arrival_s(self) -> float:
        """The longest that a message took to arrive."""
        return max(member.slowest_arrival_s for member in self.members)

    async def settle(self, within_s: float = 20.0) -> None:
        """Stop sending, and give what is owed time to arrive."""
        for member in self.members:
            member.sending = False
        with contextlib.suppress(TimeoutError):
            await until(
                lambda: all(
                    not a.pending and len(b.arrived) >= len(a.acked) for a, b in self._directions()
                ),
                within_s=within_s,
            )

    def books(self, database: Path) -> Books:
        """Compare what was acknowledged with what arrived and with what is on the disk."""
        return self.compare(*rows_in_sqlite(database))

    def compare(self, found: Iterable[StoredRow], integrity: str) -> Books:
        """Compare what was acknowledged with what arrived and with what is stored."""
        stored: BySender = collections.defaultdict(list)
        for row in sorted(found):
            stored[row.conversation, row.sender].append((row.seq, row.client_id))
        lost = doubled = disordered = 0
        for sender, recipient in self._directions():
            rows = stored.get((sender.conversation, sender.person.user_id), [])
            seqs = {client_id: seq for seq, client_id in rows}
            doubled += len(rows) - len(seqs) + sender.doubled
            numbers = [int(client_id.rpartition("-")[2]) for _, client_id in rows]
            disordered += sender.disordered + sum(
                later < earlier for earlier, later in itertools.pairwise(numbers)
            )
            for client_id, seq in sender.acked.items():
                lost += seqs.get(client_id) != seq or recipient.arrived.get(seq) != client_id
        lost += sum(holes(stored, pair.one.conversation) for pair in self.pairs)
        return Books(lost, doubled, disordered, self.acknowledged, integrity)

    def _directions(self) -> Iterable[tuple[Member, Member]]:
        for pair in self.pairs:
            yield pair.one, pair.other
            yield pair.other, pair.one


@contextlib.asynccontextmanager
async def talking_pairs(
    url: str, people: Sequence[Person], *, window: int = 8, pause_s: float = 0.0
) -> AsyncIterator[Load]:
    """Connect people two by two, and let them talk once everybody is here."""
    pairs = [
        Pair(
            Member([url], one, other, window=window, pause_s=pause_s),
            Member([url], other, one, window=window, pause_s=pause_s),
        )
        for one, other in zip(people[::2], people[1::2], strict=True)
    ]
    async with talking(pairs) as load:
        yield load


@contextlib.asynccontextmanager
async def talking(pairs: Sequence[Pair]) -> AsyncIterator[Load]:
    """Let pairs connect, and talk once everybody is here."""
    load = Load(pairs)
    tasks = [asyncio.create_task(member.run()) for member in load.members]
    try:
        async with asyncio.timeout(30):
            for member in load.members:
                await member.here.wait()
        for number, member in enumerate(load.members):
            member.begin(after_s=member.pause_s * number / len(load.members))
        yield load
    finally:
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    for result in results:
        if isinstance(result, Exception):
            raise result
