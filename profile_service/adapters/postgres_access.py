"""The database as every adapter on PostgreSQL uses it: its failures become the port's."""

from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

from profile_service.ports import StoreUnavailable
from shared.database import DatabaseUnavailable
from shared.postgres import Connection, Postgres

__all__ = ["MIGRATIONS", "SCHEMA", "StorePostgres", "storable"]

T = TypeVar("T")
Text = TypeVar("Text", bound=str)

MIGRATIONS = "profile_service.adapters.migrations.postgresql"
SCHEMA = "duet_profile"


class StorePostgres:
    """Runs whole transactions on a `Postgres`, which somebody else opens and closes."""

    def __init__(self, database: Postgres) -> None:
        self._database = database

    async def write(self, transaction: Callable[[Connection], Awaitable[T]]) -> T:
        """Run it durably, or not at all; perhaps several times, until it meets no deadlock.

        Raises:
            StoreUnavailable: rolled back, or unknown.
        """
        try:
            return await self._database.write(transaction)
        except DatabaseUnavailable as error:
            raise StoreUnavailable(str(error)) from error

    async def autocommit(self, statement: Callable[[Connection], Awaitable[T]]) -> T:
        """Run a single statement durably, or not at all.

        Raises:
            StoreUnavailable: rolled back, or unknown.
        """
        try:
            return await self._database.autocommit(statement)
        except DatabaseUnavailable as error:
            raise StoreUnavailable(str(error)) from error

    async def read(self, query: Callable[[Connection], Awaitable[T]]) -> T:
        """Run it; each statement sees a snapshot of its own.

        Raises:
            StoreUnavailable: away.
        """
        try:
            return await self._database.read(query)
        except DatabaseUnavailable as error:
            raise StoreUnavailable(str(error)) from error


def storable(texts: Iterable[Text]) -> list[Text]:
    """Leave out what PostgreSQL cannot hold, and so cannot find: clients may ask for anything."""
    return [text for text in texts if "\0" not in text]
