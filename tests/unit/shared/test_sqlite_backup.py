"""Taking a backup of a database in use, and putting one back."""

import contextlib
import os
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from shared.sqlite import Database, DatabaseInUse
from shared.sqlite_backup import BackupUnusable, back_up, restore

MIGRATIONS = "ws_gateway.adapters.migrations.sqlite"


@contextlib.asynccontextmanager
async def opened(path: Path) -> AsyncIterator[Database]:
    database = await Database.open(path, MIGRATIONS)
    try:
        yield database
    finally:
        await database.close()


async def add(database: Database, user_id: str) -> None:
    def insert(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO users (id) VALUES (?)", (user_id,))

    await database.write(insert)


def users_in(path: Path) -> list[str]:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return [user for (user,) in connection.execute("SELECT id FROM users ORDER BY id")]


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def rename_life(connection: sqlite3.Connection) -> None:
    connection.execute("UPDATE life SET epoch = 'another'")


async def test_backup_of_a_database_in_use_holds_what_was_committed(tmp_path: Path) -> None:
    async with opened(tmp_path / "a.db") as database:
        await add(database, "before")
        back_up(tmp_path / "a.db", tmp_path / "backup")
        await add(database, "after")
    assert users_in(tmp_path / "backup") == ["before"]
    assert users_in(tmp_path / "a.db") == ["after", "before"]


async def test_backup_is_one_file_that_only_its_owner_reads(tmp_path: Path) -> None:
    (tmp_path / "backups").mkdir()
    async with opened(tmp_path / "a.db"):
        back_up(tmp_path / "a.db", tmp_path / "backups" / "backup")
    (made,) = (tmp_path / "backups").iterdir()
    assert made.stat().st_mode & 0o077 == 0


async def test_backup_overwrites_nothing(tmp_path: Path) -> None:
    (tmp_path / "backup").write_text("precious")
    async with opened(tmp_path / "a.db"):
        with pytest.raises(BackupUnusable, match="File exists"):
            back_up(tmp_path / "a.db", tmp_path / "backup")
    assert (tmp_path / "backup").read_text() == "precious"


def test_backup_of_nothing_makes_nothing(tmp_path: Path) -> None:
    with pytest.raises(BackupUnusable, match="does not exist"):
        back_up(tmp_path / "a.db", tmp_path / "backup")
    assert list(tmp_path.iterdir()) == []


async def test_restored_database_has_a_new_life_and_the_old_one_is_kept(tmp_path: Path) -> None:
    async with opened(tmp_path / "a.db") as database:
        await add(database, "before")
        back_up(tmp_path / "a.db", tmp_path / "backup")
        await add(database, "after")
    replaced = restore(tmp_path / "backup", tmp_path / "a.db", rename_life)
    assert replaced == tmp_path / "a.db.replaced"
    assert users_in(replaced) == ["after", "before"]
    async with opened(tmp_path / "a.db") as database:
        epoch = await database.read(lambda c: c.execute("SELECT epoch FROM life").fetchone()[0])
        assert epoch == "another"
    assert users_in(tmp_path / "a.db") == ["before"]


async def test_write_ahead_log_of_a_crash_goes_with_the_database_it_belongs_to(
    tmp_path: Path,
) -> None:
    crashed = tmp_path / "crashed.db"
    async with opened(tmp_path / "a.db") as database:
        back_up(tmp_path / "a.db", tmp_path / "backup")
        await add(database, "in the log")
        for suffix in ("", "-wal"):
            crashed.with_name(crashed.name + suffix).write_bytes(
                (tmp_path / f"a.db{suffix}").read_bytes()
            )
    replaced = restore(tmp_path / "backup", crashed, rename_life)
    assert replaced is not None
    assert users_in(replaced) == ["in the log"]
    assert users_in(crashed) == []


async def test_journal_of_a_killed_migration_goes_with_the_database_it_belongs_to(
    tmp_path: Path,
) -> None:
    """Until a restored database was opened once, transactions are rolled back from a journal."""
    async with opened(tmp_path / "a.db") as database:
        back_up(tmp_path / "a.db", tmp_path / "backup")
        for number in range(2000):
            await add(database, f"{number:0>60}")
        back_up(tmp_path / "a.db", tmp_path / "full")
    killed = tmp_path / "killed.db"
    with contextlib.closing(sqlite3.connect(tmp_path / "full")) as connection:
        connection.execute("PRAGMA cache_size=5")  # pages reach the file before the commit
        connection.execute("UPDATE users SET id = 'half' || id")
        for suffix in ("", "-journal"):
            killed.with_name(killed.name + suffix).write_bytes(
                (tmp_path / f"full{suffix}").read_bytes()
            )
    replaced = restore(tmp_path / "backup", killed, rename_life)
    assert replaced is not None
    assert users_in(replaced) == [f"{number:0>60}" for number in range(2000)]
    assert users_in(killed) == []


async def test_nothing_is_restored_under_a_running_service(tmp_path: Path) -> None:
    async with opened(tmp_path / "a.db") as database:
        back_up(tmp_path / "a.db", tmp_path / "backup")
        await add(database, "after")
        with pytest.raises(DatabaseInUse):
            restore(tmp_path / "backup", tmp_path / "a.db", rename_life)
    assert users_in(tmp_path / "a.db") == ["after"]


async def test_restores_where_nothing_was(tmp_path: Path) -> None:
    async with opened(tmp_path / "a.db") as database:
        await add(database, "before")
        back_up(tmp_path / "a.db", tmp_path / "backup")
    assert restore(tmp_path / "backup", tmp_path / "new" / "a.db", rename_life) is None
    assert users_in(tmp_path / "new" / "a.db") == ["before"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
@pytest.mark.parametrize("is_there", [True, False])
async def test_root_restores_for_whom_the_database_belongs_to(
    tmp_path: Path, is_there: bool
) -> None:
    path = tmp_path / "data" / "a.db"
    async with opened(path):
        back_up(path, tmp_path / "backup")
    os.chown(path if is_there else path.parent, 10001, 10002)
    if not is_there:
        path.unlink()
    restore(tmp_path / "backup", path, rename_life)
    assert (path.stat().st_uid, path.stat().st_gid) == (10001, 10002)


@pytest.mark.parametrize("content", [None, b"", b"no database at all" * 100])
async def test_what_is_no_backup_changes_nothing(tmp_path: Path, content: bytes | None) -> None:
    async with opened(tmp_path / "a.db") as database:
        await add(database, "kept")
    if content is not None:
        (tmp_path / "backup").write_bytes(content)
    before = names_in(tmp_path)
    with pytest.raises(BackupUnusable):
        restore(tmp_path / "backup", tmp_path / "a.db", rename_life)
    assert names_in(tmp_path) == before
    assert users_in(tmp_path / "a.db") == ["kept"]


async def test_damaged_backup_changes_nothing(tmp_path: Path) -> None:
    async with opened(tmp_path / "a.db") as database:
        for number in range(2000):
            await add(database, f"{number:0>60}")
        back_up(tmp_path / "a.db", tmp_path / "backup")
    raw = bytearray((tmp_path / "backup").read_bytes())
    raw[len(raw) // 2 : len(raw) // 2 + 8192] = b"\xff" * 8192
    (tmp_path / "backup").write_bytes(raw)
    with pytest.raises(BackupUnusable):
        restore(tmp_path / "backup", tmp_path / "a.db", rename_life)
    assert len(users_in(tmp_path / "a.db")) == 2000
