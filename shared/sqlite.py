"""One SQLite database file, owned by one process: a single writing connection and a few readers.

Why this shape, and not a pool:

- Coroutines that share a connection share its transaction. Here a transaction is one function that
  runs from BEGIN to COMMIT in one hand-off to the writer's thread, so nothing can come in between
  and cancelling the caller cannot split it.
- Up to 3.51.2 SQLite can corrupt a WAL that two connections write or checkpoint
  (https://sqlite.org/wal.html#walresetbug); readers are opened read-only, a lock on a file beside
  the database keeps a second process out, and `Checkpoints` begins none when it could happen.
- `synchronous=FULL`: a commit returns when it is on the disk.
"""

import asyncio
import contextlib
import fcntl
import functools
import importlib.resources
import itertools
import os
import sqlite3
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TypeVar, cast
from urllib.parse import quote

import aiosqlite
import yoyo

from shared.database import DatabaseInUse, DatabaseTooNew, DatabaseUnavailable
from shared.sqlite_checkpoints import Checkpoints

__all__ = [
    "Database",
    "DatabaseInUse",
    "DatabaseTooNew",
    "DatabaseUnavailable",
    "attach",
    "create",
    "is_damage",
    "lock",
    "remove",
    "sync",
    "uri",
]

T = TypeVar("T")


class Database:
    """Reads and writes one file. Make it with `open` and `close` it: forgotten, its threads go on.

    Any coroutine may call `read` and `write`; writes run one after the other in the order they were
    called. Cancelling a caller does not stop a transaction that has been handed over: it commits.
    """

    def __init__(
        self,
        lock: int,
        log: Path,
        writer: aiosqlite.Connection,
        checkpointer: aiosqlite.Connection,
        readers: list[aiosqlite.Connection],
        *,
        begin: str,
    ) -> None:
        self._lock: int | None = lock
        self._writer = writer
        self._begin = begin
        self._checkpointer = checkpointer
        self._checkpoints = Checkpoints(
            log, functools.partial(_run, writer), functools.partial(_run, checkpointer)
        )
        self._readers = readers
        self._next_reader = itertools.cycle(readers)

    @classmethod
    async def open(
        cls,
        path: Path,
        migrations: str,
        *,
        readers: int = 2,
        busy_timeout_s: float = 2.0,
        cache_mib: int = 64,
        beside: Path | None = None,
    ) -> "Database":
        """Open `path`, making it and bringing its schema up to date first.

        `migrations` is the package that holds the numbered `.sql` files. Transactions and queries
        may read the tables of another database, `beside`, too, which is open here already.

        Raises:
            DatabaseInUse: another process has it open.
            DatabaseTooNew: a newer version has changed it.
            DatabaseUnavailable: it cannot be opened or migrated.
        """
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = lock(path)
        connections: list[aiosqlite.Connection] = []
        try:
            await _to_the_end(asyncio.to_thread(_migrate, path, migrations))
            for read_only in [False, False, *([True] * readers)]:
                connections.append(
                    await aiosqlite.connect(
                        uri(path, read_only=read_only),
                        uri=True,
                        isolation_level=None,
                        timeout=busy_timeout_s,
                    )
                )
                await _run(connections[-1], _configure, read_only, cache_mib)
                if beside is not None:
                    await _run(connections[-1], attach, beside)
        except (sqlite3.Error, OSError) as error:
            await _close(connections, descriptor)
            raise DatabaseUnavailable(f"{path}: {error}") from error
        except BaseException:
            await _close(connections, descriptor)
            raise
        writer, checkpointer, *read_only_ones = connections
        log = path.with_name(path.name + "-wal")
        # IMMEDIATE would hold a snapshot of the other database too, however long this goes on.
        begin = "BEGIN IMMEDIATE" if beside is None else "BEGIN"
        return cls(descriptor, log, writer, checkpointer, read_only_ones, begin=begin)

    async def write(self, transaction: Callable[[sqlite3.Connection], T]) -> T:
        """Run `transaction` between BEGIN and COMMIT; on return it is on the disk.

        An exception of `transaction` rolls back and comes out as it is.

        Raises:
            DatabaseUnavailable: locked, full, failing or closed; rolled back.
        """
        self._check_open()
        outcome: tuple[T, int] = await _run(self._writer, _in_transaction, self._begin, transaction)
        result, rows = outcome
        self._checkpoints.committed(rows)
        return result

    async def read(self, query: Callable[[sqlite3.Connection], T]) -> T:
        """Run `query` on a read-only connection, within one snapshot of the database.

        Raises:
            DatabaseUnavailable: the disk fails, or it is closed.
        """
        self._check_open()
        return await _run(next(self._next_reader), _in_snapshot, query)

    async def empty_log(self) -> bool:
        """Write the log back into the database and empty it: no page is kept as it once was.

        Returns False when somebody reads an older state just now; then call again later.

        Raises:
            DatabaseUnavailable: the disk fails, or is full.
        """
        return await self._checkpoints.empty_log()

    async def close(self) -> None:
        """Wait for what was handed over, then close every connection and let other processes in.

        Closing again does nothing.
        """
        if self._lock is not None:
            lock, self._lock = self._lock, None
            await _to_the_end(self._close_all(lock))

    async def _close_all(self, lock: int) -> None:
        await self._checkpoints.end()
        await _close([*self._readers, self._checkpointer, self._writer], lock)

    def _check_open(self) -> None:
        if self._lock is None:
            raise DatabaseUnavailable("the database is closed")


