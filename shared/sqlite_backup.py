"""Backups of a database: taken while the service runs, put back while it does not.

A restored database stands for an earlier time, and whoever remembers a later one must notice. So
the owner of the database gives it a new life as a part of putting it back.
"""

import contextlib
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

from shared.sqlite import create, lock, remove, sync, uri

__all__ = ["BackupUnusable", "back_up", "restore"]


class BackupUnusable(Exception):
    """The backup cannot be taken or put back; the message says why. Nothing was changed."""


def back_up(database: Path, backup: Path) -> None:
    """Copy a database, as it is at one moment, to a file that does not exist yet.

    The service may be running: this only reads, and holds nobody up.

    Raises:
        BackupUnusable: there is no such database, or the file exists or cannot be written.
    """
    if not database.exists():
        raise BackupUnusable(f"{database} does not exist")
    try:
        os.close(os.open(backup, os.O_CREAT | os.O_EXCL, 0o600))
    except OSError as error:
        raise BackupUnusable(f"{backup}: {error.strerror}") from error
    try:
        _copy(database, backup)
    except BackupUnusable:
        backup.unlink()
        raise


def restore(
    backup: Path, database: Path, begin_new_life: Callable[[sqlite3.Connection], None]
) -> Path | None:
    """Put a backup in a database's place; return where the replaced one is, if there was one.

    `begin_new_life` changes the copy so that nobody mistakes it for what it replaces. An earlier
    replaced database at the same place is overwritten.

    Raises:
        BackupUnusable: the backup is damaged, or not one of this database.
        DatabaseInUse: the service is running.
    """
    if not backup.exists():
        raise BackupUnusable(f"{backup} does not exist")
    database.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = lock(database)
    copy = database.with_name(database.name + ".restoring")
    try:
        remove(copy)
        create(copy, owner_of=database if database.exists() else database.parent)
        _copy(backup, copy)
        _begin(copy, begin_new_life)
        return _replace(database, copy)
    finally:
        remove(copy)
        os.close(descriptor)


def _copy(source: Path, target: Path) -> None:
    try:
        with (
            contextlib.closing(sqlite3.connect(uri(source, read_only=True), uri=True)) as original,
            contextlib.closing(sqlite3.connect(target)) as copy,
        ):
            original.backup(copy)
            copy.execute("PRAGMA journal_mode=DELETE")  # one file, readable from any medium
        sync(target)
    except (sqlite3.Error, OSError) as error:
        raise BackupUnusable(f"{source} cannot be copied to {target}: {error}") from error


def _begin(copy: Path, begin_new_life: Callable[[sqlite3.Connection], None]) -> None:
    try:
        with contextlib.closing(sqlite3.connect(copy)) as connection:
            (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            if verdict != "ok":
                raise BackupUnusable(f"the backup is damaged: {verdict}")
            with connection:
                begin_new_life(connection)
        sync(copy)
    except sqlite3.Error as error:
        raise BackupUnusable(f"this is not a backup of this service: {error}") from error


def _replace(database: Path, copy: Path) -> Path | None:
    """Put the copy in place in one step, and keep what was there, with its own logs."""
    replaced = None
    if database.exists():
        replaced = _beside(database, ".replaced")
        remove(replaced)
        os.link(database, replaced)
    for suffix in ("-wal", "-journal"):  # of a killed process; each would corrupt another database
        log = _beside(database, suffix)
        if replaced is not None and log.exists():
            log.rename(_beside(replaced, suffix))
        log.unlink(missing_ok=True)
    _beside(database, "-shm").unlink(missing_ok=True)
    copy.replace(database)
    sync(database.parent)
    return replaced


def _beside(database: Path, suffix: str) -> Path:
    return database.with_name(database.name + suffix)
