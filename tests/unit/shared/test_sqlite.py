"""One database, one process: transactions whole or not at all, faults that lose nothing."""

import asyncio
import contextlib
import functools
import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import yoyo

from shared import sqlite
from shared.sqlite import Database, DatabaseInUse, DatabaseTooNew, DatabaseUnavailable, lock
from shared.sqlite_backup import back_up

MIGRATIONS = "ws_gateway.adapters.migrations.sqlite"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "made" / "test.db"


@pytest.fixture
async def database(path: Path) -> AsyncIterator[Database]:
    database = await Database.open(path, MIGRATIONS, busy_timeout_s=0.05)
    await database.write(lambda c: c.execute("CREATE TABLE notes (text TEXT) STRICT"))
    yield database
    await database.close()


def insert(*texts: str) -> Callable[[sqlite3.Connection], int]:
    def transaction(connection: sqlite3.Connection) -> int:
        connection.executemany("INSERT INTO notes VALUES (?)", [(text,) for text in texts])
        return len(texts)

    return transaction


def notes(connection: sqlite3.Connection) -> list[str]:
    return [text for (text,) in connection.execute("SELECT text FROM notes ORDER BY rowid")]


async def test_write_returns_what_the_transaction_returns(database: Database) -> None:
    assert await database.write(insert("a", "b")) == 2
    assert await database.read(notes) == ["a", "b"]


async def test_exception_rolls_back_and_comes_out(database: Database) -> None:
    def transaction(connection: sqlite3.Connection) -> None:
        insert("lost")(connection)
        raise KeyError("why")

    with pytest.raises(KeyError, match="why"):
        await database.write(transaction)
    assert await database.read(notes) == []
    await database.write(insert("next"))
    assert await database.read(notes) == ["next"]


async def test_concurrent_writes_do_not_interleave(database: Database) -> None:
    running = threading.Semaphore(1)

    def transaction(name: str) -> Callable[[sqlite3.Connection], None]:
        def write(connection: sqlite3.Connection) -> None:
            assert running.acquire(blocking=False)
            for number in range(3):
                connection.execute("INSERT INTO notes VALUES (?)", (f"{name}{number}",))
            running.release()
            if name == "b":
                raise KeyError(name)

        return write

    results = await asyncio.gather(
        *(database.write(transaction(name)) for name in "abc"), return_exceptions=True
    )
    assert [type(result) for result in results] == [type(None), KeyError, type(None)]
    assert await database.read(notes) == ["a0", "a1", "a2", "c0", "c1", "c2"]


async def test_cancelled_writer_commits_whole(database: Database) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def transaction(connection: sqlite3.Connection) -> None:
        insert("a")(connection)
        begun.set()
        assert go_on.wait(5)
        insert("b")(connection)

    writing = asyncio.create_task(database.write(transaction))
    await asyncio.to_thread(begun.wait, 5)
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    go_on.set()
    await database.write(insert("c"))
    assert await database.read(notes) == ["a", "b", "c"]


async def test_cancelled_writer_that_waits_for_its_turn_is_whole_too(database: Database) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def blocks(connection: sqlite3.Connection) -> None:
        begun.set()
        assert go_on.wait(5)

    first = asyncio.create_task(database.write(blocks))
    await asyncio.to_thread(begun.wait, 5)
    waiting = asyncio.create_task(database.write(insert("a", "b")))
    await asyncio.sleep(0)
    waiting.cancel()
    go_on.set()
    await first
    await asyncio.gather(waiting, return_exceptions=True)
    await database.write(insert("c"))
    assert await database.read(notes) in (["a", "b", "c"], ["c"])


async def test_commits_are_durable_when_they_return(database: Database) -> None:
    def settings(connection: sqlite3.Connection) -> tuple[object, ...]:
        return tuple(
            connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("journal_mode", "synchronous", "foreign_keys")
        )

    assert await database.write(settings) == ("wal", 2, 1)


