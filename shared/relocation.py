"""Moving an installation from SQLite to PostgreSQL: in chunks, resumable, checked at the end.

The source is locked and only read. What has been copied is noted in the target, in the same
transaction, in a table that is there as long as the move is unfinished. When both sides were found
equal, the table goes, and services may start. The same command again continues after a kill.
"""

import contextlib
import functools
import hashlib
import os
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import asyncpg
import msgspec

from shared.database import DatabaseUnavailable, RelocationRefused
from shared.postgres import Connection, Postgres
from shared.sqlite import lock, uri

__all__ = ["Moved", "RelocationRefused", "Table", "check_complete", "open_source", "relocate"]

CHUNK_ROWS = 2000
_UNFINISHED = "unfinished_move"

Row = tuple[Any, ...]


class Table(msgspec.Struct, frozen=True):
    """A table of the target, and where its rows come from.

    `select` yields its `columns` from the source, always in the same order of rows: resuming skips
    as many as were copied. `convert` makes of such a row what the target gives back, where the
    types of the two engines differ.
    """

    name: str
    columns: tuple[str, ...]
    select: str
    convert: Callable[[Row], Row] = tuple


class Moved(msgspec.Struct, frozen=True):
    """What a table holds, in the source as in the target; the checksum does not depend on order."""

    table: str
    rows: int
    checksum: str


@contextlib.contextmanager
def open_source(path: Path) -> Iterator[sqlite3.Connection]:
    """Lock a service's database and open it for reading.

    Raises:
        RelocationRefused: there is none.
        DatabaseInUse: the service is running.
    """
    if not path.exists():
        raise RelocationRefused(f"{path} does not exist")
    descriptor = lock(path)
    try:
        with contextlib.closing(sqlite3.connect(uri(path, read_only=True), uri=True)) as source:
            yield source
    finally:
        os.close(descriptor)


async def relocate(
    source: sqlite3.Connection,
    target: Postgres,
    tables: Sequence[Table],
    *,
    identity: str,
    finish: Callable[[Connection], Awaitable[None]],
    report: Callable[[str, int], None] = lambda _table, _rows: None,
    chunk_rows: int = CHUNK_ROWS,
) -> list[Moved]:
    """Copy `tables`, in this order, compare both sides, and return what was moved.

    `identity` names the source for ever, such as its epoch, so that a move is only continued from
    the database that it began with. `finish` does the rest, such as setting counters, in the last
    transaction. `report` is told the rows of a table that are there after each chunk.

    Raises:
        RelocationRefused: the target holds something else, the source is of an older version or
            holds what PostgreSQL cannot, such as U+0000, or the two sides differ in the end.
        DatabaseUnavailable: call it again later; what was copied stays.
    """
    try:
        copied = await target.write(lambda connection: _begin(connection, tables, identity))
        for table in tables:
            async for rows in _copy(source, target, table, copied[table.name], chunk_rows):
                report(table.name, rows)
        moved = [await _compare(source, target, table) for table in tables]
    except sqlite3.OperationalError as error:
        raise RelocationRefused(
            f"the source cannot be read: {error}. Start this version of the service on it once,"
            " so that its schema is brought up to date."
        ) from error
    except asyncpg.UniqueViolationError as error:
        raise RelocationRefused(
            f"what was copied before does not fit the source any more: {error}. Somebody has"
            " changed one of them since; empty the PostgreSQL database and begin again."
        ) from error
    except asyncpg.DataError as error:
        raise RelocationRefused(f"PostgreSQL cannot hold a value of the source: {error}") from error

    async def end(connection: Connection) -> None:
        await finish(connection)
        await connection.execute(f"DROP TABLE {_UNFINISHED}")

    await target.write(end)
    return moved


async def check_complete(database: Postgres) -> None:
    """Make sure that no move to this database was left unfinished. Call it before serving.

    Raises:
        DatabaseUnavailable: one was.
    """
    found = await database.read(
        lambda connection: connection.fetchval(f"SELECT to_regclass('{_UNFINISHED}')")
    )
    if found is not None:
        raise DatabaseUnavailable("PostgreSQL holds an unfinished move; run the same command again")


