"""How sessions, revocations and audit rows are read and written in PostgreSQL, by both stores.

Each function runs inside a transaction of its caller. Locks are always taken in the same order, so
that no two transactions wait for each other: users, sessions in the order of their ids, the feed.
"""

import secrets
from collections.abc import Sequence

import msgspec

from profile_service.adapters.postgres_access import SCHEMA
from profile_service.adapters.rows import SESSION_COLUMNS, USER_COLUMNS, live_session_from_row
from profile_service.ports import AuditEntry, LiveSession
from profile_service.rotation import Session
from shared.ids import SessionId, UserId
from shared.postgres import Connection
from shared.revocation import Revocation

__all__ = [
    "CHANNEL",
    "append_audit",
    "append_revocations",
    "end_sessions",
    "insert_session",
    "live_sessions",
    "lock_sessions",
    "lock_user",
]

CHANNEL = f"{SCHEMA}_revocations"
"""Where a wake-up is sent when the feed has grown."""

_LIVE_SESSIONS = (
    f"SELECT {USER_COLUMNS}, {SESSION_COLUMNS} FROM sessions AS s "  # noqa: S608 - constants
    "JOIN users AS u ON u.id = s.user_id "
    "WHERE s.ended_at_ms IS NULL AND s.expires_at_ms > $1 AND s.id = ANY($2::text[])"
)
_APPEND_REVOCATIONS = """
WITH place AS (UPDATE feed SET position = position + cardinality($1::text[]) RETURNING position),
appended AS (
    INSERT INTO revocations (position, nonce, at_ms, event)
    SELECT place.position - cardinality($1::text[]) + new.number, new.nonce, $3, new.event
    FROM place, unnest($1::text[], $2::text[]) WITH ORDINALITY AS new (nonce, event, number)
)
SELECT pg_notify($4, '')
"""


async def live_sessions(
    connection: Connection, ids: Sequence[SessionId], now_ms: int
) -> list[LiveSession]:
    """Read those that are alive, with their users."""
    rows = await connection.fetch(_LIVE_SESSIONS, now_ms, ids)
    return [live_session_from_row(row) for row in rows]


async def lock_user(connection: Connection, user_id: UserId, version: int) -> bool:
    """Keep others from changing a user; False when there is none with that token version."""
    found = await connection.fetchval(
        "SELECT 1 FROM users WHERE id = $1 AND token_version = $2 AND deleted_at_ms IS NULL "
        "FOR NO KEY UPDATE",
        user_id,
        version,
    )
    return found is not None


async def lock_sessions(connection: Connection, user_id: UserId, *, even_ended: bool) -> None:
    """Keep others from changing a user's sessions."""
    await connection.execute(
        "SELECT 1 FROM sessions WHERE user_id = $1 AND (ended_at_ms IS NULL OR $2) "
        "ORDER BY id FOR NO KEY UPDATE",
        user_id,
        even_ended,
    )


async def insert_session(connection: Connection, session: Session) -> None:
    """Store a new session."""
    await connection.execute(
        "INSERT INTO sessions VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        *msgspec.structs.astuple(session),
    )


async def end_sessions(
    connection: Connection, user_id: UserId, now_ms: int, kept: SessionId | None = None
) -> None:
    """End all sessions of a user but one. They must be locked."""
    await connection.execute(
        "UPDATE sessions SET ended_at_ms = $1 "
        "WHERE user_id = $2 AND ended_at_ms IS NULL AND id IS DISTINCT FROM $3",
        now_ms,
        user_id,
        kept,
    )


async def append_revocations(
    connection: Connection, revocations: Sequence[Revocation], now_ms: int
) -> None:
    """Append to the feed, for those who hold live connections. Do it last: others wait meanwhile.

    The row of `feed` is locked until the commit, so positions appear in order and without gaps.
    """
    if revocations:
        await connection.execute(
            _APPEND_REVOCATIONS,
            [secrets.token_hex(8) for _ in revocations],
            [msgspec.json.encode(revocation).decode() for revocation in revocations],
            now_ms,
            CHANNEL,
        )


async def append_audit(connection: Connection, *entries: AuditEntry) -> None:
    """Append to the audit trail."""
    await connection.executemany(
        "INSERT INTO audit (at_ms, kind, user_id, session_id, address, detail) "
        "VALUES ($1, $2, $3, $4, $5, $6)",
        [msgspec.structs.astuple(entry) for entry in entries],
    )
