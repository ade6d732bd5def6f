"""What a conversation costs the gateway in memory, and a connection that is used rather than idle.

SQLite's page cache has a bound of its own; a long conversation fills it first, so that it is not
what grows. Then everybody writes to everybody once; then all people's further connections are
opened; then all of them get messages. The growth at each step, shared out, is what is reported.
"""

import asyncio
import gc
import itertools
import sys
from collections.abc import Sequence

import msgspec

from bench import wire
from bench.pairs import Client, open_client
from bench.people import Person
from bench.proc import rss_bytes
from bench.tool import Unexpected, main

__all__ = ["FootprintPlan", "FootprintResult"]

_IN_FLIGHT = 400
_SETTLED_S = 3.0
"""The gateway settles within a second or two what is stored."""


class FootprintPlan(msgspec.Struct, frozen=True, kw_only=True):
    """One measurement, on a gateway that has done nothing yet."""

    url: str
    server_pid: int
    people: list[Person]
    connections_each: int = 10
    filling_messages: int = 250_000
    messages_each: int = 20


class FootprintResult(msgspec.Struct, frozen=True, kw_only=True):
    """Growth of resident memory."""

    conversations: int
    bytes_a_conversation: float
    connections: int
    bytes_an_idle_connection: float
    """With everything that the people of these connections have."""
    bytes_a_use: float
    """What being used adds to a connection."""


class _Writer:
    """One person's connection: sends with some under way, and counts the acks."""

    def __init__(self) -> None:
        self._ids = wire.ClientIds("uuid7")
        self._due: list[bytes] = []
        self._unanswered = 0
        self._done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def open(self, url: str, person: Person) -> Client:
        """Connect."""
        self._client = await open_client(url, person.access_token, on_text=self._on_text)
        self._client.failed = self._fail
        return self._client

    async def send(self, recipients: Sequence[str]) -> None:
        """Send each of these people a message; returns when all are acknowledged."""
        self._due = [recipient.encode() for recipient in reversed(recipients)]
        self._done = asyncio.get_running_loop().create_future()
        self._send_more()
        await self._done

    def _send_more(self) -> None:
        frames = []
        while self._due and self._unanswered < _IN_FLIGHT:
            text = wire.message_text(len(self._due))
            frames.append(wire.send_frame(self._ids.next(), self._due.pop(), text))
            self._unanswered += 1
        if frames:
            self._client.write(b"".join(frames))

    def _on_text(self, payload: bytes, last: bool) -> None:
        if payload.startswith(b'{"type":"ack"'):
            self._unanswered -= 1
        elif payload.startswith(b'{"type":"error"'):
            raise Unexpected(payload.decode())
        if last and not self._done.done():
            self._send_more()
            if not self._unanswered:
                self._done.set_result(None)

    def _fail(self, error: Exception) -> None:
        if not self._done.done():
            self._done.set_exception(error)


async def _measure(plan: FootprintPlan) -> FootprintResult:
    gc.disable()
    ids = [person.user_id for person in plan.people]
    writers = [_Writer() for _ in plan.people]
    clients = [
        await writer.open(plan.url, person)
        for writer, person in zip(writers, plan.people, strict=True)
    ]
    await writers[0].send([ids[1]] * plan.filling_messages)
    before = await _settled_rss(plan)
    for person_id, writer in zip(ids, writers, strict=True):
        await writer.send([other for other in ids if other != person_id])
    talking = await _settled_rss(plan)
    further = [
        await open_client(plan.url, person.access_token)
        for person in plan.people
        for _ in range(plan.connections_each - 1)
    ]
    connected = await _settled_rss(plan)
    for writer, other in zip(writers, [*ids[1:], ids[0]], strict=True):
        await writer.send([other] * plan.messages_each)
    used = await _settled_rss(plan)
    for client in itertools.chain(clients, further):
        client.close()
    conversations = len(ids) * (len(ids) - 1) // 2
    return FootprintResult(
        conversations=conversations,
        bytes_a_conversation=(talking - before) / conversations,
        connections=len(further),
        bytes_an_idle_connection=(connected - talking) / len(further),
        bytes_a_use=(used - connected) / (len(further) + len(clients)),
    )


async def _settled_rss(plan: FootprintPlan) -> int:
    await asyncio.sleep(_SETTLED_S)
    return rss_bytes(plan.server_pid)


if __name__ == "__main__":
    sys.exit(main(FootprintPlan, _measure))
