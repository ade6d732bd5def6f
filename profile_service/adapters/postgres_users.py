"""`UserStore` on PostgreSQL."""

from collections.abc import Sequence

import msgspec

from profile_service.adapters.postgres_access import StorePostgres, storable
from profile_service.adapters.postgres_rows import (
    append_audit,
    append_revocations,
    end_sessions,
    insert_session,
    live_sessions,
    lock_sessions,
)
from profile_service.adapters.rows import USER_COLUMNS, encode_profile, user_from_row
from profile_service.errors import UsernameTaken
from profile_service.external_people import ExternalIdentity
from profile_service.ports import AuditEntry, Credentials, LiveSession
from profile_service.rotation import Session
from profile_service.users import Profile, User, canonical_username
from shared.ids import UserId
from shared.postgres import Connection, Postgres
from shared.revocation import Revocation

__all__ = ["PostgresUserStore"]

_SELECT_USERS = f"SELECT {USER_COLUMNS} FROM users AS u WHERE u.deleted_at_ms IS NULL AND "  # noqa: S608

_INSERT_USER = (
    "INSERT INTO users VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, NULL) "
    "ON CONFLICT (canonical_username) DO NOTHING RETURNING id"
)
_UPDATE_PROFILE = (
    "UPDATE users AS u SET profile = $1, updated_at_ms = $2, revision = revision + 1 "  # noqa: S608
    "WHERE id = $3 AND revision = $4 AND deleted_at_ms IS NULL "
    f"RETURNING {USER_COLUMNS}"
)
_RAISE_VERSION = (
    "UPDATE users SET token_version = token_version + 1, password_hash = $1 "
    "WHERE id = $2 AND token_version = $3 AND deleted_at_ms IS NULL RETURNING id"
)
_DELETE = (
    "UPDATE users SET deleted_at_ms = $1, updated_at_ms = $1, password_hash = NULL, "
    "profile = '{}', token_version = token_version + 1, revision = revision + 1 "
    "WHERE id = $2 AND token_version = $3 AND deleted_at_ms IS NULL RETURNING id"
)


class _Unchanged(Exception):
    """Rolls back what turned out not to be wanted."""


