"""`UserStore` on SQLite."""

import sqlite3
from collections.abc import Sequence

import msgspec

from profile_service.adapters.rows import USER_COLUMNS, encode_profile, user_from_row
from profile_service.adapters.sqlite_access import StoreDatabase
from profile_service.adapters.sqlite_rows import (
    append_audit,
    append_revocation,
    end_sessions,
    insert_session,
    live_session,
)
from profile_service.errors import UsernameTaken
from profile_service.external_people import ExternalIdentity
from profile_service.ports import AuditEntry, Credentials, LiveSession
from profile_service.rotation import Session
from profile_service.users import Profile, User, canonical_username
from shared.ids import UserId
from shared.revocation import Revocation
from shared.sqlite import Database

__all__ = ["SqliteUserStore"]

_SELECT_USERS = f"SELECT {USER_COLUMNS} FROM users AS u WHERE u.deleted_at_ms IS NULL AND "  # noqa: S608

_KNOWN_IDENTITY = "SELECT 1 FROM external_identities WHERE issuer = ? AND subject = ?"


class SqliteUserStore:
    """Keeps users in a `Database` that was opened with this package's migrations."""

    def __init__(self, database: Database) -> None:
        self._database = StoreDatabase(database)

    async def create_user(
        self, user: User, password_hash: str, session: Session, audit: AuditEntry
    ) -> None:
        def insert(connection: sqlite3.Connection) -> None:
            if not _insert_user(connection, user, password_hash):
                raise UsernameTaken(user.username)
            insert_session(connection, session)
            append_audit(connection, audit)

        await self._database.write(insert)

    async def create_external_user(
        self,
        user: User,
        names: Sequence[str],
        identity: ExternalIdentity,
        session: Session,
        audit: AuditEntry,
    ) -> User | None:
        def insert(connection: sqlite3.Connection) -> User | None:
            key = (identity.issuer, identity.subject)
            if connection.execute(_KNOWN_IDENTITY, key).fetchone():
                return None
            wanted = (msgspec.structs.replace(user, username=name) for name in names)
            created = next((one for one in wanted if _insert_user(connection, one, None)), None)
            if created is None:
                raise UsernameTaken(user.username)
            connection.execute(
                "INSERT INTO external_identities VALUES (?, ?, ?, ?)",
                (*key, created.id, created.created_at_ms),
            )
            insert_session(connection, session)
            append_audit(connection, audit)
            return created

        return await self._database.write(insert)

    async def user_by_identity(self, identity: ExternalIdentity) -> User | None:
        found = await self._select(
            "u.id = (SELECT user_id FROM external_identities WHERE issuer = ? AND subject = ?)",
            identity.issuer,
            identity.subject,
        )
        return found[0] if found else None

    async def credentials(self, canonical_username: str) -> Credentials | None:
        def select(connection: sqlite3.Connection) -> Credentials | None:
            row = connection.execute(
                f"SELECT {USER_COLUMNS}, u.password_hash FROM users AS u "  # noqa: S608
                "WHERE u.canonical_username = ? AND u.deleted_at_ms IS NULL",
                (canonical_username,),
            ).fetchone()
            return None if row is None else Credentials(user_from_row(row), row[-1])

        return await self._database.read(select)

    async def users(self, ids: Sequence[UserId]) -> list[User]:
        return await self._select(
            "u.id IN (SELECT value FROM json_each(?))", msgspec.json.encode(ids).decode()
        )

    async def deleted_users(self, ids: Sequence[UserId]) -> list[UserId]:
        def select(connection: sqlite3.Connection) -> list[UserId]:
            rows = connection.execute(
                "SELECT id FROM users WHERE deleted_at_ms IS NOT NULL"
                " AND id IN (SELECT value FROM json_each(?))",
                (msgspec.json.encode(ids).decode(),),
            )
            return [user_id for (user_id,) in rows]

        return await self._database.read(select)

    async def user_by_name(self, canonical_username: str) -> User | None:
        found = await self._select("u.canonical_username = ?", canonical_username)
        return found[0] if found else None

    async def users_by_prefix(self, prefix: str, after: str, limit: int) -> list[User]:
        return await self._select(
            "u.canonical_username >= ? AND u.canonical_username < ? AND u.canonical_username > ? "
            "ORDER BY u.canonical_username LIMIT ?",
            prefix,
            prefix + "\x7f",  # above every character of a username
            after,
            limit,
        )

    async def _select(self, condition: str, *parameters: str | int) -> list[User]:
        def select(connection: sqlite3.Connection) -> list[User]:
            return [
                user_from_row(row)
                for row in connection.execute(_SELECT_USERS + condition, parameters)
            ]

        return await self._database.read(select)

    async def update_profile(
        self, user_id: UserId, profile: Profile, *, expected_revision: int, now_ms: int
    ) -> User | None:
        def update(connection: sqlite3.Connection) -> User | None:
            row = connection.execute(
                "UPDATE users AS u SET profile = ?, updated_at_ms = ?, revision = revision + 1 "  # noqa: S608
                "WHERE id = ? AND revision = ? AND deleted_at_ms IS NULL "
                f"RETURNING {USER_COLUMNS.replace('u.', '')}",
                (encode_profile(profile), now_ms, user_id, expected_revision),
            ).fetchone()
            return None if row is None else user_from_row(row)

        return await self._database.write(update)

    async def rehash_password(self, user_id: UserId, old_hash: str, new_hash: str) -> None:
        def update(connection: sqlite3.Connection) -> None:
            connection.execute(
                "UPDATE users SET password_hash = ? WHERE id = ? AND password_hash = ?",
                (new_hash, user_id, old_hash),
            )

        await self._database.write(update)

    async def change_password(
        self, kept: Session, password_hash: str, *, expected_version: int, audit: AuditEntry
    ) -> LiveSession | None:
        user_id = kept.user_id

        def change(connection: sqlite3.Connection) -> LiveSession | None:
            before = live_session(connection, kept.id, audit.at_ms)
            if before is None or before.user.token_version != expected_version:
                return None
            connection.execute(
                "UPDATE users SET password_hash = ?, token_version = token_version + 1 "
                "WHERE id = ?",
                (password_hash, user_id),
            )
            end_sessions(connection, user_id, audit.at_ms, kept.id)
            connection.execute(
                "UPDATE sessions SET generation = generation + 1, rotated_at_ms = ? WHERE id = ?",
                (audit.at_ms, kept.id),
            )
            after = live_session(connection, kept.id, audit.at_ms)
            append_revocation(
                connection,
                Revocation(
                    "all_sessions",
                    user_id,
                    token_version=expected_version + 1,
                    kept_session_id=kept.id,
                ),
                audit.at_ms,
            )
            append_audit(connection, audit)
            return after

        return await self._database.write(change)

    async def delete_user(
        self, user_id: UserId, *, expected_version: int, audit: AuditEntry
    ) -> bool:
        def delete(connection: sqlite3.Connection) -> bool:
            deleted = connection.execute(
                "UPDATE users SET deleted_at_ms = ?, updated_at_ms = ?, password_hash = NULL, "
                "profile = '{}', token_version = token_version + 1, revision = revision + 1 "
                "WHERE id = ? AND token_version = ? AND deleted_at_ms IS NULL",
                (audit.at_ms, audit.at_ms, user_id, expected_version),
            )
            if not deleted.rowcount:
                return False
            end_sessions(connection, user_id, audit.at_ms)
            connection.execute("DELETE FROM external_identities WHERE user_id = ?", (user_id,))
            connection.execute(
                "UPDATE sessions SET device_name = NULL, user_agent = NULL "
                "WHERE user_id = ? AND ended_at_ms IS NOT NULL",
                (user_id,),
            )
            append_revocation(connection, Revocation("user_deleted", user_id), audit.at_ms)
            append_audit(connection, audit)
            return True

        return await self._database.write(delete)


def _insert_user(connection: sqlite3.Connection, user: User, password_hash: str | None) -> bool:
    """Store a new user; False when the name, folded, belongs or belonged to somebody."""
    inserted = connection.execute(
        "INSERT INTO users VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, NULL) "
        "ON CONFLICT (canonical_username) DO NOTHING",
        (
            user.id,
            user.username,
            canonical_username(user.username),
            password_hash,
            user.token_version,
            user.revision,
            encode_profile(user.profile),
            user.created_at_ms,
            user.updated_at_ms,
        ),
    )
    return inserted.rowcount == 1
