"""What a client must remember when its process dies: one SQLite file.

Queued messages, where the client stands in the log of events (the cursor), and names. Everything is
one short transaction with `synchronous=FULL`: when a call returns, it is on the disk. The file is
held exclusively; a second client on it gets `StateInUse`.
"""

import asyncio
import contextlib
import os
import sqlite3
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import msgspec

from duet_client.errors import ClientClosed, StateError, StateInUse, WrongState

__all__ = ["Queued", "State", "Stored"]

T = TypeVar("T")

_SCHEMA_VERSION = 1
_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE outbox (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    kind TEXT NOT NULL,
    recipient TEXT NOT NULL,
    user_id TEXT,
    fields TEXT NOT NULL,
    error_code TEXT,
    error_message TEXT
);
CREATE TABLE sent (number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE);
CREATE TABLE names (name TEXT PRIMARY KEY, user_id TEXT NOT NULL) WITHOUT ROWID;
"""
_SENT_KEPT = 10_000
"""Ids of acknowledged messages, so that their echo after a resume is not taken for another's."""


class Queued(msgspec.Struct, frozen=True):
    """A row of the outbox. `user_id` is None while nobody knows yet whose name `recipient` is."""

    id: str
    kind: str
    recipient: str
    user_id: str | None
    fields: dict[str, str | int]
    error_code: str | None = None
    error_message: str | None = None


class Stored(msgspec.Struct, frozen=True):
    """What an earlier process left."""

    cursor: str | None
    queued: list[Queued]
    sent: list[str]
    names: dict[str, str]


class State:
    """The file, through one thread. Any coroutine may call; calls happen in their order.

    Cancelling a caller does not undo what it asked for.
    """

    def __init__(self, connection: sqlite3.Connection, thread: ThreadPoolExecutor) -> None:
        self._connection = connection
        self._thread = thread
        self._closed = False

    @classmethod
    async def open(cls, path: Path | str) -> "State":
        """Open the file, making it first when there is none. `:memory:` forgets on close.

        Raises:
            StateInUse: somebody else has it open.
            StateError: it cannot be opened, or a newer version of this package wrote it.
        """
        thread = ThreadPoolExecutor(1, thread_name_prefix="duet-state")
        try:
            connection = await asyncio.wrap_future(thread.submit(_open, str(path)))
        except sqlite3.OperationalError as error:
            thread.shutdown(wait=False)
            if "locked" in str(error):
                raise StateInUse(f"{path} is open in another client") from None
            raise StateError(f"{path}: {error}") from error
        except (sqlite3.Error, OSError) as error:
            thread.shutdown(wait=False)
            raise StateError(f"{path}: {error}") from error
        except BaseException:
            thread.shutdown(wait=False)
            raise
        return cls(connection, thread)

    async def load(self, user_id: str) -> Stored:
        """Return what an earlier process left, and claim the file for this user.

        Raises:
            WrongState: it belongs to another one.
        """
        return await self._transact(lambda db: _load(db, user_id))

    async def enqueue(self, queued: Queued) -> None:
        """Keep a message until it is settled; one of this id that was refused goes again."""
        await self._transact(
            lambda db: db.execute(
                "INSERT OR REPLACE INTO outbox (id, kind, recipient, user_id, fields)"
                " VALUES (?, ?, ?, ?, ?)",
                (
                    queued.id,
                    queued.kind,
                    queued.recipient,
                    queued.user_id,
                    msgspec.json.encode(queued.fields).decode(),
                ),
            )
        )

    async def acknowledged(self, ids: Iterable[str]) -> None:
        """Forget messages that are on the gateway's disk, but for their ids."""
        rows = [(entry_id,) for entry_id in ids]

        def forget(db: sqlite3.Connection) -> None:
            db.executemany("DELETE FROM outbox WHERE id = ?", rows)
            db.executemany("INSERT OR IGNORE INTO sent (id) VALUES (?)", rows)
            db.execute(
                "DELETE FROM sent WHERE number <= (SELECT max(number) FROM sent) - ?", (_SENT_KEPT,)
            )

        await self._transact(forget)

    async def refused(self, entry_id: str, code: str, message: str) -> None:
        """Keep a refusal until somebody has taken note of it."""
        await self._transact(
            lambda db: db.execute(
                "UPDATE outbox SET error_code = ?, error_message = ? WHERE id = ?",
                (code, message, entry_id),
            )
        )

    async def handled(self, cursor: str | None, failed_ids: Iterable[str] = ()) -> None:
        """Events up to `cursor`, and these refusals, need not come again."""
        rows = [(entry_id,) for entry_id in failed_ids]

        def note(db: sqlite3.Connection) -> None:
            if cursor is not None:
                _set(db, "cursor", cursor)
            db.executemany("DELETE FROM outbox WHERE id = ? AND error_code IS NOT NULL", rows)

        await self._transact(note)

    async def withdrawn(self, entry_id: str) -> None:
        """Forget a message that was refused, and the refusal with it."""
        await self._transact(lambda db: db.execute("DELETE FROM outbox WHERE id = ?", (entry_id,)))

    async def named(self, name: str, user_id: str) -> None:
        """Remember whose name this is: names are never given to anybody else."""

        def note(db: sqlite3.Connection) -> None:
            db.execute("INSERT OR REPLACE INTO names VALUES (?, ?)", (name, user_id))
            db.execute(
                "UPDATE outbox SET user_id = ? WHERE user_id IS NULL AND recipient = ?",
                (user_id, name),
            )

        await self._transact(note)

    async def close(self) -> None:
        """Finish what was asked for and let others open the file."""
        self._closed = True
        with contextlib.suppress(RuntimeError):  # closed already
            await asyncio.shield(asyncio.wrap_future(self._thread.submit(self._connection.close)))
        self._thread.shutdown(wait=False)

    async def _transact(self, change: Callable[[sqlite3.Connection], T]) -> T:
        if self._closed:
            raise ClientClosed("the client is closed")
        try:
            return await asyncio.shield(
                asyncio.wrap_future(self._thread.submit(_in_transaction, self._connection, change))
            )
        except sqlite3.Error as error:
            raise StateError(f"the state file: {error}") from error