class PostgresUserStore:
    """Keeps users in a `Postgres` that was opened with this package's migrations."""

    def __init__(self, database: Postgres) -> None:
        self._database = StorePostgres(database)

    async def create_user(
        self, user: User, password_hash: str, session: Session, audit: AuditEntry
    ) -> None:
        async def insert(connection: Connection) -> None:
            if not await _insert_user(connection, user, password_hash):
                raise UsernameTaken(user.username)
            await insert_session(connection, session)
            await append_audit(connection, audit)

        await self._database.write(insert)

    async def create_external_user(
        self,
        user: User,
        names: Sequence[str],
        identity: ExternalIdentity,
        session: Session,
        audit: AuditEntry,
    ) -> User | None:
        async def insert(connection: Connection) -> User:
            created = await _insert_first_free(connection, user, names, identity)
            await insert_session(connection, session)
            await append_audit(connection, audit)
            return created

        try:
            return await self._database.write(insert)
        except _Unchanged:
            return None

    async def user_by_identity(self, identity: ExternalIdentity) -> User | None:
        if len(storable([identity.issuer, identity.subject])) < 2:
            return None
        found = await self._select(
            "u.id = (SELECT user_id FROM external_identities WHERE issuer = $1 AND subject = $2)",
            identity.issuer,
            identity.subject,
        )
        return found[0] if found else None

    async def credentials(self, canonical_username: str) -> Credentials | None:
        async def select(connection: Connection) -> Credentials | None:
            row = await connection.fetchrow(
                f"SELECT {USER_COLUMNS}, u.password_hash FROM users AS u "  # noqa: S608
                "WHERE u.canonical_username = ANY($1::text[]) AND u.deleted_at_ms IS NULL",
                storable([canonical_username]),
            )
            return None if row is None else Credentials(user_from_row(row), row[-1])

        return await self._database.read(select)

    async def users(self, ids: Sequence[UserId]) -> list[User]:
        return await self._select("u.id = ANY($1::text[])", storable(ids))

    async def deleted_users(self, ids: Sequence[UserId]) -> list[UserId]:
        rows = await self._database.read(
            lambda connection: connection.fetch(
                "SELECT id FROM users WHERE deleted_at_ms IS NOT NULL AND id = ANY($1::text[])",
                storable(ids),
            )
        )
        return [UserId(user_id) for (user_id,) in rows]

    async def user_by_name(self, canonical_username: str) -> User | None:
        found = await self._select(
            "u.canonical_username = ANY($1::text[])", storable([canonical_username])
        )
        return found[0] if found else None

    async def users_by_prefix(self, prefix: str, after: str, limit: int) -> list[User]:
        if len(storable([prefix, after])) < 2:
            return []
        return await self._select(
            "u.canonical_username >= $1 AND u.canonical_username < $2 "
            "AND u.canonical_username > $3 ORDER BY u.canonical_username LIMIT $4",
            prefix,
            prefix + "\x7f",  # above every character of a username
            after,
            limit,
        )

    async def _select(self, condition: str, *parameters: str | int | Sequence[str]) -> list[User]:
        rows = await self._database.read(
            lambda connection: connection.fetch(_SELECT_USERS + condition, *parameters)
        )
        return [user_from_row(row) for row in rows]

    async def update_profile(
        self, user_id: UserId, profile: Profile, *, expected_revision: int, now_ms: int
    ) -> User | None:
        row = await self._database.autocommit(
            lambda connection: connection.fetchrow(
                _UPDATE_PROFILE, encode_profile(profile), now_ms, user_id, expected_revision
            )
        )
        return None if row is None else user_from_row(row)

    async def rehash_password(self, user_id: UserId, old_hash: str, new_hash: str) -> None:
        await self._database.autocommit(
            lambda connection: connection.execute(
                "UPDATE users SET password_hash = $1 WHERE id = $2 AND password_hash = $3",
                new_hash,
                user_id,
                old_hash,
            )
        )

    async def change_password(
        self, kept: Session, password_hash: str, *, expected_version: int, audit: AuditEntry
    ) -> LiveSession | None:
        revocation = Revocation(
            "all_sessions",
            kept.user_id,
            token_version=expected_version + 1,
            kept_session_id=kept.id,
        )

        async def change(connection: Connection) -> LiveSession:
            user_id = kept.user_id
            if not await connection.fetchval(
                _RAISE_VERSION, password_hash, user_id, expected_version
            ):
                raise _Unchanged
            await lock_sessions(connection, user_id, even_ended=False)
            await end_sessions(connection, user_id, audit.at_ms, kept.id)
            await connection.execute(
                "UPDATE sessions SET generation = generation + 1, rotated_at_ms = $1 "
                "WHERE id = $2 AND user_id = $3",
                audit.at_ms,
                kept.id,
                user_id,
            )
            after = await live_sessions(connection, [kept.id], audit.at_ms)
            if not after:
                raise _Unchanged
            await append_audit(connection, audit)
            await append_revocations(connection, [revocation], audit.at_ms)
            return after[0]

        try:
            return await self._database.write(change)
        except _Unchanged:
            return None

    async def delete_user(
        self, user_id: UserId, *, expected_version: int, audit: AuditEntry
    ) -> bool:
        async def delete(connection: Connection) -> bool:
            if not await connection.fetchval(_DELETE, audit.at_ms, user_id, expected_version):
                return False
            await lock_sessions(connection, user_id, even_ended=True)
            await end_sessions(connection, user_id, audit.at_ms)
            await connection.execute("DELETE FROM external_identities WHERE user_id = $1", user_id)
            await connection.execute(
                "UPDATE sessions SET device_name = NULL, user_agent = NULL WHERE user_id = $1",
                user_id,
            )
            await append_audit(connection, audit)
            revocation = Revocation("user_deleted", user_id)
            await append_revocations(connection, [revocation], audit.at_ms)
            return True

        return await self._database.write(delete)


async def _insert_first_free(
    connection: Connection, user: User, names: Sequence[str], identity: ExternalIdentity
) -> User:
    """Store a new external user. Two services that do so at once for one identity: one wins."""
    key = (identity.issuer, identity.subject)
    if await connection.fetchval(
        "SELECT 1 FROM external_identities WHERE issuer = $1 AND subject = $2", *key
    ):
        raise _Unchanged
    for name in names:
        wanted = msgspec.structs.replace(user, username=name)
        if await _insert_user(connection, wanted, None):
            break
    else:
        raise UsernameTaken(user.username)
    if not await connection.fetchval(
        "INSERT INTO external_identities VALUES ($1, $2, $3, $4) "
        "ON CONFLICT DO NOTHING RETURNING user_id",
        *key,
        wanted.id,
        wanted.created_at_ms,
    ):
        raise _Unchanged
    return wanted


async def _insert_user(connection: Connection, user: User, password_hash: str | None) -> bool:
    """Store a new user; False when the name, folded, belongs or belonged to somebody.

    When somebody else is about to take the name, this waits until that is settled.
    """
    inserted = await connection.fetchval(
        _INSERT_USER,
        user.id,
        user.username,
        canonical_username(user.username),
        password_hash,
        user.token_version,
        user.revision,
        encode_profile(user.profile),
        user.created_at_ms,
        user.updated_at_ms,
    )
    return inserted is not None
