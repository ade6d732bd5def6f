"""How users, sessions, revocations and audit rows lie in SQLite: shared by both stores.

Each function runs inside a transaction of its caller, on the database's thread.
"""

import secrets
import sqlite3
from collections.abc import Sequence
from typing import Any

import msgspec

from profile_service.ports import AuditEntry, LiveSession
from profile_service.rotation import Session
from profile_service.users import Profile, User
from shared.ids import SessionId, UserId
from shared.revocation import Revocation

__all__ = [
    "LIVE_SESSION",
    "SESSION_COLUMNS",
    "USER_COLUMNS",
    "append_audit",
    "append_revocation",
    "encode_profile",
    "end_sessions",
    "insert_session",
    "live_session",
    "live_session_from_row",
    "session_from_row",
    "user_from_row",
]

USER_COLUMNS = (
    "u.id, u.username, u.profile, u.token_version, u.revision, u.created_at_ms, u.updated_at_ms"
)
SESSION_COLUMNS = (
    "s.id, s.user_id, s.device_name, s.user_agent, s.generation, s.confirmed_generation, "
    "s.rotated_at_ms, s.created_at_ms, s.expires_at_ms, s.ended_at_ms"
)
_USER_WIDTH = 7

LIVE_SESSION = (
    f"SELECT {USER_COLUMNS}, {SESSION_COLUMNS} FROM sessions AS s "  # noqa: S608 - constants
    "JOIN users AS u ON u.id = s.user_id "
    "WHERE s.ended_at_ms IS NULL AND s.expires_at_ms > :now_ms AND s.id "
)

_decode_profile = msgspec.json.Decoder(Profile).decode


def user_from_row(row: Sequence[Any]) -> User:
    """Make a user of `USER_COLUMNS`."""
    return User(
        id=row[0],
        username=row[1],
        profile=_decode_profile(row[2]),
        token_version=row[3],
        revision=row[4],
        created_at_ms=row[5],
        updated_at_ms=row[6],
    )


def session_from_row(row: Sequence[Any]) -> Session:
    """Make a session of `SESSION_COLUMNS`."""
    return Session(
        id=row[0],
        user_id=row[1],
        device_name=row[2],
        user_agent=row[3],
        generation=row[4],
        confirmed_generation=row[5],
        rotated_at_ms=row[6],
        created_at_ms=row[7],
        expires_at_ms=row[8],
        ended_at_ms=row[9],
    )


def live_session_from_row(row: Sequence[Any]) -> LiveSession:
    """Make a live session of a row of `LIVE_SESSION`."""
    return LiveSession(session_from_row(row[_USER_WIDTH:]), user_from_row(row))


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


def encode_profile(profile: Profile) -> str:
    """Turn a profile into what its column holds."""
    return msgspec.json.encode(profile).decode()
