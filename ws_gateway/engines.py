"""What a gateway runs on: engines of its own or, where the settings say so, shared with others."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import msgspec

from ws_gateway.adapters.local_attendance import LocalAttendance
from ws_gateway.adapters.local_bus import LocalBus
from ws_gateway.adapters.sqlite_life import DATABASE_NAME
from ws_gateway.adapters.sqlite_stores import open_sqlite_stores
from ws_gateway.metrics import Metrics
from ws_gateway.ports import Attendance, SharedLogs, Stores, UserBus
from ws_gateway.settings import Settings

__all__ = ["Engines", "open_engines"]


class Engines(msgspec.Struct, frozen=True, kw_only=True):
    """Everything outside this process that a gateway needs, but for the profile service."""

    stores: Stores
    bus: UserBus
    attendance: Attendance
    shared_logs: SharedLogs | None = None
    """The logs, where other gateways write to them as well."""
    position: int = 0
    """Where the one log ends, where nobody else does."""
    hears_others: bool = False
    """Whether the bus leads to other gateways."""


def open_engines(
    settings: Settings, metrics: Metrics
) -> contextlib.AbstractAsyncContextManager[Engines]:
    """Open the engines that the settings choose, for as long as the context lasts.

    Raises:
        DatabaseInUse, DatabaseUnavailable, StoreUnavailable: the database cannot be used.
        ValueError, OSError: the file with its URL cannot.
    """
    url = settings.postgresql_url()
    return _embedded(settings) if url is None else _scaled(url, settings, metrics)


@contextlib.asynccontextmanager
async def _embedded(settings: Settings) -> AsyncIterator[Engines]:
    """SQLite, and this process: nothing to set up, and no other gateway."""
    path = settings.data_dir / DATABASE_NAME
    async with open_sqlite_stores(path, busy_timeout_s=settings.database_busy_timeout_s) as stores:
        yield Engines(
            stores=stores,
            bus=LocalBus(),
            attendance=LocalAttendance(),
            position=stores.messages.position,
        )


@contextlib.asynccontextmanager
async def _scaled(url: str, settings: Settings, metrics: Metrics) -> AsyncIterator[Engines]:
    """PostgreSQL and, to be told soon of what other gateways do, NATS."""
    # Imported here: who keeps a file pays nothing for it.
    from ws_gateway.adapters.postgres_attendance import PostgresAttendance  # noqa: PLC0415
    from ws_gateway.adapters.postgres_stores import open_postgres_stores  # noqa: PLC0415

    servers = settings.bus_servers()
    async with open_postgres_stores(url) as stores, _bus(servers, metrics) as bus:
        yield Engines(
            stores=stores,
            bus=bus,
            attendance=PostgresAttendance(
                stores.database, max_connections_per_user=settings.max_connections_per_user
            ),
            shared_logs=stores.messages,
            hears_others=bool(servers),
        )


@contextlib.asynccontextmanager
async def _bus(servers: list[str], metrics: Metrics) -> AsyncIterator[UserBus]:
    if not servers:
        yield LocalBus()
        return
    from ws_gateway.adapters.nats_bus import NatsBus  # noqa: PLC0415

    bus = NatsBus(servers, metrics)
    work = asyncio.create_task(bus.run(), name="bus")
    try:
        yield bus
    finally:
        await bus.flush()
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
