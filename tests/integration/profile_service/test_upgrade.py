"""A database that an older version made is brought up to date, and keeps what it holds."""

import contextlib
import importlib.resources
import shutil
import sqlite3
from pathlib import Path

import yoyo

from profile_service.adapters.sqlite_users import SqliteUserStore
from shared.sqlite import Database

MIGRATIONS = "profile_service.adapters.migrations.sqlite"


def made_by_the_first_version(path: Path, tmp_path: Path) -> None:
    """Make a database with the first migration alone, and a user in it."""
    old = tmp_path / "old"
    old.mkdir()
    with importlib.resources.as_file(importlib.resources.files(MIGRATIONS)) as folder:
        shutil.copy(folder / "0001.initial.sql", old)
    backend = yoyo.get_backend(f"sqlite:///{path}")
    backend.apply_migrations(yoyo.read_migrations(str(old)))
    backend.connection.close()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute(
            "INSERT INTO users (id, username, canonical_username, password_hash, token_version,"
            " revision, profile, created_at_ms, updated_at_ms)"
            " VALUES ('u_ann', 'Ann', 'ann', 'hash', 1, 1, '{}', 1, 1)"
        )
        connection.commit()


async def test_database_of_the_first_version_is_upgraded_and_keeps_its_users(
    tmp_path: Path,
) -> None:
    path = tmp_path / "users.db"
    made_by_the_first_version(path, tmp_path)
    for _ in range(2):  # upgraded once, then only opened
        database = await Database.open(path, MIGRATIONS)
        try:
            user = await SqliteUserStore(database).user_by_name("ann")
            tables = await database.read(
                lambda c: {name for (name,) in c.execute("SELECT name FROM sqlite_master")}
            )
        finally:
            await database.close()
        assert user is not None
        assert user.username == "Ann"
        assert "external_identities" in tables
