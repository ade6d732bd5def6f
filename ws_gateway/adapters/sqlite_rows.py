"""How messages come out of SQLite: the columns, the joins, and the row that becomes a `Message`."""

import functools
import sqlite3
from collections.abc import Awaitable, Sequence
from typing import Any, TypeVar

from shared.ids import UserId
from shared.sqlite import DatabaseUnavailable
from ws_gateway.conversations import Message
from ws_gateway.ports import StoreUnavailable

__all__ = [
    "COLUMNS",
    "JOINS",
    "N_COLUMNS",
    "SHOWS_READ",
    "available",
    "insert_rows",
    "is_blocked",
    "last_position",
    "message_of",
    "user_key",
]

T = TypeVar("T")

COLUMNS = """conversation.id, message.seq, message.position, sender.id, recipient.id,
 message.client_id, message.text, message.sent_at_ms, message.revision, message.changed_at_ms,
 message.deleted"""
N_COLUMNS = 11

JOINS = """
CROSS JOIN conversations AS conversation ON conversation.key = message.conversation
CROSS JOIN users AS sender ON sender.key = message.sender
CROSS JOIN users AS recipient ON recipient.key =
    CASE message.sender WHEN conversation.low THEN conversation.high ELSE conversation.low END
"""
"""To follow a FROM that has `messages AS message`."""

SHOWS_READ = """({person}.shares_reads AND NOT EXISTS
 (SELECT 1 FROM blocks WHERE blocker = {person}.key AND blocked = {viewer}))"""
"""Whether a person, of `users`, lets a viewer (by key) see how far they have read."""


def message_of(row: tuple[Any, ...]) -> Message:
    """Make the message of a row that begins with `COLUMNS`."""
    fields = list(row[:N_COLUMNS])
    fields[-1] = bool(fields[-1])  # SQLite has no booleans
    return Message(*fields)


def insert_rows(
    connection: sqlite3.Connection, into: str, row: str, values: Sequence[int | str]
) -> None:
    """Insert rows, given as their values one after the other, many with each statement.

    A statement costs more than its row: binding, resetting, and letting other threads in.
    """
    width, start = row.count("?"), 0
    for rows in _ROWS_AT_ONCE:
        while len(values) - start >= rows * width:
            end = start + rows * width
            connection.execute(_insert(into, row, rows), values[start:end])
            start = end


@functools.cache
def _insert(into: str, row: str, rows: int) -> str:
    return f"{into} VALUES {', '.join([row] * rows)}"


_ROWS_AT_ONCE = (64, 16, 4, 1)
"""Few sizes, so that the statements stay in the processor's cache: one for each number of rows
costs a fifth less by itself, and no less in a gateway at work."""


def last_position(connection: sqlite3.Connection) -> int:
    """Return the position of the last event of the log; 0 when it is empty."""
    (position,) = connection.execute(
        "SELECT max(coalesce((SELECT max(position) FROM messages), 0),"
        " coalesce((SELECT max(position) FROM revisions), 0))"
    ).fetchone()
    return int(position)


def user_key(connection: sqlite3.Connection, user_id: UserId) -> int | None:
    """Return the key of a user that is known here."""
    found = connection.execute("SELECT key FROM users WHERE id = ?", (user_id,)).fetchone()
    return None if found is None else int(found[0])


def is_blocked(connection: sqlite3.Connection, blocker: int, blocked: int) -> bool:
    """Tell whether one user (by key) blocks another."""
    (found,) = connection.execute(
        "SELECT EXISTS (SELECT 1 FROM blocks WHERE blocker = ? AND blocked = ?)",
        (blocker, blocked),
    ).fetchone()
    return bool(found)


async def available(call: Awaitable[T]) -> T:
    """Await a database call, saying `StoreUnavailable` where the database says it is not."""
    try:
        return await call
    except DatabaseUnavailable as error:
        raise StoreUnavailable(str(error)) from error