def _open(path: str) -> sqlite3.Connection:
    if path != ":memory:":
        Path(path).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    connection = sqlite3.connect(path, isolation_level=None, timeout=0, check_same_thread=False)
    try:
        connection.execute("PRAGMA locking_mode=EXCLUSIVE")
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        _in_transaction(connection, _migrate)
    except BaseException:
        connection.close()
        raise
    return connection


def _migrate(db: sqlite3.Connection) -> None:
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version > _SCHEMA_VERSION:
        raise sqlite3.DatabaseError("a newer version of duet_client wrote it; update this one")
    if version == 0:
        for statement in filter(str.strip, _SCHEMA.split(";")):
            db.execute(statement)
        db.execute(f"PRAGMA user_version = {_SCHEMA_VERSION}")
    else:  # a write takes the lock that keeps others out
        _set(db, "opened", "")


def _load(db: sqlite3.Connection, user_id: str) -> Stored:
    meta = dict(db.execute("SELECT key, value FROM meta"))
    if meta.get("user", user_id) != user_id:
        raise WrongState("this state file belongs to another user; use one file for each")
    _set(db, "user", user_id)
    rows = db.execute(
        """SELECT id, kind, recipient, user_id, fields, error_code, error_message
        FROM outbox ORDER BY number"""
    )
    return Stored(
        cursor=meta.get("cursor"),
        queued=[_queued(row) for row in rows],
        sent=[sent_id for (sent_id,) in db.execute("SELECT id FROM sent ORDER BY number")],
        names=dict(db.execute("SELECT name, user_id FROM names")),
    )


def _set(db: sqlite3.Connection, key: str, value: str) -> None:
    db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))


def _in_transaction(db: sqlite3.Connection, change: Callable[[sqlite3.Connection], T]) -> T:
    db.execute("BEGIN IMMEDIATE")
    try:
        result = change(db)
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise
    return result


def _queued(row: tuple[str, str, str, str | None, str, str | None, str | None]) -> Queued:
    entry_id, kind, recipient, user_id, fields, code, message = row
    return Queued(entry_id, kind, recipient, user_id, msgspec.json.decode(fields), code, message)
