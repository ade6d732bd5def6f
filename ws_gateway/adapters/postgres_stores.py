"""The three stores in one PostgreSQL database."""

import contextlib
from collections.abc import AsyncIterator, Callable

import msgspec

from shared.postgres import Postgres
from shared.relocation import check_complete
from ws_gateway.adapters.postgres_archive import PostgresMessageArchive
from ws_gateway.adapters.postgres_people import PostgresPeopleStore
from ws_gateway.adapters.postgres_store import PostgresMessageStore
from ws_gateway.ports import StoreUnavailable

__all__ = ["PostgresStores", "open_postgres_stores"]

MIGRATIONS = "ws_gateway.adapters.migrations.postgresql"
SCHEMA = "duet_gateway"


class PostgresStores(msgspec.Struct, frozen=True):
    """`MessageStore`, `MessageArchive` and `PeopleStore` over one database."""

    messages: PostgresMessageStore
    archive: PostgresMessageArchive
    people: PostgresPeopleStore
    database: Postgres

    async def tidy_up(self, is_busy: Callable[[], bool]) -> None:
        """Write deliveries down, and let search catch up; see `Stores`."""
        await self.messages.tidy_up()
        while not is_busy():
            if await self.archive.index_search():
                break


@contextlib.asynccontextmanager
async def open_postgres_stores(
    url: str, *, max_connections: int = 8, command_timeout_s: float = 10.0
) -> AsyncIterator[PostgresStores]:
    """Connect, making or migrating the schema, and close the connections in the end.

    Raises:
        DatabaseUnavailable: it cannot be reached or migrated, or holds an unfinished move.
        StoreUnavailable: it cannot be read.
        ValueError: the URL cannot be used.
    """
    async with (
        await Postgres.open(
            url,
            MIGRATIONS,
            schema=SCHEMA,
            max_connections=max_connections - 1,
            command_timeout_s=command_timeout_s,
        ) as database,
        await database.apart(1) as commits,
    ):
        await check_complete(database)
        messages = await PostgresMessageStore.over(database, commits)
        archive = PostgresMessageArchive(database, messages.unindexed, messages.write_deliveries)
        yield PostgresStores(messages, archive, PostgresPeopleStore(database), database)
        with contextlib.suppress(StoreUnavailable):  # it is for tracing only
            await messages.write_deliveries()
