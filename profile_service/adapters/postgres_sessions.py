"""`SessionStore` on PostgreSQL."""

from collections.abc import Sequence

import msgspec

from profile_service.adapters.postgres_access import StorePostgres, storable
from profile_service.adapters.postgres_rotation import rotate
from profile_service.adapters.postgres_rows import (
    append_audit,
    append_revocations,
    end_sessions,
    insert_session,
    live_sessions,
    lock_sessions,
    lock_user,
)
from profile_service.adapters.rows import SESSION_COLUMNS, session_from_row
from profile_service.ports import AuditEntry, FeedEntry, FeedPosition, LiveSession, Rotation
from profile_service.rotation import MAX_SESSIONS_PER_USER, PresentedRefresh, RotationRule, Session
from shared.ids import SessionId, UserId
from shared.postgres import Connection, Postgres
from shared.revocation import HeldSession, Revocation

__all__ = ["PostgresSessionStore"]

MAX_PRUNED_ROWS = 2000
"""Of each table in one transaction: some milliseconds, in which nobody waits for these rows."""

_PRUNE = (
    "DELETE FROM sessions WHERE id IN (SELECT id FROM sessions WHERE expires_at_ms < $1 "
    "ORDER BY id LIMIT $2 FOR UPDATE SKIP LOCKED)",
    # only the oldest are looked at: by time alone, every one would be
    "DELETE FROM revocations WHERE at_ms < $1 "
    "AND position < (SELECT max(position) FROM revocations) AND position IN "
    "(SELECT position FROM revocations ORDER BY position LIMIT $2 FOR UPDATE SKIP LOCKED)",
    "DELETE FROM audit WHERE id IN "
    "(SELECT id FROM audit WHERE at_ms < $1 LIMIT $2 FOR UPDATE SKIP LOCKED)",
)
_CONFIRM = """
UPDATE sessions AS s SET confirmed_generation = shown.generation
FROM (
    SELECT s.id, shown.generation
    FROM unnest($1::text[], $2::bigint[]) AS shown (id, generation)
    JOIN sessions AS s ON s.id = shown.id AND s.confirmed_generation < shown.generation
    ORDER BY s.id FOR NO KEY UPDATE OF s
) AS shown
WHERE s.id = shown.id AND s.confirmed_generation < shown.generation
"""
_BEYOND_LIMIT = (
    f"SELECT {SESSION_COLUMNS} FROM sessions AS s "  # noqa: S608 - constants
    "WHERE s.user_id = $1 AND s.ended_at_ms IS NULL "
    "ORDER BY s.rotated_at_ms DESC, s.created_at_ms DESC OFFSET $2"
)

_decode_revocation = msgspec.json.Decoder(Revocation).decode


