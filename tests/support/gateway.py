"""A gateway in this process: real sockets, a real file, a fake profile service."""

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from shared.ids import UserId
from tests.support.client import Client
from tests.support.engines import ON_SCALE, settings_of, stored_in_postgres
from tests.support.fake_profile import FakeProfile, FakeSession
from tests.support.talk import say
from ws_gateway.app import Gateway, serving
from ws_gateway.delivery.broadcast import Broadcast
from ws_gateway.settings import Settings

__all__ = ["TestGateway", "database_locked", "running_gateway", "stored_messages"]

_UNHURRIED = {
    "messages_per_s": 1e6,
    "message_burst": 1_000_000,
    "requests_per_s": 1e6,
    "request_burst": 1_000_000,
}
"""Tests are faster than people; those of the rate limits set their own."""

Row = tuple[str, int, str, str]


class TestGateway:
    """A running gateway, its profile service, and what a test wants from both."""

    __test__ = False

    def __init__(self, gateway: Gateway, profile: FakeProfile, settings: Settings) -> None:
        self.gateway = gateway
        self.profile = profile
        self.database = settings.data_dir / "messages.db"
        self.url = gateway.url
        self.http_url = f"http://{gateway.host}:{gateway.port}"

    def talking(
        self, session: FakeSession, **options: Any
    ) -> contextlib.AbstractAsyncContextManager[Client]:
        """A verified connection of a session."""
        return Client.talking(self.url, session.access_token, **options)

    @contextlib.asynccontextmanager
    async def resuming(
        self, session: FakeSession, cursor: str, **options: Any
    ) -> AsyncIterator[Client]:
        """A verified connection that continues after a cursor; what it missed is not read yet."""
        async with Client.open(self.url, **options) as client:
            await client.connect(session.access_token, resume=cursor)
            yield client

    @contextlib.asynccontextmanager
    async def talking_often(self, session: FakeSession, count: int) -> AsyncIterator[list[Client]]:
        """So many verified connections of a session."""
        async with contextlib.AsyncExitStack() as stack:
            yield [await stack.enter_async_context(self.talking(session)) for _ in range(count)]

    def connections_of(self, user_id: UserId) -> int:
        """How many verified connections a user has."""
        return len(self.gateway.connections.of_user(user_id))

    async def fill(self, sender: UserId, to: UserId, *texts: str) -> None:
        """Store messages past the sockets, as if they had been delivered long ago."""
        stored = await say(self.gateway.stores.messages, sender, to, *texts)
        if isinstance(self.gateway.live, Broadcast):
            self.gateway.live.position = stored[-1].position

    async def get(self, path: str, method: str = "GET") -> httpx.Response:
        """Ask one of the HTTP paths."""
        async with httpx.AsyncClient(base_url=self.http_url, trust_env=False) as client:
            return await client.request(method, path)

    def sample(self, name: str, **labels: str) -> float:
        """The value of a metric now; 0 when it was never counted."""
        value = self.gateway.metrics.registry.get_sample_value(name, labels)
        return 0.0 if value is None else value


@contextlib.asynccontextmanager
async def running_gateway(
    data_dir: Path,
    *,
    profile: FakeProfile | None = None,
    now: Callable[[], float] = time.time,
    **settings: Any,
) -> AsyncIterator[TestGateway]:
    """Serve on a free port while the context lasts, once the revocation feed is connected."""
    unknown = settings.keys() - Settings.model_fields
    assert not unknown, f"no such settings: {unknown}"
    profile = profile or FakeProfile(now=now)
    shared = {name.removeprefix("DUET_").lower(): v for name, v in settings_of(data_dir).items()}
    chosen = Settings(data_dir=data_dir, gateway_port=0, **{**_UNHURRIED, **shared, **settings})
    async with serving(chosen, profile=profile, now=now) as gateway:
        if profile.available and profile.feed_works:
            async with asyncio.timeout(10):
                await gateway.revocations.connected.wait()
        try:
            yield TestGateway(gateway, profile, chosen)
        finally:
            profile.let_everybody_through()


@contextlib.contextmanager
def database_locked(path: Path) -> Iterator[None]:
    """Hold the database's write lock, as a stuck backup would."""
    if ON_SCALE:
        pytest.skip("there is no file to lock")
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        finally:
            connection.execute("ROLLBACK")


def stored_messages(path: Path) -> list[Row]:
    """What is on disk, in commit order: (conversation, seq, client id, text)."""
    if ON_SCALE:
        return stored_in_postgres(path.parent)
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        return list(
            connection.execute(
                """SELECT conversations.id, seq, client_id, text FROM messages
                JOIN conversations ON conversations.key = messages.conversation ORDER BY position"""
            )
        )
