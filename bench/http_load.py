"""The load generator for the profile service: requests in a closed loop on keep-alive connections.

Each connection has one request in flight. Written on the bare transport, because an HTTP client
library makes some 700 requests a second on a core and would be the limit.
"""

import asyncio
import sys
import time
from collections.abc import Callable
from typing import Literal, cast

import msgspec

from bench.proc import CpuMeter, CpuShares
from bench.tool import Unexpected, main

__all__ = ["HttpPlan", "HttpResult"]

_HEAD = (
    "POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    "{authorization}Content-Length: {length}\r\n\r\n"
)


class HttpPlan(msgspec.Struct, frozen=True, kw_only=True):
    """One measurement: `bodies[n]` is what connection `n` posts, again and again.

    With `rotate`, a connection posts the refresh token of the last answer the next time.
    """

    port: int
    server_pid: int
    path: str
    authorization: str = ""
    bodies: list[str]
    rotate: bool = False
    warm_up_s: float = 0.7
    measured_s: float = 3.0
    expected: Literal['"active":true', '"refresh_token"']


class HttpResult(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it."""

    requests_per_s: float
    p50_us: float
    p99_us: float
    cpu: CpuShares


class _Grant(msgspec.Struct):
    refresh_token: str


class _Connection(asyncio.Protocol):
    def __init__(self, plan: HttpPlan, body: str, failed: Callable[[Exception], None]) -> None:
        self._plan = plan
        self._expected = plan.expected.encode()
        self._failed = failed
        self._received = b""
        self._request = b""
        self._grant = msgspec.json.Decoder(_Grant)
        self._set_body(body)
        self.sending = True
        self.idle = asyncio.get_running_loop().create_future()
        self.took_ns: list[int] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._send()

    def data_received(self, data: bytes) -> None:
        self._received = self._received + data if self._received else data
        head, separator, body = self._received.partition(b"\r\n\r\n")
        if not separator:
            return
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
        if len(body) < length:
            return
        if not head.startswith(b"HTTP/1.1 200") or self._expected not in body:
            self._failed(Unexpected(self._received[:500].decode()))
            return
        self.took_ns.append(time.perf_counter_ns() - self._sent_ns)
        self._received = b""
        if not self.sending:
            self.idle.set_result(None)
            self._transport.abort()
            return
        if self._plan.rotate:
            token = self._grant.decode(body).refresh_token
            self._set_body(f'{{"refresh_token":"{token}"}}')
        self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.idle.done():
            self._failed(Unexpected(f"connection lost: {exc}"))

    def _set_body(self, body: str) -> None:
        authorization = self._plan.authorization
        head = _HEAD.format(
            path=self._plan.path,
            authorization=f"Authorization: {authorization}\r\n" if authorization else "",
            length=len(body),
        )
        self._request = (head + body).encode()

    def _send(self) -> None:
        self._sent_ns = time.perf_counter_ns()
        self._transport.write(self._request)


async def _measure(plan: HttpPlan) -> HttpResult:
    loop = asyncio.get_running_loop()
    failed: asyncio.Future[None] = loop.create_future()

    def fail(error: Exception) -> None:
        if not failed.done():
            failed.set_exception(error)

    connections = [
        (
            await loop.create_connection(
                lambda body=body: _Connection(plan, body, fail),  # type: ignore[misc]
                "127.0.0.1",
                plan.port,
            )
        )[1]
        for body in plan.bodies
    ]
    await _pass(failed, plan.warm_up_s)
    for connection in connections:
        connection.took_ns.clear()
    started, meter = time.monotonic(), CpuMeter(plan.server_pid)
    await _pass(failed, plan.measured_s)
    took_ns = sorted(ns for connection in connections for ns in connection.took_ns)
    elapsed_s, cpu = time.monotonic() - started, meter.shares()
    for connection in connections:
        connection.sending = False
    await asyncio.wait_for(asyncio.gather(*(c.idle for c in connections)), timeout=10)
    return HttpResult(
        requests_per_s=len(took_ns) / elapsed_s,
        p50_us=took_ns[len(took_ns) // 2] / 1000,
        p99_us=took_ns[len(took_ns) * 99 // 100] / 1000,
        cpu=cpu,
    )


async def _pass(failed: "asyncio.Future[None]", seconds: float) -> None:
    await asyncio.wait({failed}, timeout=seconds)
    if failed.done():
        failed.result()


if __name__ == "__main__":
    sys.exit(main(HttpPlan, _measure))
