"""The database as both stores use it: its failures become the port's."""

import sqlite3
from collections.abc import Callable
from typing import TypeVar

from profile_service.ports import StoreUnavailable
from shared.sqlite import Database, DatabaseUnavailable

__all__ = ["StoreDatabase"]

T = TypeVar("T")


class StoreDatabase:
    """Runs whole transactions on a `Database`, which somebody else opens and closes."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def write(self, transaction: Callable[[sqlite3.Connection], T]) -> T:
        """Run it durably, or not at all.

        Raises:
            StoreUnavailable: rolled back.
        """
        try:
            return await self._database.write(transaction)
        except DatabaseUnavailable as error:
            raise StoreUnavailable(str(error)) from error

    async def read(self, query: Callable[[sqlite3.Connection], T]) -> T:
        """Run it in one snapshot.

        Raises:
            StoreUnavailable: the disk fails.
        """
        try:
            return await self._database.read(query)
        except DatabaseUnavailable as error:
            raise StoreUnavailable(str(error)) from error
