"""The profile service's schema in a fresh PostgreSQL database."""

import contextlib
from collections.abc import AsyncIterator

from profile_service.adapters.postgres_access import MIGRATIONS, SCHEMA
from shared.postgres import Postgres
from tests.support.postgres import Databases

__all__ = ["migrated_postgres", "migrated_url", "opened_postgres"]


def migrated_url(databases: Databases) -> str:
    """Make a database with the schema, and nothing else in it."""
    return databases.migrated(MIGRATIONS, SCHEMA)


@contextlib.asynccontextmanager
async def opened_postgres(url: str) -> AsyncIterator[Postgres]:
    """Open such a database, as a service does."""
    database = await Postgres.open(url, MIGRATIONS, schema=SCHEMA)
    try:
        yield database
    finally:
        await database.close()


@contextlib.asynccontextmanager
async def migrated_postgres(databases: Databases) -> AsyncIterator[Postgres]:
    """Make and open one."""
    async with opened_postgres(migrated_url(databases)) as database:
        yield database
