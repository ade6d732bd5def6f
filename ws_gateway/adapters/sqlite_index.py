"""The search index: what its transactions do, on a connection that has the log beside it.

An entry has the text that its message had when all removals up to `following.removed` were made, so
the next removal says what is to be taken out.
"""

import sqlite3

import msgspec

from ws_gateway.adapters.sqlite_rows import last_position

__all__ = ["Progress", "begin", "follow", "following", "merge", "purge"]

_REMOVALS_AT_ONCE = 500


class Progress(msgspec.Struct, frozen=True):
    """What a transaction of the index has done."""

    has_parts: bool
    """It has added to the index: there may be something to merge."""
    has_forgotten: bool
    """It has followed all removals."""
    is_complete: bool
    """The index is at the end of the log, too."""
    spent: int | None
    """The key up to which the log may forget its removals; nothing if it has."""


def begin(connection: sqlite3.Connection) -> bool:
    """Note in a new index whose it is. Returns whether this one is of this log.

    The log never ends before what is indexed, and keeps each removal until it was followed.
    """
    connection.execute(_BEGIN)
    (count,) = connection.execute(_IS_OF, (last_position(connection),)).fetchone()
    return bool(count)


def following(connection: sqlite3.Connection) -> tuple[int, int]:
    """Return the position up to which messages are indexed, and the key of the last removal that
    was followed."""
    indexed, removed = connection.execute("SELECT indexed, removed FROM following").fetchone()
    return int(indexed), int(removed)


def follow(connection: sqlite3.Connection, messages: int) -> Progress:
    """Follow some removals and, when no more of them wait, so many messages."""
    before = indexed, removed = following(connection)
    removals = connection.execute(_REMOVALS, (removed, _REMOVALS_AT_ONCE)).fetchall()
    for key, position, people, old, new in removals:
        if position <= indexed:
            connection.execute(_TAKE_OUT, (position, people, old))
            if new is not None:
                connection.execute(_PUT_IN, (position, people, new))
        removed = key
    has_forgotten = len(removals) < _REMOVALS_AT_ONCE
    end = last_position(connection)
    if has_forgotten and messages and indexed < end:
        upto = min(end, indexed + messages)
        connection.execute(_INDEX, (indexed, upto))
        indexed = upto
    has_followed = (indexed, removed) != before
    if has_followed:
        connection.execute(_NOTE, (indexed, removed, bool(removals)))
    (first_kept,) = connection.execute("SELECT min(key) FROM removals").fetchone()
    return Progress(
        has_parts=has_followed,
        has_forgotten=has_forgotten,
        is_complete=has_forgotten and indexed == end,
        spent=None if first_kept is None or first_kept > removed else removed,
    )


def purge(connection: sqlite3.Connection, spent: int) -> None:
    """Have the log forget texts that it removed. On a connection of the log."""
    connection.execute("DELETE FROM removals WHERE key <= ?", (spent,))


def merge(connection: sqlite3.Connection, pages: int) -> bool:
    """Merge some pages, when there are parts of the index to be merged. Returns whether it did.

    Each addition is a part of its own, and a search looks into all of them. It merges all of a word
    that it comes to, however many pages that is; a negative number begins to merge all parts into
    one. See "merge" in https://www.sqlite.org/fts5.html.
    """
    before = connection.total_changes
    connection.execute("INSERT INTO search (search, rank) VALUES ('merge', ?)", (pages,))
    return connection.total_changes - before >= 2  # the rule of that page


_LAST_REMOVAL = "coalesce((SELECT seq FROM beside.sqlite_sequence WHERE name = 'removals'), 0)"
"""Keys have no gaps, and those that the log has forgotten come first."""
_FIRST_KEPT = f"coalesce((SELECT min(key) FROM removals), {_LAST_REMOVAL} + 1)"

_BEGIN = f"""
INSERT OR IGNORE INTO following (id, epoch, removed, forgetting)
SELECT 1, epoch, {_FIRST_KEPT} - 1, 2 * EXISTS (SELECT 1 FROM revisions) FROM life
"""
"""Write-ahead logs may hold removed texts, but the index itself never did."""

_IS_OF = f"""
SELECT count(*) FROM life JOIN following USING (epoch)
WHERE indexed <= ? AND removed BETWEEN {_FIRST_KEPT} - 1 AND {_LAST_REMOVAL}
"""

_PEOPLE = "'u' || low || ' u' || high"

_INDEX = f"""
INSERT INTO search (rowid, people, text)
SELECT position, {_PEOPLE}, text
FROM messages CROSS JOIN conversations ON key = conversation
WHERE position > ? AND position <= ? AND NOT deleted
"""

_REMOVALS = f"""
SELECT removal.key, removal.position, {_PEOPLE}, removal.text, coalesce(
    (SELECT next.text FROM removals AS next
     WHERE next.position = removal.position AND next.key > removal.key ORDER BY next.key LIMIT 1),
    iif(message.deleted, NULL, message.text))
FROM removals AS removal
CROSS JOIN messages AS message ON message.position = removal.position
CROSS JOIN conversations ON conversations.key = message.conversation
WHERE removal.key > ? ORDER BY removal.key LIMIT ?
"""

_TAKE_OUT = "INSERT INTO search (search, rowid, people, text) VALUES ('delete', ?, ?, ?)"
_PUT_IN = "INSERT INTO search (rowid, people, text) VALUES (?, ?, ?)"
_NOTE = "UPDATE following SET indexed = ?, removed = ?, forgetting = forgetting | ?"
