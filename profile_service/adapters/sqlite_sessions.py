"""`SessionStore` on SQLite."""

import sqlite3
from collections.abc import Sequence

import msgspec

from profile_service.adapters.rows import SESSION_COLUMNS, live_session_from_row, session_from_row
from profile_service.adapters.sqlite_access import StoreDatabase
from profile_service.adapters.sqlite_rows import (
    LIVE_SESSION,
    append_audit,
    append_revocation,
    end_sessions,
    insert_session,
    live_session,
)
from profile_service.ports import AuditEntry, FeedEntry, FeedPosition, LiveSession, Rotation
from profile_service.rotation import (
    MAX_SESSIONS_PER_USER,
    Decision,
    PresentedRefresh,
    RotationRule,
    Session,
    decide,
)
from shared.ids import SessionId, UserId
from shared.revocation import HeldSession, Revocation
from shared.sqlite import Database

__all__ = ["SqliteSessionStore"]

MAX_PRUNED_ROWS = 2000
"""Of each table in one transaction: a few milliseconds, which others can wait for."""

_PRUNE = (
    "DELETE FROM sessions WHERE id IN (SELECT id FROM sessions WHERE expires_at_ms < ? LIMIT ?)",
    # only the oldest are looked at: by time alone, every one would be
    "DELETE FROM revocations WHERE at_ms < ? "
    "AND position < (SELECT max(position) FROM revocations) "
    "AND position IN (SELECT position FROM revocations ORDER BY position LIMIT ?)",
    "DELETE FROM audit WHERE id IN (SELECT id FROM audit WHERE at_ms < ? LIMIT ?)",
)

_decode_revocation = msgspec.json.Decoder(Revocation).decode


class SqliteSessionStore:
    """Keeps sessions in a `Database` that was opened with this package's migrations."""

    def __init__(self, database: Database) -> None:
        self._database = StoreDatabase(database)

    async def create_session(
        self, session: Session, *, expected_version: int, audit: AuditEntry
    ) -> bool:
        def insert(connection: sqlite3.Connection) -> bool:
            user = connection.execute(
                "SELECT 1 FROM users WHERE id = ? AND token_version = ? AND deleted_at_ms IS NULL",
                (session.user_id, expected_version),
            ).fetchone()
            if user is None:
                return False
            insert_session(connection, session)
            for surplus in _beyond_limit(connection, session.user_id):
                _end_session(connection, surplus, audit.at_ms)
            append_audit(connection, audit)
            return True

        return await self._database.write(insert)

    async def live_sessions(self, ids: Sequence[SessionId], now_ms: int) -> list[LiveSession]:
        def select(connection: sqlite3.Connection) -> list[LiveSession]:
            rows = connection.execute(
                LIVE_SESSION + "IN (SELECT value FROM json_each(:ids))",  # noqa: S608
                {"now_ms": now_ms, "ids": msgspec.json.encode(ids).decode()},
            )
            return [live_session_from_row(row) for row in rows]

        return await self._database.read(select)

    async def sessions_of(self, user_id: UserId, now_ms: int) -> list[Session]:
        def select(connection: sqlite3.Connection) -> list[Session]:
            rows = connection.execute(
                f"SELECT {SESSION_COLUMNS} FROM sessions AS s "  # noqa: S608 - constants
                "WHERE s.user_id = ? AND s.ended_at_ms IS NULL AND s.expires_at_ms > ? "
                "ORDER BY s.created_at_ms, s.id",
                (user_id, now_ms),
            )
            return [session_from_row(row) for row in rows]

        return await self._database.read(select)

    async def rotate(
        self,
        presented: Sequence[tuple[PresentedRefresh, AuditEntry]],
        *,
        now_ms: int,
        rule: RotationRule,
        expires_at_ms: int,
    ) -> list[Rotation]:
        def rotate_one(
            connection: sqlite3.Connection, token: PresentedRefresh, audit: AuditEntry
        ) -> Rotation:
            live = live_session(connection, token.session_id, now_ms)
            decision = decide(
                token,
                live.session if live else None,
                live.user.token_version if live else None,
                now_ms=now_ms,
                rule=rule,
            )
            if decision is Decision.REFUSE or live is None:
                return Rotation(Decision.REFUSE, None)
            if decision is Decision.ROTATE:
                live = _advance(connection, live, now_ms, expires_at_ms)
            if decision is Decision.REUSE:
                _end_session(connection, live.session, now_ms)
            if row := audit.of(decision, live.user.id):
                append_audit(connection, row)
            return Rotation(decision, live if decision.gives_tokens else None)

        def rotate_all(connection: sqlite3.Connection) -> list[Rotation]:
            return [rotate_one(connection, token, audit) for token, audit in presented]

        return await self._database.write(rotate_all)

    async def confirm(self, shown: Sequence[tuple[SessionId, int]]) -> None:
        def update(connection: sqlite3.Connection) -> None:
            connection.executemany(
                "UPDATE sessions SET confirmed_generation = max(confirmed_generation, ?) "
                "WHERE id = ?",
                [(generation, session_id) for session_id, generation in shown],
            )

        await self._database.write(update)

    async def end_session(self, user_id: UserId, session_id: SessionId, audit: AuditEntry) -> bool:
        def end(connection: sqlite3.Connection) -> bool:
            live = live_session(connection, session_id, audit.at_ms)
            if live is None or live.user.id != user_id:
                return False
            _end_session(connection, live.session, audit.at_ms)
            append_audit(connection, audit)
            return True

        return await self._database.write(end)

    async def end_all_sessions(self, user_id: UserId, audit: AuditEntry) -> None:
        def end(connection: sqlite3.Connection) -> None:
            row = connection.execute(
                "UPDATE users SET token_version = token_version + 1 "
                "WHERE id = ? AND deleted_at_ms IS NULL RETURNING token_version",
                (user_id,),
            ).fetchone()
            if row is None:
                return
            end_sessions(connection, user_id, audit.at_ms)
            revocation = Revocation("all_sessions", user_id, token_version=row[0])
            append_revocation(connection, revocation, audit.at_ms)
            append_audit(connection, audit)

        await self._database.write(end)

    async def ended(self, held: Sequence[HeldSession], now_ms: int) -> list[SessionId]:
        alive = {
            (live.session.id, live.user.id)
            for live in await self.live_sessions([session.sid for session in held], now_ms)
        }
        return [session.sid for session in held if (session.sid, session.sub) not in alive]

    async def feed_end(self) -> FeedPosition:
        def select(connection: sqlite3.Connection) -> FeedPosition:
            row = connection.execute(
                "SELECT position, nonce FROM revocations ORDER BY position DESC LIMIT 1"
            ).fetchone()
            return FeedPosition(*row) if row else FeedPosition(0, _epoch(connection))

        return await self._database.read(select)

    async def feed_has(self, at: FeedPosition) -> bool:
        def select(connection: sqlite3.Connection) -> bool:
            if at.position == 0:
                first = connection.execute("SELECT min(position) FROM revocations").fetchone()[0]
                return at.nonce == _epoch(connection) and first in {None, 1}
            row = connection.execute(
                "SELECT 1 FROM revocations WHERE position = ? AND nonce = ?",
                (at.position, at.nonce),
            ).fetchone()
            return row is not None

        return await self._database.read(select)

    async def revocations_after(self, position: int, limit: int) -> list[FeedEntry]:
        def select(connection: sqlite3.Connection) -> list[FeedEntry]:
            rows = connection.execute(
                "SELECT position, nonce, event FROM revocations WHERE position > ? "
                "ORDER BY position LIMIT ?",
                (position, limit),
            )
            return [
                FeedEntry(FeedPosition(number, nonce), _decode_revocation(event))
                for number, nonce, event in rows
            ]

        return await self._database.read(select)

    async def append_audit(self, entry: AuditEntry) -> None:
        await self._database.write(lambda connection: append_audit(connection, entry))

    async def prune(self, *, sessions_ms: int, revocations_ms: int, audit_ms: int) -> int:
        before = (sessions_ms, revocations_ms, audit_ms)

        def delete(connection: sqlite3.Connection) -> int:
            return sum(
                connection.execute(statement, (before_ms, MAX_PRUNED_ROWS)).rowcount
                for statement, before_ms in zip(_PRUNE, before, strict=True)
            )

        return await self._database.write(delete)

    async def ping(self) -> None:
        await self._database.read(lambda connection: connection.execute("SELECT 1").fetchone())


