"""Sends messages through the gateway's hot path and nothing else, the same way each time.

A frame is unmasked, decoded and taken by its session, a batch is stored in one transaction, acks
and messages are rendered; at the end, what follows the log is settled. No socket, no thread, no
clock: what this costs depends on the code alone, so its instructions can be counted.

    python -m tests.performance.hot_path DATABASE [MESSAGES]

Without messages, it makes the database, which the product does with threads.
"""

import asyncio
import contextlib
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar, cast

from websockets.frames import apply_mask  # type: ignore[attr-defined]

from shared.ids import SessionId, UserId
from shared.sqlite import Database
from ws_gateway.adapters.sqlite_store import SqliteMessageStore
from ws_gateway.adapters.sqlite_stores import open_sqlite_stores
from ws_gateway.conversations import Appended, Draft
from ws_gateway.delivery.rendering import Rendering, ack_frame
from ws_gateway.identity import Identity
from ws_gateway.protocol import codec
from ws_gateway.protocol.actions import Submit
from ws_gateway.protocol.cursor import Cursors
from ws_gateway.protocol.rate_limit import RateLimit, TokenBucket
from ws_gateway.protocol.session import Session, SessionLimits
from ws_gateway.protocol.wire import text_frame
from ws_gateway.text_frames import whole_texts

__all__ = ["BATCH"]

BATCH = 50
"""Messages stored together, each of another conversation."""

_NOW = 1_800_000_000.0
_MASK = b"\x01\xfe\x3c\x5a"
_MAX_BYTES = 65_536
_PLENTY = RateLimit(1e9, 1_000_000)
_TEXT = "0000 was it the red door or the blue one, remind me?"

T = TypeVar("T")


class _SameThread:
    """The part of a `Database` that the store needs, without threads and without waiting for a
    disk."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None)
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("PRAGMA synchronous=OFF")

    async def write(self, transaction: Callable[[sqlite3.Connection], T]) -> T:
        self._connection.execute("BEGIN IMMEDIATE")
        result = transaction(self._connection)
        self._connection.execute("COMMIT")
        return result

    async def read(self, query: Callable[[sqlite3.Connection], T]) -> T:
        return query(self._connection)

    def close(self) -> None:
        self._connection.close()


async def _make(path: Path) -> None:
    async with open_sqlite_stores(path):
        pass


async def _run(messages: int, path: Path) -> int:
    """Send so many messages. Returns the bytes that people would get."""
    with contextlib.closing(_SameThread(path)) as database:
        store = await SqliteMessageStore.over(cast(Database, database))
        rendering = Rendering(Cursors(store.epoch))
        sessions = [_open_session(number) for number in range(BATCH)]
        written = 0
        for first in range(0, messages, BATCH):
            drafts = [
                _received(session, _frame(first + number, number))
                for number, session in enumerate(sessions)
            ]
            outcomes = await store.append_batch(drafts, int(_NOW * 1000))
            for draft, outcome in zip(drafts, outcomes, strict=True):
                assert isinstance(outcome, Appended)
                acknowledged = text_frame(codec.encode(ack_frame(draft.client_id, outcome)))
                delivered = rendering.event(outcome.event, draft.recipient)
                written += len(acknowledged) + len(delivered)
        await store.settle_all()
        return written


def _open_session(number: int) -> Session:
    session = Session(SessionLimits(requests=_PLENTY, messages=_PLENTY), _NOW)
    session.present("a token", None)
    identity = Identity(
        user_id=_user(number),
        username="somebody",
        session_id=SessionId("s_somebody"),
        token_version=1,
        expires_at=_NOW + 600,
    )
    session.verified(identity, TokenBucket(_PLENTY, _NOW), _NOW)
    return session


def _received(session: Session, wire: bytes) -> Draft:
    (text,), _ = whole_texts(wire, _MAX_BYTES)
    action = session.receive(text, _NOW)
    assert isinstance(action, Submit)
    assert isinstance(action.change, Draft)
    return action.change


def _frame(number: int, sender: int) -> bytes:
    """A message as a client sends it, masked, named by an id that grows as UUIDv7 does."""
    client_id = f"01900000-{number >> 16:04x}-7{number & 0xFFF:03x}-8{number:03x}-{number:012x}"
    to = _user(-1 - sender)
    text = f'{{"type":"send","id":"{client_id}","to":"{to}","text":"{_TEXT}"}}'.encode()
    return b"\x81\xfe" + len(text).to_bytes(2) + _MASK + apply_mask(text, _MASK)


def _user(number: int) -> UserId:
    return UserId(f"u_{number % 100_000:026d}")


def _main(path: Path, *messages: str) -> None:
    if not messages:
        asyncio.run(_make(path))
    elif not asyncio.run(_run(int(messages[0]), path)):
        sys.exit("nothing was sent")


if __name__ == "__main__":
    _main(Path(sys.argv[1]), *sys.argv[2:])
