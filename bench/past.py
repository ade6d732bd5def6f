"""Messages of the past: fill a conversation, unless it is long, then catch up or page through it.

`resume` counts from opening the connection to the frame `resumed`, with every message checked.
"""

import asyncio
import random
import sys
import time

import msgspec

from bench import wire
from bench.pairs import Client, open_client
from bench.proc import rss_bytes
from bench.tool import Unexpected, main

__all__ = ["PastPlan", "PastResult"]

_TIMEOUT_S = 170.0
_IN_FLIGHT = 400
_PAGE_MESSAGES = 50


class PastPlan(msgspec.Struct, frozen=True, kw_only=True):
    """One measurement, in a conversation of two people who have none yet, or one of `messages`."""

    url: str
    server_pid: int
    sender_token: str
    recipient_token: str
    sender_id: str
    recipient_id: str
    messages: int
    write: bool = True
    resume: bool
    """Only what was written now can be resumed."""
    pages: int


class PastResult(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it; zeros for what was not asked for."""

    written_per_s: float
    resume_s: float
    rss_growth_bytes: int
    """Of the server during the resume."""
    page_p50_us: float
    page_p99_us: float


class _Connected(msgspec.Struct):
    cursor: str


async def _measure(plan: PastPlan) -> PastResult:
    async with asyncio.timeout(_TIMEOUT_S):
        recipient = await open_client(plan.url, plan.recipient_token)
        cursor = msgspec.json.decode(await recipient.connected, type=_Connected).cursor
        recipient.close()
        started, written_per_s = time.monotonic(), 0.0
        if plan.write:
            await _write(plan)
            written_per_s = plan.messages / (time.monotonic() - started)
        rss = rss_bytes(plan.server_pid)
        resume_s = await _resume(plan, cursor) if plan.resume else 0.0
        rss_growth = rss_bytes(plan.server_pid) - rss
        took_us = sorted(await _page(plan)) if plan.pages else [0.0]
        return PastResult(
            written_per_s=written_per_s,
            resume_s=resume_s,
            rss_growth_bytes=rss_growth if plan.resume else 0,
            page_p50_us=took_us[len(took_us) // 2],
            page_p99_us=took_us[len(took_us) * 99 // 100],
        )


async def _write(plan: PastPlan) -> None:
    """Send all messages, some in flight, and wait for the acks."""
    ids, recipient = wire.ClientIds("uuid7"), plan.recipient_id.encode()
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    sent = acked = ready = 0

    def send(count: int) -> None:
        nonlocal sent
        frames = [
            wire.send_frame(ids.next(), recipient, wire.message_text(number))
            for number in range(sent, sent + count)
        ]
        sent += count
        client.write(b"".join(frames))

    def on_text(payload: bytes, last: bool) -> None:
        nonlocal acked, ready
        if payload.startswith(b'{"type":"ack"'):
            acked += 1
            ready += 1
        elif payload.startswith(b'{"type":"error"'):
            raise Unexpected(payload.decode())
        if last:
            count, ready = min(ready, plan.messages - sent), 0
            if count:
                send(count)
            if acked == plan.messages and not done.done():
                done.set_result(None)

    client = await open_client(plan.url, plan.sender_token, on_text=on_text)
    client.failed = lambda error: None if done.done() else done.set_exception(error)
    send(min(_IN_FLIGHT, plan.messages))
    await done
    client.close()


async def _resume(plan: PastPlan, cursor: str) -> float:
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    received = 0

    def on_text(payload: bytes, _last: bool) -> None:
        nonlocal received
        if wire.message_text(received) in payload:
            received += 1
        elif payload.startswith(b'{"type":"resumed"') and received == plan.messages:
            done.set_result(None)
        elif not payload.startswith(b'{"type":"presence"'):
            raise Unexpected(f"after {received} messages: {payload.decode()}")

    started = time.monotonic()
    client = await open_client(plan.url, plan.recipient_token, resume=cursor, on_text=on_text)
    client.failed = lambda error: None if done.done() else done.set_exception(error)
    await done
    took_s = time.monotonic() - started
    client.close()
    return took_s


async def _page(plan: PastPlan) -> list[float]:
    """Ask for pages at random places, one at a time. Returns microseconds."""
    answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def on_text(payload: bytes, _last: bool) -> None:
        if not payload.startswith(b'{"type":"presence"') and not answer.done():
            answer.set_result(payload)

    client = await open_client(plan.url, plan.recipient_token, on_text=on_text)
    took_us = []
    for number in range(plan.pages):
        before = random.randint(_PAGE_MESSAGES + 1, plan.messages)
        started_ns = time.perf_counter_ns()
        _ask(client, number, plan.sender_id, before)
        payload = await answer
        took_us.append((time.perf_counter_ns() - started_ns) / 1000)
        if wire.message_text(before - 2) not in payload:
            raise Unexpected(payload[:300].decode())
        answer = asyncio.get_running_loop().create_future()
    client.close()
    return took_us


def _ask(client: Client, number: int, peer_id: str, before: int) -> None:
    client.write(
        wire.masked_text(
            b'{"type":"history","id":"%d","with":"%b","before":%d,"limit":%d}'
            % (number, peer_id.encode(), before, _PAGE_MESSAGES)
        )
    )


if __name__ == "__main__":
    sys.exit(main(PastPlan, _measure))
