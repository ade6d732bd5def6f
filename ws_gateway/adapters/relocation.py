"""Moves the gateway's data from its data directory to PostgreSQL.

On SQLite there is one log, in PostgreSQL each person has one (ADR 16). Everybody's log gets the
positions that the events had in the one, and goes on after its end: cursors that clients hold mean
the same as before, and the move is noticed by nobody.
"""

import functools
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

from shared.postgres import Connection, Postgres
from shared.relocation import Moved, RelocationRefused, Table, open_source, relocate
from ws_gateway.adapters.postgres_stores import MIGRATIONS, SCHEMA
from ws_gateway.adapters.sqlite_life import DATABASE_NAME
from ws_gateway.adapters.sqlite_rows import last_position

__all__ = ["move_to_postgres"]

_TIMEOUT_S = 3600.0
"""The last step gathers statistics of everything."""


async def move_to_postgres(
    data_dir: Path, url: str, report: Callable[[str, int], None]
) -> list[Moved]:
    """Copy the database; see `relocate`. The source stays as it is.

    What search knows is not copied: it is made again, a person's at their next search.

    Raises:
        DatabaseInUse: the gateway is running.
        DatabaseUnavailable: PostgreSQL cannot be reached; what was copied stays.
        RelocationRefused: the message says why.
        ValueError: the URL cannot be used.
    """
    with open_source(data_dir / DATABASE_NAME) as source:
        epoch, feed_event_id, position = _life(source)
        async with await Postgres.open(
            url, MIGRATIONS, schema=SCHEMA, command_timeout_s=_TIMEOUT_S
        ) as database:
            return await relocate(
                source,
                database,
                _tables(position),
                identity=epoch,
                finish=functools.partial(
                    _finish, epoch=epoch, feed_event_id=feed_event_id, position=position
                ),
                report=report,
            )


async def _finish(
    connection: Connection, *, epoch: str, feed_event_id: str | None, position: int
) -> None:
    await connection.execute(
        "UPDATE life SET epoch = $1, feed_event_id = $2, first_position = $3",
        *(epoch, feed_event_id, position),
    )
    for counted in ("users", "conversations"):
        await connection.execute(
            f"SELECT setval(pg_get_serial_sequence('{counted}', 'key'), max(key)) FROM {counted}"
        )
    for table in _tables(position):
        await connection.execute(f"ANALYZE {table.name}")


def _life(source: sqlite3.Connection) -> tuple[str, str | None, int]:
    try:
        epoch, feed_event_id = source.execute("SELECT epoch, feed_event_id FROM life").fetchone()
        return epoch, feed_event_id, last_position(source)
    except sqlite3.DatabaseError as error:
        raise RelocationRefused(f"this is no database of the gateway: {error}") from error


def _with_booleans(row: tuple[Any, ...], *, places: tuple[int, ...]) -> tuple[Any, ...]:
    """Make booleans of integers: SQLite has none."""
    return tuple(bool(value) if n in places else value for n, value in enumerate(row))


def _table(name: str, columns: str, select: str, *booleans: str) -> Table:
    names = tuple(columns.split(", "))
    places = tuple(names.index(column) for column in booleans)
    return Table(name, names, select, functools.partial(_with_booleans, places=places))


def _tables(position: int) -> list[Table]:
    """Say where the rows of each table come from; the old log ends at `position`.

    From the log itself: after a crash, what follows it may be some messages behind.
    """
    return [
        _table(
            "users",
            "key, id, position, last_seen_ms, shares_reads, shares_presence",
            f"SELECT key, id, {position}, last_seen_ms, shares_reads, shares_presence"
            " FROM users ORDER BY key",
            *("shares_reads", "shares_presence"),
        ),
        _table(
            "conversations",
            "key, id, low, high, last_seq, low_count, low_position, high_position",
            """SELECT key, id, low, high, coalesce(seq, 0), coalesce(low_count, 0),
                      coalesce(position, 0), coalesce(position, 0)
               FROM conversations
               LEFT JOIN (SELECT conversation, seq, low_count, max(position) AS position
                          FROM messages GROUP BY conversation) ON conversation = key
               ORDER BY key""",
        ),
        _table("indexed", "conversation, seq", "SELECT key, 0 FROM conversations ORDER BY key"),
        _table(
            "members",
            "person, conversation, received, read, own_position, peer_position,"
            " peer_received_position",
            """SELECT user, conversation, received, read, marks_position, marks_position,
                      received_position
               FROM members ORDER BY user, conversation""",
        ),
        _table(
            "messages",
            "conversation, seq, sender, recipient, sender_position, recipient_position,"
            " sent_at_ms, changed_at_ms, low_count, revision, deleted, client_id, text",
            """SELECT conversation, seq, sender, iif(sender = low, high, low), position, position,
                      sent_at_ms, changed_at_ms, low_count, revision, deleted, client_id, text
               FROM messages CROSS JOIN conversations ON key = conversation ORDER BY position""",
            "deleted",
        ),
        _table(
            "revisions",
            "actor, peer, actor_position, peer_position, conversation, seq, kind",
            """SELECT actor, iif(actor = low, high, low), revisions.position, revisions.position,
                      revisions.conversation, messages.seq, kind
               FROM revisions CROSS JOIN conversations ON key = revisions.conversation
               LEFT JOIN messages ON messages.position = revisions.message
               ORDER BY revisions.position""",
        ),
        _table(
            "changes",
            "request_id, author, position, revision",
            """SELECT request_id, author, position, revision
               FROM changes ORDER BY request_id, author""",
        ),
        _table(
            "marks",
            "conversation, person, read, seq, at_ms",
            """SELECT conversation, user, read, seq, at_ms FROM marks UNION ALL
               SELECT conversation, user, read, seq, at_ms FROM recent_marks
               ORDER BY conversation, user, read, seq""",
            "read",
        ),
        _table(
            "deliveries",
            "conversation, seq, connections, at_ms",
            """SELECT conversation, seq, connections, at_ms
               FROM deliveries CROSS JOIN messages ON messages.position
                   BETWEEN deliveries.position AND deliveries.position + deliveries.messages - 1
               ORDER BY messages.position""",
        ),
        _table("erasures", "user_id", "SELECT user_id FROM erasures ORDER BY user_id"),
        _table(
            "blocks",
            "blocker, blocked, at_ms",
            "SELECT blocker, blocked, at_ms FROM blocks ORDER BY blocker, blocked",
        ),
    ]
