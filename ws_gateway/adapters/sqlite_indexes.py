"""The indexes that follow the log: each person's inbox and conversation list, and search.

The hot transaction writes the log alone; these catch up behind it, many events at once, because a
page of an index that is touched once for a hundred events costs what it costs for one (ADR 3).
Readers settle first. Each function is one transaction's work, in the writer's thread.
"""

import sqlite3

__all__ = ["SearchEntry", "index_search", "settle"]


def settle(connection: sqlite3.Connection) -> int:
    """Bring inbox and members up to the log. Returns the position they are at now."""
    settled, position = connection.execute(
        "SELECT settled, (SELECT coalesce(max(position), 0) FROM log) FROM life"
    ).fetchone()
    if settled < position:
        connection.execute(_FILL_INBOX, (settled, settled))
        connection.execute(_REORDER_MEMBERS, (settled,))
        connection.execute("UPDATE life SET settled = ?", (position,))
    return int(position)


def index_search(connection: sqlite3.Connection, limit: int) -> bool:
    """Index at most `limit` more log entries. Returns whether search is at the log's end."""
    indexed, position = connection.execute(
        "SELECT indexed, (SELECT coalesce(max(position), 0) FROM log) FROM life"
    ).fetchone()
    upto = min(position, indexed + limit)
    if indexed < upto:
        connection.execute(_FILL_SEARCH, (indexed, upto))
        connection.execute("UPDATE life SET indexed = ?", (upto,))
    return bool(upto == position)


class SearchEntry:
    """A message's entry in the search index; nothing happens while the index is not there yet."""

    def __init__(self, connection: sqlite3.Connection, position: int, low: int, high: int) -> None:
        self._connection = connection
        self._position = position
        self._people = f"u{low} u{high}"
        (indexed,) = connection.execute("SELECT indexed FROM life").fetchone()
        self._is_indexed = position <= indexed

    def remove(self, text: str) -> None:
        """Forget the message, whose indexed text this is."""
        if self._is_indexed:
            self._connection.execute(
                "INSERT INTO search (search, rowid, people, text) VALUES ('delete', ?, ?, ?)",
                (self._position, self._people, text),
            )

    def add(self, text: str) -> None:
        """Find the message by this text."""
        if self._is_indexed:
            self._connection.execute(
                "INSERT INTO search (rowid, people, text) VALUES (?, ?, ?)",
                (self._position, self._people, text),
            )


_FILL_INBOX = """
INSERT INTO inbox (user, position)
SELECT low, position FROM log JOIN conversations ON key = conversation WHERE position > ?
UNION ALL
SELECT high, position FROM log JOIN conversations ON key = conversation WHERE position > ?
ORDER BY 1, 2
"""

_REORDER_MEMBERS = """
UPDATE members SET last_position = recent.position, last_seq = recent.seq
FROM (
    SELECT log.conversation, low, high, max(log.position) AS position, max(log.seq) AS seq
    FROM log JOIN conversations ON key = log.conversation
    WHERE log.position > ? AND log.kind = 0 GROUP BY log.conversation
) AS recent
WHERE members.user IN (recent.low, recent.high) AND members.conversation = recent.conversation
"""

_FILL_SEARCH = """
INSERT INTO search (rowid, people, text)
SELECT log.position, 'u' || conversations.low || ' u' || conversations.high, messages.text
FROM log
CROSS JOIN messages ON messages.conversation = log.conversation AND messages.seq = log.seq
CROSS JOIN conversations ON conversations.key = log.conversation
WHERE log.position > ? AND log.position <= ? AND log.kind = 0 AND NOT messages.deleted
"""
