"""Moves the profile service's data from its data directory to PostgreSQL."""

import sqlite3
from collections.abc import Callable
from pathlib import Path

from profile_service.adapters.key_directory import KeyDirectory
from profile_service.adapters.postgres_access import MIGRATIONS, SCHEMA
from profile_service.adapters.postgres_keys import insert_keys, key_cipher
from profile_service.adapters.sqlite_life import DATABASE_NAME
from shared.postgres import Connection, Postgres
from shared.relocation import Moved, RelocationRefused, Table, open_source, relocate

__all__ = ["move_to_postgres"]


def _table(name: str, key: str, *columns: str) -> Table:
    chosen = ", ".join((key, *columns))
    order = key if name != "external_identities" else "issuer, subject"
    return Table(name, tuple(chosen.split(", ")), f"SELECT {chosen} FROM {name} ORDER BY {order}")  # noqa: S608


_TABLES = (
    _table(
        "users",
        "id",
        *("username", "canonical_username", "password_hash", "token_version", "revision"),
        *("profile", "created_at_ms", "updated_at_ms", "deleted_at_ms"),
    ),
    _table(
        "sessions",
        "id",
        *("user_id", "device_name", "user_agent", "generation", "confirmed_generation"),
        *("rotated_at_ms", "created_at_ms", "expires_at_ms", "ended_at_ms"),
    ),
    _table("external_identities", "issuer", "subject", "user_id", "created_at_ms"),
    _table("revocations", "position", "nonce", "at_ms", "event"),
    _table("audit", "id", "at_ms", "kind", "user_id", "session_id", "address", "detail"),
)
_COUNTERS = (
    "UPDATE feed SET position = coalesce((SELECT max(position) FROM revocations), 0)",
    "SELECT setval(pg_get_serial_sequence('audit', 'id'), (SELECT max(id) FROM audit) + 1, false)",
)


async def move_to_postgres(
    data_dir: Path,
    keys: KeyDirectory,
    url: str,
    secret: bytes,
    report: Callable[[str, int], None],
) -> list[Moved]:
    """Copy the database and the signing keys; see `relocate`. The source stays as it is.

    Everybody stays logged in: sessions, keys and places in the feed are the same afterwards.

    Raises:
        DatabaseInUse: the service is running.
        DatabaseUnavailable: PostgreSQL cannot be reached; what was copied stays.
        KeysUnusable: a key file cannot be read.
        RelocationRefused: the message says why.
        ValueError: the URL cannot be used.
    """
    signing_keys = keys.read()
    cipher = key_cipher(secret)
    with open_source(data_dir / DATABASE_NAME) as source:
        epoch = _epoch(source)

        async def finish(connection: Connection) -> None:
            await insert_keys(connection, cipher, signing_keys)
            await connection.execute("UPDATE epoch SET value = $1", epoch)
            for statement in _COUNTERS:
                await connection.execute(statement)

        async with await Postgres.open(url, MIGRATIONS, schema=SCHEMA) as database:
            return await relocate(
                source, database, _TABLES, identity=epoch, finish=finish, report=report
            )


def _epoch(source: sqlite3.Connection) -> str:
    try:
        return str(source.execute("SELECT value FROM epoch").fetchone()[0])
    except sqlite3.DatabaseError as error:
        raise RelocationRefused(f"this is no database of the profile service: {error}") from error
