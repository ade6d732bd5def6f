"""Everybody comes back at the same time."""

import asyncio
import base64
import json
import random
import secrets
import time

from websockets.frames import Frame, Opcode

from tests.faults.figures import Figure, Plan, percentile
from tests.faults.processes import UNHURRIED, Duet, Person, lasting, running_duet

__all__ = ["reconnect_storm"]

BACK_WITHIN_S = 15.0
SPREAD_S = 5.0


async def reconnect_storm(plan: Plan) -> list[Figure]:
    """The gateway is killed; all of its clients reconnect within five seconds."""
    people, devices = plan.of(50, 500), 10
    count = people * devices
    spread_s = SPREAD_S if plan.long else 1.0
    async with running_duet(plan.directory / "reconnect-storm", **UNHURRIED) as duet:
        users = await duet.sign_up_many(people)
        crowd = [_Client(duet, user) for user in users for _ in range(devices)]
        for start in range(0, count, 100):
            await asyncio.gather(*(client.connect() for client in crowd[start : start + 100]))
        await duet.kill("ws_gateway")
        await duet.start("ws_gateway")
        await duet.ready("ws_gateway")
        started, chance = time.monotonic(), random.Random(17)
        coming = [
            asyncio.create_task(client.come_back(chance.uniform(0, spread_s))) for client in crowd
        ]
        try:
            async with asyncio.timeout(60):
                took_s = await asyncio.gather(*coming)
        finally:
            all_back_s = time.monotonic() - started
            for client in crowd:
                client.leave()
        connected = await _largest_count(duet)
        tracebacks = duet.tracebacks()
    return [
        Figure(
            fault=f"reconnect storm: {count} in {spread_s:g} s",
            tries=1,
            counted=f"all {len(took_s)} verified and back after {all_back_s:.1f} s; each took "
            f"{percentile(took_s, 0.5) * 1000:.0f} ms (median), "
            f"{percentile(took_s, 0.99) * 1000:.0f} ms (p99); {connected:.0f} accepted by the new "
            f"process; {sum(client.failures for client in crowd)} attempts had to be repeated",
            passed=all_back_s < BACK_WITHIN_S and connected == count and not tracebacks,
        )
    ]


async def _largest_count(duet: Duet) -> float:
    return await duet.metric("duet_gateway_connects_total")


class _Client(asyncio.Protocol):
    """As little of a client as it takes: thousands must fit beside what is measured."""

    def __init__(self, duet: Duet, person: Person) -> None:
        self._duet = duet
        frame = json.dumps({"type": "connect", "access_token": person.access_token}).encode()
        key = base64.b64encode(secrets.token_bytes(16)).decode()
        self._hello = (
            f"GET /v1/ws HTTP/1.1\r\nHost: 127.0.0.1:{duet.gateway_port}\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Protocol: duet.v1\r\n\r\n".encode()
            + Frame(Opcode.TEXT, frame).serialize(mask=True)
        )
        self._transport: asyncio.Transport | None = None
        self._verified: asyncio.Future[None] | None = None
        self._lost = asyncio.Event()
        self._received = b""
        self.failures = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport, self._received = transport, b""
        transport.write(self._hello)

    def data_received(self, data: bytes) -> None:
        if self._verified is None or self._verified.done():
            return
        self._received += data
        if b'"type":"connected"' in self._received:
            self._verified.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost.set()
        if self._verified is not None and not self._verified.done():
            self._verified.set_exception(ConnectionResetError())

    async def connect(self) -> None:
        """Connect and be verified."""
        loop = asyncio.get_running_loop()
        self._verified = loop.create_future()
        await loop.create_connection(lambda: self, "127.0.0.1", self._duet.gateway_port)
        await self._verified

    async def come_back(self, after_s: float) -> float:
        """Reconnect, again and again until it works. Returns how long that took."""
        await self._lost.wait()
        await asyncio.sleep(after_s)
        started = time.monotonic()
        while True:
            try:
                await self.connect()
            except OSError:
                self.failures += 1
                await lasting(0.2)
            else:
                return time.monotonic() - started

    def leave(self) -> None:
        """Disconnect."""
        if self._transport is not None:
            self._transport.abort()
