"""Writes a database's log back into it beside the commits, so that no commit waits for that.

A checkpoint reads what the log holds, writes it into the database and syncs it: 5 to 15 ms for 8 MB
of log. SQLite does it within the commit that makes the log too long, and whoever waits for that
commit waits along. Here another connection does most of it while commits go on.

Two connections that write or checkpoint one log can corrupt it up to SQLite 3.51.2: when a
checkpoint begins on a log that is written back completely, and the other connection begins the log
anew at that moment (https://sqlite.org/wal.html#walresetbug). A log is only begun anew while all of
it is written back. So a checkpoint begins here only when the log has been written to since the last
one ended: by then it has been begun anew, or will not be before this one has ended, as nobody else
checkpoints (`PRAGMA wal_autocheckpoint=0` on the writer). ADR 22.
"""

import asyncio
import contextlib
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Protocol, TypeVar

from shared.database import DatabaseUnavailable

__all__ = ["Checkpoints"]

T = TypeVar("T")

_AFTER_PAGES = 500
"""What is written to the log between two checkpoints: 2 MB, about. A larger one takes a core that
is nearly full so long that those who write meanwhile wait for it after all."""
_LOG_PAGES = 2000
"""How long the log gets before it is begun anew, for which the writer ends the last checkpoint: the
sync takes it some milliseconds. A log that is much longer has no room in the processor's cache."""
_FIRST_AFTER_COMMITS = 50
_MIN_COMMITS, _MAX_COMMITS = 10, 1000
_AFTER_BYTES = 8 * 1024 * 1024
"""How much the log's file may grow between two checkpoints, in however few commits."""
_LOOK_AFTER_ROWS = 2000
"""Rows that are changed between two looks at the log's file. Not fewer: Linux notes that somebody
looked, and stores the time of the next write with it, which takes a commit 70 µs."""


class OnConnection(Protocol):
    """Runs a function on the thread of a connection.

    Raises:
        DatabaseUnavailable: the disk fails, or is full.
    """

    def __call__(self, function: Callable[[sqlite3.Connection], T], /) -> Awaitable[T]: ...


class Checkpoints:
    """Follows the commits of one writer, and checkpoints in time. For one event loop.

    `writer` runs between the writer's transactions, `beside` on a connection of its own. Nobody
    else may checkpoint.
    """

    def __init__(self, log: Path, writer: OnConnection, beside: OnConnection) -> None:
        self._log = log
        self._writer = writer
        self._beside = beside
        self._alone = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self._ended = False
        self._commits = 0
        self._rows = 0
        self._after_commits = _FIRST_AFTER_COMMITS
        self._pages = 0
        """Of the log, when the last checkpoint ended."""
        self._kept_pages = 0
        """Of the log, when it could not be begun anew: somebody reads an older state."""
        self._left = (0, 0)
        """The log's file as the last checkpoint left it: its size, and when it was written to."""

    def committed(self, rows: int) -> None:
        """Note a commit that changed so many rows. A checkpoint may begin; nobody waits for it."""
        self._commits += 1
        self._rows += rows
        is_due = self._commits >= self._after_commits
        if self._rows >= _LOOK_AFTER_ROWS:
            self._rows = 0
            is_due = is_due or self._file()[0] >= self._left[0] + _AFTER_BYTES
        if is_due and not self._ended and (self._task is None or self._task.done()):
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def end(self) -> None:
        """Begin no checkpoint any more, and wait for the one that is under way, if one is."""
        self._ended = True
        if self._task is not None:
            await asyncio.wait([self._task])

    async def empty_log(self) -> bool:
        """Write everything back and empty the log; see `Database.empty_log`.

        Raises:
            DatabaseUnavailable: the disk fails, or is full.
        """
        async with self._alone:
            emptied = await self._writer(_empty_log)
            if emptied:
                self._pages = self._kept_pages = 0
            self._left = self._file()
            return emptied

    async def _run(self) -> None:
        async with self._alone:
            commits, self._commits = self._commits, 0
            if self._file() == self._left:
                return
            with contextlib.suppress(DatabaseUnavailable):  # the next one may succeed
                pages, _ = await self._beside(_checkpoint)
                if pages < self._pages:  # it was begun anew
                    self._pages = self._kept_pages = 0
                self._expect(pages - self._pages, commits)
                if pages >= self._kept_pages + _LOG_PAGES:
                    # What was committed meanwhile: when that is all, the next commit begins anew.
                    pages, written_back = await self._writer(_checkpoint)
                    pages = self._kept_pages = pages if written_back < pages else 0
                self._pages = pages
            self._left = self._file()

    def _expect(self, pages: int, commits: int) -> None:
        """Begin the next checkpoint when so many commits more have written enough pages."""
        expected = _AFTER_PAGES * commits // max(1, pages)
        self._after_commits = min(max(expected, _MIN_COMMITS), _MAX_COMMITS)

    def _file(self) -> tuple[int, int]:
        """Return the size of the log's file, and when it was written to last."""
        try:
            status = self._log.stat()
        except OSError:
            return 0, 0
        return status.st_size, status.st_mtime_ns


def _checkpoint(connection: sqlite3.Connection) -> tuple[int, int]:
    """Write back what no reader holds; return the log's pages, and how many are written back."""
    _, pages, written_back = connection.execute("PRAGMA main.wal_checkpoint(PASSIVE)").fetchone()
    return max(0, pages), max(0, written_back)


def _empty_log(connection: sqlite3.Connection) -> bool:
    (patience_ms,) = connection.execute("PRAGMA busy_timeout").fetchone()
    connection.execute("PRAGMA busy_timeout=0")  # whoever writes next must not wait for readers
    try:
        (is_busy, *_) = connection.execute("PRAGMA main.wal_checkpoint(TRUNCATE)").fetchone()
    finally:
        connection.execute(f"PRAGMA busy_timeout={patience_ms}")
    return not is_busy
