"""Taking what was removed out of the file, too: deleted texts, and what an edit replaced.

SQLite overwrites what is deleted (`PRAGMA secure_delete`). But FTS5 keeps the words of a removed
text in its index until the parts that hold them are merged, and write-ahead logs keep pages as they
were. So after removals all parts are merged into one, some pages at a time, and then the logs of
both files are emptied.
"""

import sqlite3
from collections.abc import Callable

from shared.sqlite import Database
from ws_gateway.adapters.sqlite_index import merge

__all__ = ["Forgetting"]

_MERGING = 2
_EVERY_S = 3600.0
"""A merge writes the whole index anew, so those who go on deleting wait for it together."""
_LOOK_EVERY_S = 1.0
_PAGES = 250
"""What one transaction merges: some milliseconds, which a search may wait for."""


class Forgetting:
    """Goes on with it a little at a time; what was begun is finished after a restart."""

    def __init__(self, log: Database, *, clock: Callable[[], float]) -> None:
        self._log = log
        self._clock = clock
        self._look_at = self._begin_at = clock()

    async def go_on(self, index: Database) -> None:
        """Do a little, if there is something to do.

        Raises:
            DatabaseUnavailable: not now.
        """
        now = self._clock()
        if now < self._look_at:
            return
        state = await index.write(_state)  # a reader may be busy with a search for seconds
        if not state & _MERGING:
            if not state or now < self._begin_at:
                self._look_at = now + _LOOK_EVERY_S
                return
            self._begin_at = now + _EVERY_S
        is_merged = await index.write(_merge)
        if is_merged and await index.empty_log() and await self._log.empty_log():
            await index.write(_finish)


def _state(connection: sqlite3.Connection) -> int:
    (state,) = connection.execute("SELECT forgetting FROM following").fetchone()
    return int(state)


def _merge(connection: sqlite3.Connection) -> bool:
    """Begin, or go on; see "optimize" in https://www.sqlite.org/fts5.html. Returns whether all of
    the index that was there at the beginning is one part."""
    begins = not _state(connection) & _MERGING
    if begins:
        connection.execute("UPDATE following SET forgetting = ?", (_MERGING,))
    return not merge(connection, -_PAGES if begins else _PAGES)


def _finish(connection: sqlite3.Connection) -> None:
    connection.execute("UPDATE following SET forgetting = forgetting & ~?", (_MERGING,))
