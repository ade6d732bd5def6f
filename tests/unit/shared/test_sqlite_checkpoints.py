"""The log is written back beside the commits: it stays short, and none of them waits."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TypeVar

import pytest

from shared.database import DatabaseUnavailable
from shared.sqlite import Database
from shared.sqlite_checkpoints import Checkpoints

MIGRATIONS = "ws_gateway.adapters.migrations.sqlite"
MIB = 1024 * 1024

T = TypeVar("T")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "test.db"


@pytest.fixture
async def database(path: Path) -> AsyncIterator[Database]:
    database = await Database.open(path, MIGRATIONS)
    await database.write(lambda c: c.execute("CREATE TABLE notes (text TEXT) STRICT"))
    yield database
    await database.close()


def insert(rows: int) -> Callable[[sqlite3.Connection], None]:
    def transaction(connection: sqlite3.Connection) -> None:
        connection.executemany("INSERT INTO notes VALUES (?)", [("x" * 3000,)] * rows)

    return transaction


def count(connection: sqlite3.Connection) -> int:
    (number,) = connection.execute("SELECT count(*) FROM notes").fetchone()
    return int(number)


def log_size(path: Path) -> int:
    return path.with_name(path.name + "-wal").stat().st_size


async def sound(database: Database) -> bool:
    (verdict,) = await database.read(lambda c: c.execute("PRAGMA integrity_check").fetchone())
    return bool(verdict == "ok")


async def test_log_stays_short_while_many_write_and_read(database: Database, path: Path) -> None:
    async def write() -> None:
        for _ in range(300):
            await database.write(insert(1))
            await database.read(lambda c: c.execute("SELECT max(rowid) FROM notes").fetchone())

    await asyncio.gather(*(write() for _ in range(10)))

    assert await database.read(count) == 3000
    assert log_size(path) < 20 * MIB  # of some 40 that were written
    assert await sound(database)


async def test_log_stays_short_when_commits_are_large(database: Database, path: Path) -> None:
    def delete(connection: sqlite3.Connection) -> None:
        connection.execute("DELETE FROM notes")

    for _ in range(20):
        await database.write(insert(1000))
        await database.write(delete)

    assert log_size(path) < 80 * MIB  # of some 160
    assert await sound(database)


async def test_log_that_a_reader_held_is_made_room_of_later(database: Database, path: Path) -> None:
    held, reading = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def hold(connection: sqlite3.Connection) -> int:
        before = count(connection)
        loop.call_soon_threadsafe(reading.set)
        asyncio.run_coroutine_threadsafe(held.wait(), loop).result(timeout=15)
        return count(connection) - before

    reader = asyncio.create_task(database.read(hold))
    await reading.wait()
    for _ in range(1000):
        await database.write(insert(1))
    size = log_size(path)
    held.set()
    assert await reader == 0
    for _ in range(2000):
        await database.write(insert(1))

    assert log_size(path) < size + 12 * MIB  # of some 24 that were written
    assert await sound(database)


async def test_database_is_whole_after_it_was_closed_during_a_checkpoint(path: Path) -> None:
    for opened in range(3):
        database = await Database.open(path, MIGRATIONS)
        await database.write(lambda c: c.execute("CREATE TABLE IF NOT EXISTS notes (text TEXT)"))
        await asyncio.gather(*(database.write(insert(1)) for _ in range(200)))
        await database.close()

        assert not path.with_name(path.name + "-wal").exists()
        database = await Database.open(path, MIGRATIONS)
        assert await database.read(count) == 200 * (opened + 1)
        assert await sound(database)
        await database.close()


class Connections:
    """Where checkpoints run: what runs where is noted, and may be held up or fail."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.go_on = asyncio.Event()
        self.go_on.set()
        self.fails = False
        self._connection = sqlite3.connect(":memory:")

    async def beside(self, function: Callable[[sqlite3.Connection], T], /) -> T:
        self.ran.append("beside")
        await self.go_on.wait()
        if self.fails:
            raise DatabaseUnavailable("the disk is full")
        return function(self._connection)

    async def writer(self, function: Callable[[sqlite3.Connection], T], /) -> T:
        self.ran.append("writer")
        return function(self._connection)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "a.db-wal"


def write(log: Path, number: int) -> None:
    """Change the log."""
    log.write_bytes(b"x" * number)


def commit(checkpoints: Checkpoints, log: Path, number: int) -> None:
    """Commit often enough for a checkpoint, as one change of the log."""
    write(log, number)
    for _ in range(2000):
        checkpoints.committed(1)


async def turns() -> None:
    """Let every task run as far as it can."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_commits_go_on_during_a_checkpoint_and_begin_no_second(log: Path) -> None:
    connections = Connections()
    checkpoints = Checkpoints(log, connections.writer, connections.beside)
    connections.go_on.clear()

    commit(checkpoints, log, 1)
    await turns()
    commit(checkpoints, log, 2)
    await turns()
    assert connections.ran == ["beside"]

    connections.go_on.set()
    await checkpoints.end()
    assert connections.ran == ["beside"]


async def test_no_checkpoint_begins_on_a_log_that_was_not_written_since_the_last(log: Path) -> None:
    connections = Connections()
    checkpoints = Checkpoints(log, connections.writer, connections.beside)

    commit(checkpoints, log, 1)
    await turns()
    for _ in range(2000):
        checkpoints.committed(1)
    await turns()

    assert connections.ran == ["beside"]


async def test_no_checkpoint_begins_on_a_log_that_was_emptied_and_not_written_since(
    log: Path,
) -> None:
    connections = Connections()
    checkpoints = Checkpoints(log, connections.writer, connections.beside)
    write(log, 1)

    assert await checkpoints.empty_log()
    for _ in range(2000):
        checkpoints.committed(1)
    await turns()

    assert connections.ran == ["writer"]


async def test_checkpoint_that_fails_is_done_later(log: Path) -> None:
    connections = Connections()
    checkpoints = Checkpoints(log, connections.writer, connections.beside)
    connections.fails = True

    commit(checkpoints, log, 1)
    await turns()
    connections.fails = False
    commit(checkpoints, log, 2)
    await turns()

    assert connections.ran == ["beside", "beside"]


async def test_none_begins_after_the_end(log: Path) -> None:
    connections = Connections()
    checkpoints = Checkpoints(log, connections.writer, connections.beside)

    await checkpoints.end()
    commit(checkpoints, log, 1)
    await turns()

    assert connections.ran == []
