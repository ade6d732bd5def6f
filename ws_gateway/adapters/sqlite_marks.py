"""When marks moved, for tracing.

Nearly every message is marked, and each mark has its place in another page. So a batch appends its
marks to `recent_marks`, and they are brought into `marks` later, by conversation.
"""

import sqlite3
from collections.abc import Iterable
from typing import TypeAlias

from ws_gateway.adapters.sqlite_rows import insert_rows

__all__ = ["MARKED_AT", "MarkRow", "RecentMarks", "append_marks", "recent_marks"]

MarkRow: TypeAlias = tuple[int, int, int, int, int]
"""Conversation, user, whether it is `read` that moved, the seq to which, and when (ms)."""

MARKED_AT = """coalesce(
    (SELECT at_ms FROM marks AS mark WHERE mark.conversation = message.conversation
     AND mark.user = recipient.key AND mark.read = {read} AND mark.seq >= message.seq
     ORDER BY mark.seq LIMIT 1),
    (SELECT at_ms FROM recent_marks AS recent WHERE recent.conversation = message.conversation
     AND recent.user = recipient.key AND recent.read = {read} AND recent.seq >= message.seq
     ORDER BY recent.key LIMIT 1))"""
"""When the recipient first marked so far, in a query that knows `message` and `recipient`: whatever
waits for its place is later than what is in it."""


def append_marks(connection: sqlite3.Connection, rows: Iterable[MarkRow]) -> None:
    """Note that marks moved."""
    _insert(connection, "INSERT INTO recent_marks (conversation, user, read, seq, at_ms)", rows)


def recent_marks(connection: sqlite3.Connection) -> int:
    """Count those that wait for their place."""
    (count,) = connection.execute("SELECT count(*) FROM recent_marks").fetchone()
    return int(count)


class RecentMarks:
    """Brings marks to their place. For the writer's thread, within its transactions."""

    def __init__(self) -> None:
        self._after = 0
        """The conversation with which the last piece ended: those behind it are next."""

    def settle(self, connection: sqlite3.Connection, limit: int) -> int:
        """Bring so many to their place, or what is left of this round; return how many."""
        rows = connection.execute(_NEXT, (self._after, limit)).fetchall()
        _insert(connection, "INSERT INTO marks", [row[1:] for row in rows])
        connection.executemany("DELETE FROM recent_marks WHERE key = ?", [row[:1] for row in rows])
        self._after = rows[-1][1] if len(rows) == limit else 0
        return len(rows)


def _insert(connection: sqlite3.Connection, into: str, rows: Iterable[MarkRow]) -> None:
    insert_rows(connection, into, "(?, ?, ?, ?, ?)", [number for row in rows for number in row])


_NEXT = """
SELECT key, conversation, user, read, seq, at_ms FROM recent_marks
WHERE conversation > ? ORDER BY conversation, user, read, seq LIMIT ?
"""
