"""Search on SQLite: an index in a file of its own, which follows the log. ADR 24.

A transaction of the index may take long: FTS5 merges all of a word at once, and a common one is in
a good part of all messages. So the index has a writer of its own, and no message waits for it.

Everything in it is made from the log. The file may be deleted while no gateway runs; one that
belongs to another log or a newer version, or turns out to be damaged, is made anew. It is opened
when it is needed: if that cannot be done, there is no search, and everything else goes on.
"""

import asyncio
import contextlib
import os
import sqlite3
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Self, TypeVar

import structlog

from shared.ids import UserId
from shared.sqlite import (
    Database,
    DatabaseInUse,
    DatabaseTooNew,
    DatabaseUnavailable,
    is_damage,
    remove,
)
from ws_gateway.adapters.search_words import phrases_of, snippet
from ws_gateway.adapters.sqlite_forgetting import Forgetting
from ws_gateway.adapters.sqlite_index import (
    Progress,
    begin,
    follow,
    following,
    merge,
    purge,
)
from ws_gateway.adapters.sqlite_life import SEARCH_NAME
from ws_gateway.adapters.sqlite_rows import (
    COLUMNS,
    JOINS,
    available,
    last_position,
    message_of,
    user_key,
)
from ws_gateway.ports import SearchHit, SearchPage, StoreUnavailable

__all__ = ["SqliteSearch"]

T = TypeVar("T")

_MIGRATIONS = "ws_gateway.adapters.migrations.sqlite_search"
_CACHE_MIB = 16
_NICE = 10
"""A tenth of what others get, when there is one processor for all: see sched(7)."""
_CHUNK = 500
"""Messages that one step indexes. More would cost less, but readers on the same processor wait."""
_MERGED_PAGES = 16
"""What one step merges, or a word."""
_MERGES = 32
"""Steps after each chunk, at most: as many pages as it adds, for each of twelve fourfold parts."""
_CATCH_UP_CHUNKS = 100
"""A search indexes at most 50,000 more messages before it answers."""
_MAX_RANKED = 10_000
"""Matches that one search looks at, the newest ones: to rank all of two million took 19 s."""
_MADE_ANEW_EVERY_S = 3600.0
"""At most: if it is the log that is damaged, the next index meets that, too."""
_FAULTS = (DatabaseInUse, DatabaseUnavailable, sqlite3.DatabaseError, OSError)

_logger = structlog.get_logger(__name__)


