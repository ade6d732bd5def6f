"""Taking what was removed out of the file, too: deleted texts, and what an edit replaced.

SQLite overwrites what is deleted (`PRAGMA secure_delete`). But FTS5 keeps the words of a removed
text in its index until the parts that hold them are merged, and the write-ahead log keeps pages as
they were. So after removals all parts are merged into one, a few pages at a time while nothing else
waits, and then the log is emptied.
"""

import sqlite3
import time
from collections.abc import Callable

from shared.sqlite import Database
from ws_gateway.adapters.sqlite_indexes import merge_search
from ws_gateway.adapters.sqlite_rows import available

__all__ = ["Forgetting", "note_removal"]

_MORE, _MERGING = 1, 2
_EVERY_S = 3600.0
"""A merge writes the whole index anew, so those who go on deleting wait for it together."""
_LOOK_EVERY_S = 1.0
_PAGES = 250
"""What one transaction merges: the next batch waits for it, some milliseconds."""


def note_removal(connection: sqlite3.Connection) -> None:
    """Note that a text was removed. In the transaction that removes it."""
    connection.execute(
        "UPDATE life SET forgetting = forgetting | ? WHERE NOT forgetting & ?", (_MORE, _MORE)
    )


class Forgetting:
    """Goes on with it a little at a time; what was begun is finished after a restart."""

    def __init__(self, database: Database, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._database = database
        self._clock = clock
        self._look_at = self._begin_at = clock()

    async def go_on(self) -> None:
        """Do a little, if there is something to do.

        Raises:
            StoreUnavailable: not now.
        """
        now = self._clock()
        if now < self._look_at:
            return
        state = await available(self._database.read(_state))
        if not state & _MERGING:
            if not state or now < self._begin_at:
                self._look_at = now + _LOOK_EVERY_S
                return
            self._begin_at = now + _EVERY_S
        is_merged = await available(self._database.write(_merge))
        if is_merged and await available(self._database.empty_log()):
            await available(self._database.write(_finish))


def _state(connection: sqlite3.Connection) -> int:
    (state,) = connection.execute("SELECT forgetting FROM life").fetchone()
    return int(state)


def _merge(connection: sqlite3.Connection) -> bool:
    """Begin, or go on; see "optimize" in https://www.sqlite.org/fts5.html. Returns whether all of
    the index that was there at the beginning is one part."""
    begins = not _state(connection) & _MERGING
    if begins:
        connection.execute("UPDATE life SET forgetting = ?", (_MERGING,))
    return not merge_search(connection, -_PAGES if begins else _PAGES)


def _finish(connection: sqlite3.Connection) -> None:
    connection.execute("UPDATE life SET forgetting = forgetting & ~?", (_MERGING,))