def _epoch(connection: sqlite3.Connection) -> str:
    return str(connection.execute("SELECT value FROM epoch").fetchone()[0])


def _beyond_limit(connection: sqlite3.Connection, user_id: UserId) -> list[Session]:
    rows = connection.execute(
        f"SELECT {SESSION_COLUMNS} FROM sessions AS s "  # noqa: S608 - constants
        "WHERE s.user_id = ? AND s.ended_at_ms IS NULL "
        "ORDER BY s.rotated_at_ms DESC, s.created_at_ms DESC LIMIT -1 OFFSET ?",
        (user_id, MAX_SESSIONS_PER_USER),
    ).fetchall()
    return [session_from_row(row) for row in rows]


def _advance(
    connection: sqlite3.Connection, live: LiveSession, now_ms: int, expires_at_ms: int
) -> LiveSession:
    """Raise the generation, by compare-and-set, and let the session live on."""
    session = live.session
    moved = connection.execute(
        "UPDATE sessions SET generation = generation + 1, rotated_at_ms = ?, expires_at_ms = ? "
        "WHERE id = ? AND generation = ? AND ended_at_ms IS NULL",
        (now_ms, expires_at_ms, session.id, session.generation),
    )
    if moved.rowcount != 1:  # cannot be: this transaction has read it and nobody else writes
        raise AssertionError(f"lost the generation of {session.id}")
    return LiveSession(
        msgspec.structs.replace(
            session,
            generation=session.generation + 1,
            rotated_at_ms=now_ms,
            expires_at_ms=expires_at_ms,
        ),
        live.user,
    )


def _end_session(connection: sqlite3.Connection, session: Session, now_ms: int) -> None:
    connection.execute("UPDATE sessions SET ended_at_ms = ? WHERE id = ?", (now_ms, session.id))
    append_revocation(
        connection, Revocation("session", session.user_id, session_id=session.id), now_ms
    )
