"""All stores in the data directory of the one service there is: SQLite, key files, and memory."""

import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from profile_service.adapters.key_directory import KeyDirectory
from profile_service.adapters.local_throttle import LocalThrottle
from profile_service.adapters.sqlite_life import DATABASE_NAME
from profile_service.adapters.sqlite_sessions import SqliteSessionStore
from profile_service.adapters.sqlite_users import SqliteUserStore
from profile_service.ports import Stores
from shared.sqlite import Database

__all__ = ["MIGRATIONS", "key_directory", "open_sqlite_stores"]

MIGRATIONS = "profile_service.adapters.migrations.sqlite"


@contextlib.asynccontextmanager
async def open_sqlite_stores(
    data_dir: Path, *, now: Callable[[], float], monotonic: Callable[[], float]
) -> AsyncIterator[Stores]:
    """Open the database, making or migrating it, and close it in the end.

    `now` gives seconds since the epoch; `monotonic` seconds of a clock that is never set back.

    Raises:
        DatabaseInUse: another service has it.
        DatabaseUnavailable: it cannot be opened.
    """
    database = await Database.open(data_dir / DATABASE_NAME, MIGRATIONS)
    try:
        yield Stores(
            users=SqliteUserStore(database),
            sessions=SqliteSessionStore(database),
            throttle=LocalThrottle(now=monotonic),
            keys=key_directory(data_dir, now=now),
            news=_none,
        )
    finally:
        await database.close()


def key_directory(data_dir: Path, *, now: Callable[[], float]) -> KeyDirectory:
    """Where the signing keys are: they can be rotated while the service has its database open."""
    return KeyDirectory(data_dir / "keys", now=now)


def _none(_on_news: Callable[[], None]) -> "contextlib.nullcontext[None]":
    """Nobody else appends to the feed."""
    return contextlib.nullcontext()
