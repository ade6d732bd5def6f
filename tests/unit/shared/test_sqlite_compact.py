"""Giving free space back to the file system."""

import contextlib
import os
import sqlite3
from pathlib import Path

import pytest

from shared.sqlite import Database, DatabaseInUse, DatabaseUnavailable
from shared.sqlite_compact import compact

MIGRATIONS = "ws_gateway.adapters.migrations.sqlite"


async def filled(path: Path, *, and_emptied: bool) -> None:
    """Make a database with thousands of users, all but one of whom are gone again."""
    database = await Database.open(path, MIGRATIONS)

    def fill(connection: sqlite3.Connection) -> None:
        rows = ((f"u_{number:060}",) for number in range(5000))
        connection.executemany("INSERT INTO users (id) VALUES (?)", rows)
        if and_emptied:
            connection.execute("DELETE FROM users WHERE key > 1")

    await database.write(fill)
    await database.close()


async def users_in(path: Path) -> int:
    database = await Database.open(path, MIGRATIONS)
    try:
        return await database.read(
            lambda c: int(c.execute("SELECT count(*) FROM users").fetchone()[0])
        )
    finally:
        await database.close()


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


async def test_free_pages_go_and_rows_stay(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    await filled(path, and_emptied=True)
    before, after = compact(path)
    assert before > 900_000
    assert path.stat().st_size == after < 300_000
    assert path.stat().st_mode & 0o077 == 0
    assert names_in(tmp_path) == {"a.db", "a.db.lock"}
    assert await users_in(path) == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
async def test_root_leaves_the_database_to_whom_it_belongs(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    await filled(path, and_emptied=True)
    os.chown(path, 10001, 10002)
    compact(path)
    assert (path.stat().st_uid, path.stat().st_gid) == (10001, 10002)


async def test_what_only_the_log_of_a_killed_service_holds_is_kept(tmp_path: Path) -> None:
    path, killed = tmp_path / "a.db", tmp_path / "killed"
    killed.mkdir()
    database = await Database.open(path, MIGRATIONS)
    await database.write(lambda c: c.execute("INSERT INTO users (id) VALUES ('u_ann')") and None)
    for name in ("a.db", "a.db-wal"):
        (killed / name).write_bytes((tmp_path / name).read_bytes())
    await database.close()
    compact(killed / "a.db")
    assert not (killed / "a.db-wal").exists()
    assert await users_in(killed / "a.db") == 1


async def test_database_in_use_is_left_alone(tmp_path: Path) -> None:
    database = await Database.open(tmp_path / "a.db", MIGRATIONS)
    with pytest.raises(DatabaseInUse):
        compact(tmp_path / "a.db")
    await database.close()


async def test_what_cannot_be_compacted_is_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with pytest.raises(DatabaseUnavailable, match="does not exist"):
        compact(path)
    await filled(path, and_emptied=False)
    damaged = bytearray(path.read_bytes())
    damaged[100_000:300_000] = b"\xff" * 200_000
    path.write_bytes(damaged)
    with pytest.raises(DatabaseUnavailable):
        compact(path)
    assert path.read_bytes()[100_000:300_000] == damaged[100_000:300_000]
    assert names_in(tmp_path) == {"a.db", "a.db.lock"}


async def test_program_that_reads_it_keeps_its_log_in_place(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    await filled(path, and_emptied=False)
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.execute("BEGIN")
        other.execute("SELECT count(*) FROM users").fetchone()
        with pytest.raises(DatabaseUnavailable, match=r"locked|another program"):
            compact(path)
    assert await users_in(path) == 5000


def test_preparation_that_fails_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE one (x)")

    def fail(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO missing VALUES (1)")

    with pytest.raises(DatabaseUnavailable, match="missing"):
        compact(path, fail)
    assert path.exists()