async def test_readers_cannot_write(database: Database) -> None:
    with pytest.raises(DatabaseUnavailable, match="readonly"):
        await database.read(insert("a"))
    assert await database.read(notes) == []


async def test_reader_sees_one_moment(database: Database) -> None:
    await database.write(insert("a"))
    looked, go_on = threading.Event(), threading.Event()

    def look_twice(connection: sqlite3.Connection) -> tuple[list[str], list[str]]:
        before = notes(connection)
        looked.set()
        assert go_on.wait(5)
        return before, notes(connection)

    reading = asyncio.create_task(database.read(look_twice))
    await asyncio.to_thread(looked.wait, 5)
    await database.write(insert("b"))
    go_on.set()
    assert await reading == (["a"], ["a"])
    assert await database.read(notes) == ["a", "b"]


async def test_fault_of_a_reader_leaves_it_usable(database: Database) -> None:
    for _ in range(4):
        with pytest.raises(DatabaseUnavailable, match="no such table"):
            await database.read(lambda c: c.execute("SELECT * FROM missing"))
    assert await database.read(notes) == []


async def test_locked_database_is_unavailable_then_works_again(
    database: Database, path: Path
) -> None:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(DatabaseUnavailable, match="locked"):
            await database.write(insert("a"))
        assert await database.read(notes) == []
        other.execute("ROLLBACK")
    await database.write(insert("a"))
    assert await database.read(notes) == ["a"]


async def test_full_disk_is_unavailable_and_changes_nothing(database: Database) -> None:
    def limit(pages: int) -> Callable[[sqlite3.Connection], None]:
        def set_limit(connection: sqlite3.Connection) -> None:
            (used,) = connection.execute("PRAGMA page_count").fetchone()
            connection.execute(f"PRAGMA max_page_count={used + pages}")

        return set_limit

    await database.write(limit(1))
    with pytest.raises(DatabaseUnavailable, match="full"):
        await database.write(insert(*["x" * 4000] * 20))
    assert await database.read(notes) == []
    await database.write(limit(1000))
    assert await database.write(insert("a")) == 1
    assert await database.read(notes) == ["a"]


async def test_second_opener_is_told_that_it_is_in_use(database: Database, path: Path) -> None:
    with pytest.raises(DatabaseInUse, match=r"test\.db is open in another process"):
        await Database.open(path, MIGRATIONS)


async def test_other_process_is_kept_out_until_this_one_closes(
    database: Database, path: Path
) -> None:
    script = (
        "import asyncio, sys, pathlib\n"
        "from shared.sqlite import Database, DatabaseInUse\n"
        "async def main():\n"
        f"    database = await Database.open(pathlib.Path({str(path)!r}), {MIGRATIONS!r})\n"
        "    await database.close()\n"
        "try:\n    asyncio.run(main())\n"
        "except DatabaseInUse:\n    sys.exit(7)\n"
    )

    def run() -> int:
        return subprocess.run([sys.executable, "-c", script], check=False).returncode

    assert await asyncio.to_thread(run) == 7
    await database.close()
    assert await asyncio.to_thread(run) == 0


async def test_lock_is_released_when_opening_fails(tmp_path: Path) -> None:
    path = tmp_path / "bad.db"
    path.write_bytes(b"this is no database, and long enough to be taken for one" * 100)
    for _ in range(2):
        with pytest.raises(DatabaseUnavailable, match=r"bad\.db"):
            await Database.open(path, MIGRATIONS)


