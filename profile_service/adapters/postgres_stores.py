"""All stores in one PostgreSQL, which other services share."""

import contextlib
import functools
from collections.abc import AsyncIterator, Callable

from profile_service.adapters.postgres_access import MIGRATIONS, SCHEMA
from profile_service.adapters.postgres_keys import PostgresKeys
from profile_service.adapters.postgres_news import listening
from profile_service.adapters.postgres_sessions import PostgresSessionStore
from profile_service.adapters.postgres_throttle import PostgresThrottle
from profile_service.adapters.postgres_users import PostgresUserStore
from profile_service.ports import Stores
from shared.postgres import Postgres
from shared.relocation import check_complete

__all__ = ["open_postgres_stores"]


@contextlib.asynccontextmanager
async def open_postgres_stores(
    url: str, secret: bytes, *, now: Callable[[], float]
) -> AsyncIterator[Stores]:
    """Connect, making or migrating the schema, and disconnect in the end.

    `secret` is the service secret, under which the signing keys are encrypted; `now` gives seconds
    since the epoch.

    Raises:
        DatabaseUnavailable: it cannot be reached or migrated, or holds an unfinished move.
        ValueError: the URL cannot be used.
    """
    async with await Postgres.open(url, MIGRATIONS, schema=SCHEMA) as database:
        await check_complete(database)
        yield Stores(
            users=PostgresUserStore(database),
            sessions=PostgresSessionStore(database),
            throttle=PostgresThrottle(database, now=now),
            keys=PostgresKeys(database, secret, now=now),
            news=functools.partial(listening, database),
        )
