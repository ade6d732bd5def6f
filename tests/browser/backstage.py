"""What happens behind the page: people who are there without a browser, and what they wrote."""

import asyncio
import contextlib
import itertools
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import msgspec
from playwright.async_api import Page, WebSocketRoute
from websockets.asyncio.client import ClientConnection, connect

from tests.browser.person import PASSWORD
from tests.browser.stack import Stack

__all__ = ["ask", "connected", "hold_answers", "profile", "say", "set_times", "sign_up"]

_IN_FLIGHT = 200
_numbers = itertools.count()

Granted = dict[str, Any]


async def sign_up(stack: Stack, username: str, **fields: str) -> Granted:
    """Make an account. Returns the answer, tokens and all."""
    async with httpx.AsyncClient(base_url=stack.url, trust_env=False) as client:
        answer = await client.post(
            "/v1/users", json={"username": username, "password": PASSWORD, **fields}
        )
    assert answer.status_code == 201, answer.text
    granted: Granted = answer.json()
    return granted


async def profile(stack: Stack, granted: Granted, **fields: str) -> None:
    """Change somebody's profile."""
    async with httpx.AsyncClient(base_url=stack.url, trust_env=False) as client:
        answer = await client.patch(
            "/v1/users/me",
            json=fields,
            headers={"Authorization": f"Bearer {granted['access_token']}"},
        )
    assert answer.status_code == 200, answer.text


@contextlib.asynccontextmanager
async def connected(stack: Stack, granted: Granted) -> AsyncIterator[ClientConnection]:
    """A verified connection of somebody."""
    async with connect(stack.gateway_url, proxy=None, max_size=None) as websocket:
        await ask(websocket, {"type": "connect", "access_token": granted["access_token"]})
        yield websocket


async def ask(websocket: ClientConnection, frame: Mapping[str, object]) -> dict[str, Any]:
    """Send a frame; return what comes back first for it."""
    await websocket.send(msgspec.json.encode(frame).decode())
    while True:
        answer: dict[str, Any] = msgspec.json.decode(await websocket.recv())
        if answer.get("id") == frame.get("id"):
            return answer


async def say(
    stack: Stack, sender: Granted, to: str, texts: Sequence[str]
) -> list[tuple[str, int]]:
    """Send texts in order. Returns the client id and the `seq` of each."""
    acked: list[tuple[str, int]] = []
    async with connected(stack, sender) as websocket:
        for batch in _batched(texts):
            frames = [
                {"type": "send", "id": f"seed-{next(_numbers)}", "to": to, "text": text}
                for text in batch
            ]
            for frame in frames:
                await websocket.send(msgspec.json.encode(frame).decode())
            waiting = len(frames)
            while waiting:
                answer = msgspec.json.decode(await websocket.recv())
                assert answer["type"] != "error", answer
                if answer["type"] == "ack":
                    acked.append((answer["id"], answer["seq"]))
                    waiting -= 1
    return acked


async def hold_answers(page: Page, stack: Stack, kind: str) -> asyncio.Queue[Callable[[], None]]:
    """Hold all frames of that type back, each until what is put into the queue for it is called."""
    held: asyncio.Queue[Callable[[], None]] = asyncio.Queue()

    def relay(socket: WebSocketRoute) -> None:
        server = socket.connect_to_server()

        def from_server(frame: str | bytes) -> None:
            if f'"type":"{kind}"' in str(frame):
                held.put_nowait(partial(socket.send, frame))
            else:
                socket.send(frame)

        server.on_message(from_server)

    await page.route_web_socket(stack.gateway_url, relay)
    return held


def set_times(database: Path, at_ms: Mapping[str, int]) -> None:
    """Say when messages were sent, by client id. The gateway must not be running."""
    with contextlib.closing(sqlite3.connect(database)) as connection, connection:
        connection.executemany(
            "UPDATE messages SET sent_at_ms = ? WHERE client_id = ?",
            [(at, client_id) for client_id, at in at_ms.items()],
        )


def _batched(texts: Sequence[str]) -> Iterable[Sequence[str]]:
    for start in range(0, len(texts), _IN_FLIGHT):
        yield texts[start : start + _IN_FLIGHT]