class PostgresSessionStore:
    """Keeps sessions in a `Postgres` that was opened with this package's migrations."""

    def __init__(self, database: Postgres) -> None:
        self._database = StorePostgres(database)

    async def create_session(
        self, session: Session, *, expected_version: int, audit: AuditEntry
    ) -> bool:
        async def insert(connection: Connection) -> bool:
            if not await lock_user(connection, session.user_id, expected_version):
                return False
            await insert_session(connection, session)
            await append_audit(connection, audit)
            await _end_surplus(connection, session.user_id, audit.at_ms)
            return True

        return await self._database.write(insert)

    async def live_sessions(self, ids: Sequence[SessionId], now_ms: int) -> list[LiveSession]:
        return await self._database.read(
            lambda connection: live_sessions(connection, storable(ids), now_ms)
        )

    async def sessions_of(self, user_id: UserId, now_ms: int) -> list[Session]:
        rows = await self._database.read(
            lambda connection: connection.fetch(
                f"SELECT {SESSION_COLUMNS} FROM sessions AS s "  # noqa: S608 - constants
                "WHERE s.user_id = $1 AND s.ended_at_ms IS NULL AND s.expires_at_ms > $2 "
                "ORDER BY s.created_at_ms, s.id",
                user_id,
                now_ms,
            )
        )
        return [session_from_row(row) for row in rows]

    async def rotate(
        self,
        presented: Sequence[tuple[PresentedRefresh, AuditEntry]],
        *,
        now_ms: int,
        rule: RotationRule,
        expires_at_ms: int,
    ) -> list[Rotation]:
        return await self._database.write(
            lambda connection: rotate(
                connection,
                presented,
                now_ms=now_ms,
                rule=rule,
                expires_at_ms=expires_at_ms,
            )
        )

    async def confirm(self, shown: Sequence[tuple[SessionId, int]]) -> None:
        newest: dict[SessionId, int] = {}
        for session_id, generation in shown:
            newest[session_id] = max(generation, newest.get(session_id, 0))
        await self._database.autocommit(
            lambda connection: connection.execute(_CONFIRM, list(newest), list(newest.values()))
        )

    async def end_session(self, user_id: UserId, session_id: SessionId, audit: AuditEntry) -> bool:
        async def end(connection: Connection) -> bool:
            ended = await connection.fetchval(
                "UPDATE sessions SET ended_at_ms = $1 WHERE id = ANY($2::text[]) AND user_id = $3 "
                "AND ended_at_ms IS NULL AND expires_at_ms > $1 RETURNING id",
                audit.at_ms,
                storable([session_id]),
                user_id,
            )
            if ended is None:
                return False
            await append_audit(connection, audit)
            revocation = Revocation("session", user_id, session_id=session_id)
            await append_revocations(connection, [revocation], audit.at_ms)
            return True

        return await self._database.write(end)

    async def end_all_sessions(self, user_id: UserId, audit: AuditEntry) -> None:
        async def end(connection: Connection) -> None:
            version = await connection.fetchval(
                "UPDATE users SET token_version = token_version + 1 "
                "WHERE id = $1 AND deleted_at_ms IS NULL RETURNING token_version",
                user_id,
            )
            if version is None:
                return
            await lock_sessions(connection, user_id, even_ended=False)
            await end_sessions(connection, user_id, audit.at_ms)
            await append_audit(connection, audit)
            revocation = Revocation("all_sessions", user_id, token_version=version)
            await append_revocations(connection, [revocation], audit.at_ms)

        await self._database.write(end)

    async def ended(self, held: Sequence[HeldSession], now_ms: int) -> list[SessionId]:
        alive = {
            (live.session.id, live.user.id)
            for live in await self.live_sessions([session.sid for session in held], now_ms)
        }
        return [session.sid for session in held if (session.sid, session.sub) not in alive]

    async def feed_end(self) -> FeedPosition:
        row = await self._database.read(
            lambda connection: connection.fetchrow(
                "(SELECT position, nonce FROM revocations ORDER BY position DESC LIMIT 1) "
                "UNION ALL SELECT 0, value FROM epoch ORDER BY position DESC LIMIT 1"
            )
        )
        return FeedPosition(*row)

    async def feed_has(self, at: FeedPosition) -> bool:
        unpruned_start = (
            "SELECT EXISTS (SELECT FROM epoch WHERE value = $2) AND "
            "coalesce((SELECT min(position) FROM revocations), 1) = $1::bigint + 1"
        )
        event = "SELECT EXISTS (SELECT FROM revocations WHERE position = $1 AND nonce = $2)"
        statement = unpruned_start if at.position == 0 else event
        found: bool = await self._database.read(
            lambda connection: connection.fetchval(statement, at.position, at.nonce)
        )
        return found

    async def revocations_after(self, position: int, limit: int) -> list[FeedEntry]:
        rows = await self._database.read(
            lambda connection: connection.fetch(
                "SELECT position, nonce, event FROM revocations WHERE position > $1 "
                "ORDER BY position LIMIT $2",
                position,
                limit,
            )
        )
        return [
            FeedEntry(FeedPosition(number, nonce), _decode_revocation(event))
            for number, nonce, event in rows
        ]

    async def append_audit(self, entry: AuditEntry) -> None:
        await self._database.autocommit(lambda connection: append_audit(connection, entry))

    async def prune(self, *, sessions_ms: int, revocations_ms: int, audit_ms: int) -> int:
        before = (sessions_ms, revocations_ms, audit_ms)

        async def delete(connection: Connection) -> int:
            removed = 0
            for statement, before_ms in zip(_PRUNE, before, strict=True):
                status = await connection.execute(statement, before_ms, MAX_PRUNED_ROWS)
                removed += int(status.removeprefix("DELETE "))
            await connection.execute(  # allowances that are full again: as if they had no row
                "DELETE FROM throttle WHERE full_at_s < $1", sessions_ms / 1000
            )
            return removed

        return await self._database.write(delete)

    async def ping(self) -> None:
        await self._database.read(lambda connection: connection.fetchval("SELECT 1"))


async def _end_surplus(connection: Connection, user_id: UserId, now_ms: int) -> None:
    """End those beyond the limit that were refreshed longest ago. The user must be locked."""
    count = await connection.fetchval(
        "SELECT count(*) FROM sessions WHERE user_id = $1 AND ended_at_ms IS NULL", user_id
    )
    if count <= MAX_SESSIONS_PER_USER:
        return
    await lock_sessions(connection, user_id, even_ended=False)
    rows = await connection.fetch(_BEYOND_LIMIT, user_id, MAX_SESSIONS_PER_USER)
    surplus = [session_from_row(row) for row in rows]
    await connection.execute(
        "UPDATE sessions SET ended_at_ms = $1 WHERE id = ANY($2::text[])",
        now_ms,
        [session.id for session in surplus],
    )
    revocations = [Revocation("session", user_id, session_id=session.id) for session in surplus]
    await append_revocations(connection, revocations, now_ms)
