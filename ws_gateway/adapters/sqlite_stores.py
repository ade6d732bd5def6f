"""The three stores in one SQLite file."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec

from shared.sqlite import Database
from ws_gateway.adapters.sqlite_archive import SqliteMessageArchive
from ws_gateway.adapters.sqlite_forgetting import Forgetting
from ws_gateway.adapters.sqlite_people import SqlitePeopleStore
from ws_gateway.adapters.sqlite_store import SqliteMessageStore
from ws_gateway.ports import StoreUnavailable

__all__ = ["SqliteStores", "open_sqlite_stores"]

_REST = 2.0
"""How long messages have the writer to themselves after a step of indexing during which some came,
in times of that step: a merge of common words can take long, and it comes with a dozen others."""


class SqliteStores(msgspec.Struct, frozen=True):
    """`MessageStore`, `MessageArchive` and `PeopleStore` over one database."""

    messages: SqliteMessageStore
    archive: SqliteMessageArchive
    people: SqlitePeopleStore
    forgetting: Forgetting

    async def tidy_up(self, is_busy: Callable[[], bool]) -> None:
        """Let places, search and traces catch up, and removed texts go; see `Stores`."""
        await self.messages.tidy_up()
        while not is_busy():
            began_at, position = time.monotonic(), self.messages.position
            if await self.archive.go_on_indexing():
                await self.forgetting.go_on()
                break
            if self.messages.position != position:
                await asyncio.sleep(_REST * (time.monotonic() - began_at))


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
        archive = SqliteMessageArchive(
            database, messages.settle, messages.unsettled, messages.write_deliveries
        )
        people = SqlitePeopleStore(database, messages.forget_route)
        yield SqliteStores(messages, archive, people, Forgetting(database, clock=clock))
        with contextlib.suppress(StoreUnavailable):  # then the next start does it
            await messages.settle_all()
    finally:
        await database.close()
