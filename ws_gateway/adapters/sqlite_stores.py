"""The three stores in one SQLite file, with search in another."""

import contextlib
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec

from shared.sqlite import Database
from ws_gateway.adapters.sqlite_archive import SqliteMessageArchive
from ws_gateway.adapters.sqlite_life import SEARCH_NAME
from ws_gateway.adapters.sqlite_people import SqlitePeopleStore
from ws_gateway.adapters.sqlite_search import SqliteSearch
from ws_gateway.adapters.sqlite_store import SqliteMessageStore
from ws_gateway.ports import StoreUnavailable

__all__ = ["SqliteStores", "open_sqlite_stores"]


class SqliteStores(msgspec.Struct, frozen=True):
    """`MessageStore`, `MessageArchive` and `PeopleStore` over one file, and search beside it."""

    messages: SqliteMessageStore
    archive: SqliteMessageArchive
    people: SqlitePeopleStore
    search: SqliteSearch

    async def tidy_up(self, is_busy: Callable[[], bool]) -> None:
        """Let places, search and traces catch up, and removed texts go; see `Stores`."""
        await self.messages.tidy_up()
        await self.search.forget_removed()
        log_end = self.messages.position  # what comes meanwhile is for the next time, in one piece
        while not await self.search.go_on(log_end) and not is_busy():
            await self.messages.tidy_up()


@contextlib.asynccontextmanager
async def open_sqlite_stores(
    path: Path,
    *,
    busy_timeout_s: float = 2.0,
    clock: Callable[[], float] = time.monotonic,
) -> AsyncIterator[SqliteStores]:
    """Open the file, making or migrating it, and close it in the end.

    Raises:
        DatabaseInUse: another gateway has it.
        DatabaseUnavailable: it cannot be opened.
        StoreUnavailable: it cannot be read.
    """
    database = await Database.open(
        path, "ws_gateway.adapters.migrations.sqlite", busy_timeout_s=busy_timeout_s
    )
    try:
        messages = await SqliteMessageStore.over(database)
        people = SqlitePeopleStore(database, messages.forget_route)
        async with SqliteSearch(
            path.with_name(SEARCH_NAME),
            database,
            path,
            lambda: messages.position,
            busy_timeout_s=busy_timeout_s,
            clock=clock,
        ) as search:
            archive = SqliteMessageArchive(
                database, search, messages.settle, messages.unsettled, messages.write_deliveries
            )
            yield SqliteStores(messages, archive, people, search)
        with contextlib.suppress(StoreUnavailable):  # then the next start does it
            await messages.settle_all()
    finally:
        await database.close()
