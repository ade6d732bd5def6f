"""Giving a database's free space back to the file system, while its service is stopped.

SQLite keeps the pages of what was deleted for later rows, and nothing is wrong with that. This is
for whoever deleted much, or wants nothing left of what an older version did not overwrite.
"""

import contextlib
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

from shared.sqlite import DatabaseUnavailable, create, lock, sync

__all__ = ["compact"]


def compact(
    database: Path, prepare: Callable[[sqlite3.Connection], None] = lambda _connection: None
) -> tuple[int, int]:
    """Write a database anew, without free pages; return its size before and after, in bytes.

    This needs as much free disk beside the database as is in use. Until the last step, which is one
    rename, nothing has changed. `prepare` first merges what the database has of its own to merge.

    Raises:
        DatabaseInUse: the service is running.
        DatabaseUnavailable: there is none, it is damaged, or the disk is full; nothing was changed.
    """
    if not database.exists():
        raise DatabaseUnavailable(f"{database} does not exist")
    descriptor = lock(database)
    copy = database.with_name(database.name + ".compacting")
    try:
        before = _size(database)
        copy.unlink(missing_ok=True)
        create(copy, owner_of=database)
        _write_anew(database, copy, prepare)
        copy.replace(database)
        sync(database.parent)
        return before, _size(database)
    except (sqlite3.Error, OSError) as error:
        raise DatabaseUnavailable(f"{database} cannot be compacted: {error}") from error
    finally:
        copy.unlink(missing_ok=True)
        os.close(descriptor)


def _write_anew(database: Path, copy: Path, prepare: Callable[[sqlite3.Connection], None]) -> None:
    with contextlib.closing(sqlite3.connect(database, isolation_level=None)) as connection:
        prepare(connection)
        connection.execute("VACUUM INTO ?", (str(copy),))
        # The log belongs to the file that is replaced: beside the new one, it would damage that.
        (mode,) = connection.execute("PRAGMA journal_mode=DELETE").fetchone()
        if mode != "delete":
            raise DatabaseUnavailable(f"{database} is being read by another program")
    with contextlib.closing(sqlite3.connect(copy)) as connection:
        (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        raise DatabaseUnavailable(f"{database} is damaged: {verdict}")
    sync(copy)


def _size(database: Path) -> int:
    parts = (database.with_name(database.name + suffix) for suffix in ("", "-wal"))
    return sum(part.stat().st_size for part in parts if part.exists())
