"""Where the log ends, and search, which follows it. In the writer's thread."""

import sqlite3

__all__ = ["SearchEntry", "index_search", "indexed_upto", "last_position", "merge_search"]


def last_position(connection: sqlite3.Connection) -> int:
    """Return the position of the last event of the log; 0 when it is empty."""
    (position,) = connection.execute(
        "SELECT max(coalesce((SELECT max(position) FROM messages), 0),"
        " coalesce((SELECT max(position) FROM revisions), 0))"
    ).fetchone()
    return int(position)


def index_search(connection: sqlite3.Connection, limit: int) -> tuple[bool, bool]:
    """Index about `limit` more messages. Returns whether search is at the log's end, and whether
    there was anything to index."""
    indexed = indexed_upto(connection)
    position = last_position(connection)
    upto = min(position, indexed + limit)
    if indexed < upto:
        connection.execute(_FILL_SEARCH, (indexed, upto))
        connection.execute("UPDATE life SET indexed = ?", (upto,))
    return upto == position, indexed < upto


def merge_search(connection: sqlite3.Connection, pages: int) -> bool:
    """Merge some pages, when there are parts of the index to be merged. Returns whether it did.

    Each addition is a part of its own, and a search looks into all of them. It merges all of a word
    that it comes to, however many pages that is; a negative number begins to merge all parts into
    one. See "merge" in https://www.sqlite.org/fts5.html.
    """
    before = connection.total_changes
    connection.execute("INSERT INTO search (search, rank) VALUES ('merge', ?)", (pages,))
    return connection.total_changes - before >= 2  # the rule of that page


def indexed_upto(connection: sqlite3.Connection) -> int:
    """Return the position up to which messages can be found."""
    (indexed,) = connection.execute("SELECT indexed FROM life").fetchone()
    return int(indexed)


class SearchEntry:
    """A message's entry in the search index; nothing happens while the index is not there yet."""

    def __init__(self, connection: sqlite3.Connection, position: int, low: int, high: int) -> None:
        self._connection = connection
        self._position = position
        self._people = f"u{low} u{high}"
        self._is_indexed = position <= indexed_upto(connection)

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


_FILL_SEARCH = """
INSERT INTO search (rowid, people, text)
SELECT position, 'u' || low || ' u' || high, text
FROM messages CROSS JOIN conversations ON key = conversation
WHERE position > ? AND position <= ? AND NOT deleted
"""