async def _begin(connection: Connection, tables: Sequence[Table], identity: str) -> dict[str, int]:
    """Return how many rows of each table were copied before."""
    if await connection.fetchval(f"SELECT to_regclass('{_UNFINISHED}')") is None:
        for table in tables:
            if await connection.fetchval(f"SELECT EXISTS (SELECT FROM {table.name})"):  # noqa: S608
                raise RelocationRefused(
                    f"the PostgreSQL database is in use: its table {table.name} is not empty"
                )
        await connection.execute(
            f"CREATE TABLE {_UNFINISHED}"
            " (table_name text PRIMARY KEY, identity text NOT NULL, copied bigint NOT NULL)"
        )
        await connection.execute(
            f"INSERT INTO {_UNFINISHED} SELECT unnest($1::text[]), $2, 0",
            [table.name for table in tables],
            identity,
        )
    rows = await connection.fetch(f"SELECT table_name, identity, copied FROM {_UNFINISHED}")  # noqa: S608
    if {row["identity"] for row in rows} != {identity}:
        raise RelocationRefused(
            "the PostgreSQL database holds the unfinished move of another database"
        )
    return {row["table_name"]: row["copied"] for row in rows}


async def _copy(
    source: sqlite3.Connection, target: Postgres, table: Table, copied: int, chunk_rows: int
) -> AsyncIterator[int]:
    """Copy what is missing; yield how many rows are there, after each chunk."""
    rows = source.execute(f"{table.select} LIMIT -1 OFFSET ?", (copied,))
    while chunk := [table.convert(row) for row in rows.fetchmany(chunk_rows)]:
        await target.write(functools.partial(_insert, table=table, chunk=chunk, after=copied))
        copied += len(chunk)
        yield copied


async def _insert(connection: Connection, table: Table, chunk: list[Row], after: int) -> None:
    noted = await connection.fetchval(
        f"UPDATE {_UNFINISHED} SET copied = copied + $1"  # noqa: S608
        " WHERE table_name = $2 AND copied = $3 RETURNING copied",
        len(chunk),
        table.name,
        after,
    )
    if noted is None:
        raise RelocationRefused("another process moves to the same database")
    await connection.copy_records_to_table(table.name, records=chunk, columns=table.columns)


async def _compare(source: sqlite3.Connection, target: Postgres, table: Table) -> Moved:
    wanted = _Checksum()
    for row in source.execute(table.select):
        wanted.add(table.convert(row))

    async def read(connection: Connection) -> _Checksum:
        found = _Checksum()
        statement = f"SELECT {', '.join(table.columns)} FROM {table.name}"  # noqa: S608
        async with connection.transaction(readonly=True):
            async for row in connection.cursor(statement, prefetch=CHUNK_ROWS):
                found.add(tuple(row))
        return found

    found = await target.read(read)
    if (found.rows, found.sum) != (wanted.rows, wanted.sum):
        raise RelocationRefused(
            f"the table {table.name} differs: {wanted.rows} rows with checksum {wanted.shown} here,"
            f" {found.rows} with {found.shown} in PostgreSQL. Somebody has changed one of them"
            " since; empty the PostgreSQL database and begin again."
        )
    return Moved(table.name, wanted.rows, wanted.shown)


class _Checksum:
    """Of a set of rows: the sum of their hashes, so that neither side has to sort."""

    def __init__(self) -> None:
        self.rows = 0
        self.sum = 0

    @property
    def shown(self) -> str:
        """Hexadecimal."""
        return f"{self.sum:016x}"

    def add(self, row: Row) -> None:
        digest = hashlib.blake2b(msgspec.msgpack.encode(row), digest_size=8).digest()
        self.rows += 1
        self.sum = (self.sum + int.from_bytes(digest, "big")) % 2**64