class SqliteSearch:
    """The index of one log, which is open. For one event loop; close it by `async with`.

    `log_end` is the position of the last event that was committed.
    """

    def __init__(
        self,
        path: Path,
        log: Database,
        log_path: Path,
        log_end: Callable[[], int],
        *,
        busy_timeout_s: float,
        clock: Callable[[], float],
    ) -> None:
        self._path = path
        self._log = log
        self._log_path = log_path
        self._log_end = log_end
        self._busy_timeout_s = busy_timeout_s
        self._clock = clock
        self._forgetting = Forgetting(log, clock=clock)
        self._index: Database | None = None
        self._opening = asyncio.Lock()
        self._is_useless = False
        self._make_anew_at = clock()
        """From when on another damaged index may be made anew."""
        self._complete_at: int | None = None
        """Where the log ended when all of it was followed: to look again then is for nothing."""
        self._merges = 0
        """Steps of merging that what was indexed last may still need."""

    async def forget_removed(self) -> None:
        """Forget the texts that were removed from the log.

        Raises:
            StoreUnavailable: not now.
        """
        while self._is_behind(self._log_end()) and not (await self._follow(0)).has_forgotten:
            pass

    async def go_on(self, log_end: int) -> bool:
        """Do some of what is to be done for a log that ends there; return whether that was all.

        Raises:
            StoreUnavailable: not now.
        """
        if self._merges:
            await self._merge()
            return False
        if self._is_behind(log_end):
            await self._follow(_CHUNK)
            return False
        await self._use(self._forgetting.go_on)
        return True

    async def catch_up(self, chunks: int = 1) -> bool:
        """Index some chunks of messages; returns whether the index is at the log's end.

        Raises:
            StoreUnavailable: not now.
        """
        for _ in range(chunks):
            behind = self._is_behind(self._log_end())
            is_complete = not behind or (await self._follow(_CHUNK)).is_complete
            while self._merges:
                await self._merge()
            if is_complete:
                return True
        return False

    async def find(
        self,
        user_id: UserId,
        query: str,
        peer_id: UserId | None,
        *,
        upto: int | None,
        offset: int,
        limit: int,
    ) -> SearchPage:
        """Find messages; see `MessageArchive.search`."""
        words = _match_expression(query)
        phrases, last_is_prefix = phrases_of(query)
        wanted = self._log_end()
        with contextlib.suppress(StoreUnavailable):
            await self.catch_up(_CATCH_UP_CHUNKS)

        def read(connection: sqlite3.Connection) -> SearchPage:
            # The log first: of an older one, the index may not have forgotten what is removed here.
            log_end = last_position(connection)
            indexed, removed = following(connection)
            last = min(indexed, log_end) if upto is None else upto
            complete = indexed >= wanted
            people = [user_key(connection, user_id)]
            if peer_id is not None:
                people.append(user_key(connection, peer_id))
            if None in people or peer_id == user_id or not words:
                return SearchPage([], more=False, complete=complete, upto=last)
            of_people = " AND ".join(f"people:u{key}" for key in people)
            rows = connection.execute(
                _FIND, (f"{of_people} AND text:({words})", last, removed, limit + 1, offset)
            ).fetchall()
            hits = [
                SearchHit(message, snippet(message.text, phrases, last_is_prefix))
                for message in map(message_of, rows[:limit])
            ]
            return SearchPage(hits, more=len(rows) > limit, complete=complete, upto=last)

        return await self._use(lambda index: index.read(read))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, fault: type[BaseException] | None, *_: object) -> None:
        """Forget what was removed, and close the index, if it was opened."""
        try:
            if fault is None:
                with contextlib.suppress(StoreUnavailable):  # then after the next start
                    await self.forget_removed()
        finally:
            async with self._opening:
                await self._close()

    def _is_behind(self, log_end: int) -> bool:
        return self._complete_at is None or self._complete_at < log_end

    async def _follow(self, messages: int) -> Progress:
        end = self._log_end()
        progress = await self._use(lambda index: index.write(lambda c: follow(c, messages)))
        if progress.has_parts:
            self._merges = _MERGES
        if (spent := progress.spent) is not None:
            await available(self._log.write(lambda c: purge(c, spent)))
        if progress.is_complete:
            self._complete_at = end
        return progress

    async def _merge(self) -> None:
        has_merged = await self._use(lambda index: index.write(lambda c: merge(c, _MERGED_PAGES)))
        self._merges = max(0, self._merges - 1) if has_merged else 0

    async def _use(self, call: Callable[[Database], Awaitable[T]]) -> T:
        """Do something with the index, and again with another one when this one is damaged.

        Raises:
            StoreUnavailable: not now.
        """
        while True:
            try:
                return await call(await self._opened())
            except _FAULTS as error:
                if not is_damage(error) or not await self._give_up():
                    raise StoreUnavailable(f"{SEARCH_NAME} cannot be used: {error}") from error
                _logger.warning("the search index is damaged and made anew", reason=str(error))

    async def _give_up(self) -> bool:
        """Close a damaged index, to be made anew; False when one was within the hour."""
        if self._clock() < self._make_anew_at:
            return False
        self._make_anew_at = self._clock() + _MADE_ANEW_EVERY_S
        async with self._opening:
            self._is_useless = True
            await self._close()
        return True

    async def _opened(self) -> Database:
        async with self._opening:
            if self._index is None:
                self._index = await self._open()
            return self._index

    async def _open(self) -> Database:
        """Open the index, making it if need be: one of another log or a newer version is none."""
        while True:
            if self._is_useless:
                remove(self._path)
                self._is_useless = False
            try:
                index = await Database.open(
                    self._path,
                    _MIGRATIONS,
                    readers=1,
                    busy_timeout_s=self._busy_timeout_s,
                    cache_mib=_CACHE_MIB,
                    beside=self._log_path,
                )
            except DatabaseTooNew:
                _logger.warning("the search index is of a newer version and made anew")
                self._is_useless = True
                continue
            try:
                await index.write(_step_back)
                if await index.write(begin):
                    return index
            except BaseException:
                await index.close()
                raise
            await index.close()
            self._is_useless = True

    async def _close(self) -> None:
        index, self._index = self._index, None
        self._complete_at, self._merges = None, 0
        if index is not None:
            await index.close()


def _step_back(_connection: sqlite3.Connection) -> None:
    """Let the threads that store and deliver messages have the processor first."""
    if sys.platform == "linux":  # elsewhere this is about the process, not the thread
        os.nice(_NICE)


def _match_expression(query: str) -> str:
    """Quote each word, so that nothing in it is FTS5 syntax; the last may be the start of one.

    All must match, but for those without a letter or digit: where no operator stands, FTS5 passes
    over a phrase that its tokenizer leaves empty. It would end the query at U+0000.
    """
    words = query.replace("\x00", " ").split()
    return " ".join('"' + word.replace('"', '""') + '"' for word in words) + "*" if words else ""


_FIND = f"""
WITH newest AS (
    SELECT rowid AS position, bm25(search, 0.0, 1.0) AS score FROM search
    WHERE search MATCH ?1 AND rowid <= ?2
    AND NOT EXISTS (SELECT 1 FROM removals WHERE removals.position = search.rowid AND key > ?3)
    ORDER BY rowid DESC LIMIT {_MAX_RANKED}
), page AS (
    SELECT position, score FROM newest ORDER BY score, position DESC LIMIT ?4 OFFSET ?5
)
SELECT {COLUMNS}
FROM page CROSS JOIN messages AS message USING (position)
{JOINS}
WHERE NOT message.deleted
ORDER BY page.score, page.position DESC
"""
"""Ranked by the text alone: how rare a person's messages are says nothing."""