async def test_unknown_migrations_leave_nothing_locked(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(ModuleNotFoundError):
            await Database.open(tmp_path / "test.db", "no.such.package")


async def test_migrations_are_applied_once_and_keep_what_is_there(path: Path) -> None:
    for number in range(1, 4):
        database = await Database.open(path, MIGRATIONS)
        await database.write(lambda c: c.execute("INSERT INTO users (id) VALUES (random())"))
        users = await database.read(lambda c: c.execute("SELECT id FROM users").fetchall())
        await database.close()
        assert len(users) == number


async def test_database_of_a_newer_version_is_left_alone(path: Path) -> None:
    await (await Database.open(path, MIGRATIONS)).close()
    with contextlib.closing(sqlite3.connect(path)) as later, later:
        later.execute(
            "INSERT INTO _yoyo_migration (migration_hash, migration_id) VALUES ('x', '9999.later')"
        )
    for _ in range(2):
        with pytest.raises(DatabaseTooNew, match=r"test\.db: a newer version has changed it"):
            await Database.open(path, MIGRATIONS)


class Killed(BaseException):
    """Nothing catches it, as nothing catches a SIGKILL."""


async def test_process_killed_while_it_migrates_goes_on_at_the_next_start(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It had applied a step, and not yet noted that."""

    def killed(*_arguments: object, **_options: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(yoyo.backends.DatabaseBackend, "mark_one", killed)
        with pytest.raises(Killed):
            await Database.open(path, MIGRATIONS)
    database = await Database.open(path, MIGRATIONS)
    await database.close()
    with pytest.raises(DatabaseUnavailable, match="closed"):
        await database.write(insert("late"))
    with pytest.raises(DatabaseUnavailable, match="closed"):
        await database.read(notes)


async def test_opening_that_is_cancelled_keeps_others_out_until_it_has_ended(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def slow(*_arguments: object, **_options: object) -> None:
        begun.set()
        assert go_on.wait(5)

    monkeypatch.setattr(sqlite, "_migrate", slow)
    opening = asyncio.create_task(Database.open(path, MIGRATIONS))
    await asyncio.to_thread(begun.wait, 5)
    opening.cancel()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(opening), 0.01)
    with pytest.raises(DatabaseInUse):
        lock(path)
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await opening
    os.close(lock(path))


async def test_files_are_only_the_owners(database: Database, path: Path) -> None:
    modes = await asyncio.to_thread(lambda: [p.stat().st_mode for p in (path, path.parent)])
    assert all(mode & 0o077 == 0 for mode in modes)


async def test_backup_is_a_whole_copy_of_a_live_database(
    database: Database, path: Path, tmp_path: Path
) -> None:
    await database.write(insert("a"))
    await asyncio.to_thread(back_up, path, tmp_path / "copy.db")
    await database.write(insert("b"))
    with contextlib.closing(sqlite3.connect(tmp_path / "copy.db")) as copy:
        assert notes(copy) == ["a"]
        assert copy.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def add_user(user_id: str, connection: sqlite3.Connection) -> None:
    connection.execute("INSERT INTO users (id) VALUES (?)", (user_id,))


@pytest.mark.parametrize("name", ["C# & co", "a?b", "p%41q", "mode=memory?cache", "caf\u00e9"])
async def test_path_is_a_file_whatever_its_characters_mean_in_a_uri(
    tmp_path: Path, name: str
) -> None:
    folder = tmp_path / name
    for text in ("a", "b"):
        database = await Database.open(folder / "a.db", MIGRATIONS)
        await database.write(functools.partial(add_user, text))
        beside = await Database.open(folder / "b.db", MIGRATIONS, beside=folder / "a.db")
        seen = await beside.read(
            lambda c: c.execute("SELECT count(*) FROM beside.users").fetchone()
        )
        await beside.close()
        await database.close()
    assert seen == (2,)
    await asyncio.to_thread(back_up, folder / "a.db", folder / "copy.db")
    with contextlib.closing(sqlite3.connect(folder / "copy.db")) as copy:
        assert copy.execute("SELECT id FROM users ORDER BY id").fetchall() == [("a",), ("b",)]
    assert await asyncio.to_thread(os.listdir, tmp_path) == [name]


async def test_closing_again_does_nothing(database: Database) -> None:
    await database.close()
    await database.close()