async def _run(
    connection: aiosqlite.Connection, function: Callable[..., T], *arguments: object
) -> T:
    """Run a whole function on the connection's thread.

    aiosqlite's public methods cost one hand-off a statement; `_execute` is what they are made of,
    and a batch of messages needs exactly one.
    """
    try:
        return cast(T, await connection._execute(function, connection._conn, *arguments))  # type: ignore[no-untyped-call]
    except (sqlite3.OperationalError, sqlite3.InterfaceError) as error:
        raise DatabaseUnavailable(str(error)) from error


def _in_transaction(
    connection: sqlite3.Connection, begin: str, transaction: Callable[[sqlite3.Connection], T]
) -> tuple[T, int]:
    """Return what the transaction returns, and how many rows it changed."""
    rows = connection.total_changes
    connection.execute(begin)
    try:
        result = transaction(connection)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # a full disk has rolled back already
            connection.execute("ROLLBACK")
        raise
    return result, connection.total_changes - rows


def _in_snapshot(connection: sqlite3.Connection, query: Callable[[sqlite3.Connection], T]) -> T:
    connection.execute("BEGIN")
    try:
        return query(connection)
    finally:
        connection.execute("COMMIT")


def _configure(connection: sqlite3.Connection, read_only: bool, cache_mib: int) -> None:
    if not read_only:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA foreign_keys=ON")
        connection.execute("PRAGMA secure_delete=ON")  # what is deleted is gone from the file
        connection.execute("PRAGMA wal_autocheckpoint=0")  # `Checkpoints` does it
        connection.execute("PRAGMA journal_size_limit=67108864")
    connection.execute(f"PRAGMA cache_size={-1024 * cache_mib}")
    connection.execute("PRAGMA temp_store=MEMORY")


def attach(connection: sqlite3.Connection, path: Path) -> None:
    """Let a connection, which takes URIs, read the tables of another database, too."""
    connection.execute("ATTACH ? AS beside", (uri(path, read_only=True),))


def uri(path: Path, *, read_only: bool) -> str:
    """Name a file for SQLite, whatever is in its path: `?`, `#` and `%` mean something in a URI."""
    return f"file:{quote(bytes(path))}" + ("?mode=ro" if read_only else "")


def is_damage(error: BaseException) -> bool:
    """Tell whether what an operation raised says that the file itself is damaged."""
    cause = error.__cause__ if isinstance(error, DatabaseUnavailable) else error
    code: int | None = getattr(cause, "sqlite_errorcode", None)
    return code is not None and code & 0xFF in _DAMAGE  # extended codes are above


_DAMAGE = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


def create(path: Path, *, owner_of: Path) -> None:
    """Make an empty file for its owner alone, whom root takes over from another file or folder: an
    operator may be root where the service is not.

    Raises:
        OSError: it cannot be made, or exists.
    """
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL, 0o600)
    try:
        if os.geteuid() == 0:
            status = owner_of.stat()
            os.fchown(descriptor, status.st_uid, status.st_gid)
    finally:
        os.close(descriptor)


def sync(path: Path) -> None:
    """Have the disk hold what a file, or a folder's list of files, holds."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove(path: Path) -> None:
    """Delete a database that nobody has open, with the logs that a killed process left."""
    for suffix in ("", "-wal", "-shm", "-journal"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def lock(path: Path) -> int:
    """Keep every other process from opening `path`, until the returned descriptor is closed.

    Raises:
        DatabaseInUse: another process has it open.
    """
    descriptor = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise DatabaseInUse(f"{path} is open in another process") from None
    return descriptor


async def _to_the_end(work: Coroutine[None, None, None]) -> None:
    """Await it, and be cancelled no sooner than it has ended: nothing is left half open."""
    running = asyncio.ensure_future(work)
    try:
        await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait([running])
        raise


def _migrate(path: Path, package: str) -> None:
    """Apply the migrations that are missing. The file lock is held, so yoyo's own is not needed
    (a process killed while it holds that one would leave it held).

    Each is noted in the transaction that applies it: `apply_migrations` does so in one of its own,
    and a process killed in between would apply it again.

    Raises:
        DatabaseTooNew: a newer version has changed the schema; nothing was changed.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    os.close(descriptor)
    with importlib.resources.as_file(importlib.resources.files(package)) as folder:
        found = yoyo.read_migrations(str(folder))  # among them the package's own __init__.py
        migrations = found.filter(lambda migration: migration.path.endswith(".sql"))
        backend = yoyo.get_backend(f"sqlite:///{quote(bytes(path.resolve()))}")
        try:
            backend.connection.execute("PRAGMA secure_delete=ON")
            known = {migration.hash for migration in migrations}
            if not known.issuperset(backend.get_applied_migration_hashes()):
                raise DatabaseTooNew(
                    f"{path}: a newer version has changed it. Start that one, or restore a backup "
                    "that this one has made"
                )
            for migration in backend.to_apply(migrations):
                with backend.transaction():
                    migration.process_steps(backend, "apply")
                    backend.mark_one(migration, log=False)
        finally:
            backend.connection.close()


async def _close(connections: list[aiosqlite.Connection], lock: int) -> None:
    for connection in connections:
        with contextlib.suppress(sqlite3.Error):
            await connection.close()
    os.close(lock)
