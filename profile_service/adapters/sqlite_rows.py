"""How users, sessions, revocations and audit rows are read and written in SQLite, by both stores.

Each function runs inside a transaction of its caller, on the database's thread.
"""

import secrets
import sqlite3

import msgspec

from profile_service.adapters.rows import (
    SESSION_COLUMNS,
    USER_COLUMNS,
    live_session_from_row,
)
from profile_service.ports import AuditEntry, LiveSession
from profile_service.rotation import Session
from shared.ids import SessionId, UserId
from shared.revocation import Revocation

__all__ = [
    "LIVE_SESSION",
    "append_audit",
    "append_revocation",
    "end_sessions",
    "insert_session",
    "live_session",
]

LIVE_SESSION = (
    f"SELECT {USER_COLUMNS}, {SESSION_COLUMNS} FROM sessions AS s "  # noqa: S608 - constants
    "JOIN users AS u ON u.id = s.user_id "
    "WHERE s.ended_at_ms IS NULL AND s.expires_at_ms > :now_ms AND s.id "
)


def live_session(
    connection: sqlite3.Connection, session_id: SessionId, now_ms: int
) -> LiveSession | None:
    """Read one session if it is alive, with its user."""
    row = connection.execute(
        LIVE_SESSION + "= :id", {"now_ms": now_ms, "id": session_id}
    ).fetchone()
    return None if row is None else live_session_from_row(row)


def insert_session(connection: sqlite3.Connection, session: Session) -> None:
    """Store a new session."""
    connection.execute(
        "INSERT INTO sessions VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        msgspec.structs.astuple(session),
    )


def end_sessions(
    connection: sqlite3.Connection, user_id: UserId, now_ms: int, kept: SessionId | None = None
) -> None:
    """End all sessions of a user but one."""
    connection.execute(
        "UPDATE sessions SET ended_at_ms = ? "
        "WHERE user_id = ? AND ended_at_ms IS NULL AND id IS NOT ?",
        (now_ms, user_id, kept),
    )


def append_revocation(connection: sqlite3.Connection, revocation: Revocation, now_ms: int) -> None:
    """Append to the feed, for those who hold live connections."""
    connection.execute(
        "INSERT INTO revocations (nonce, at_ms, event) VALUES (?, ?, ?)",
        (secrets.token_hex(8), now_ms, msgspec.json.encode(revocation).decode()),
    )


def append_audit(connection: sqlite3.Connection, entry: AuditEntry) -> None:
    """Append to the audit trail."""
    connection.execute(
        "INSERT INTO audit (at_ms, kind, user_id, session_id, address, detail) "
        "VALUES (?, ?, ?, ?, ?, ?)",
        msgspec.structs.astuple(entry),
    )
