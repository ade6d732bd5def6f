"""Several gateways in this process, on a real PostgreSQL and a real NATS."""

import contextlib
import itertools
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.fake_profile import FakeProfile
from tests.support.gateway import TestGateway, running_gateway
from tests.support.nats_server import NATS_SERVER_MISSING, NatsServer, nats_server
from tests.support.postgres import Databases
from tests.support.waiting import until
from ws_gateway.adapters.postgres_stores import MIGRATIONS, SCHEMA

__all__ = ["Gateways", "gateways", "nats"]


class Gateways:
    """Starts gateways that share everything."""

    def __init__(self, directory: Path, database_url: str, nats: NatsServer) -> None:
        self.profile = FakeProfile()
        self.nats = nats
        self.database_url = database_url
        self._directory = directory
        self._numbers = itertools.count()

    @contextlib.asynccontextmanager
    async def running(
        self, count: int = 2, *, with_bus: bool = True, **settings: Any
    ) -> AsyncIterator[list[TestGateway]]:
        """So many gateways, connected to NATS if it is there."""
        if with_bus:
            settings.setdefault("bus_url", self.nats.url)
        async with contextlib.AsyncExitStack() as stack:
            started = [
                await stack.enter_async_context(
                    running_gateway(
                        self._directory / str(next(self._numbers)),
                        profile=self.profile,
                        database_url=self.database_url,
                        **settings,
                    )
                )
                for _ in range(count)
            ]
            if self.nats.is_running:
                await connected(*started)
            yield started


async def connected(*gateways: TestGateway) -> None:
    """Wait until the gateways hear each other."""
    await until(lambda: all(g.sample("duet_gateway_bus_connected") for g in gateways))


async def cut_off(*gateways: TestGateway) -> None:
    """Wait until the gateways know that they do not."""
    await until(lambda: not any(g.sample("duet_gateway_bus_connected") for g in gateways))


@pytest.fixture
def nats() -> Iterator[NatsServer]:
    """A NATS server of the test's own, to be stopped and started."""
    if not NatsServer.is_installed():
        pytest.skip(NATS_SERVER_MISSING)
    with nats_server() as server:
        yield server


@pytest.fixture
def gateways(tmp_path: Path, postgres_databases: Databases, nats: NatsServer) -> Gateways:
    """What starts gateways on a fresh database."""
    return Gateways(tmp_path, postgres_databases.migrated(MIGRATIONS, SCHEMA), nats)
