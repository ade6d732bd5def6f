"""What is done to the profile service's PostgreSQL database as a whole."""

import time

from profile_service.adapters.postgres_access import MIGRATIONS, SCHEMA
from profile_service.adapters.postgres_keys import reseal
from profile_service.adapters.postgres_rows import CHANNEL
from shared.postgres import Connection, Postgres

__all__ = ["begin_new_life", "reseal_keys"]

TIMEOUT_S = 3600.0
"""Every session is touched; there may be millions."""

_RAISE_VERSIONS = (
    "UPDATE users SET token_version = token_version + 1 "
    "WHERE id IN (SELECT user_id FROM sessions WHERE ended_at_ms IS NULL)"
)
_APPEND_REVOCATIONS = """
WITH logged_out AS (
    SELECT id, token_version, row_number() OVER (ORDER BY id) AS number
    FROM users WHERE id IN (SELECT user_id FROM sessions WHERE ended_at_ms IS NULL)
),
place AS (
    UPDATE feed SET position = position + (SELECT count(*) FROM logged_out) RETURNING position
)
INSERT INTO revocations (position, nonce, at_ms, event)
SELECT place.position - (SELECT count(*) FROM logged_out) + number,
    substr(md5(gen_random_uuid()::text), 1, 16), $1,
    json_build_object('kind', 'all_sessions', 'user_id', id, 'token_version', token_version)
FROM place, logged_out
"""
_END_SESSIONS = "UPDATE sessions SET ended_at_ms = $1 WHERE ended_at_ms IS NULL"


async def begin_new_life(url: str) -> None:
    """Log everybody out of a restored database; see `sqlite_life` for why.

    Raises:
        DatabaseUnavailable: nothing was changed.
        ValueError: the URL cannot be used.
    """

    async def log_out(connection: Connection) -> None:
        now_ms = int(time.time() * 1000)
        await connection.execute("LOCK TABLE users, sessions IN SHARE ROW EXCLUSIVE MODE")
        await connection.execute(_RAISE_VERSIONS)
        await connection.execute(_APPEND_REVOCATIONS, now_ms)
        await connection.execute(_END_SESSIONS, now_ms)
        await connection.execute("SELECT pg_notify($1, '')", CHANNEL)

    async with await _open(url) as database:
        await database.write(log_out)


async def reseal_keys(url: str, old_secret: bytes, new_secret: bytes) -> int:
    """Encrypt the signing keys under another service secret; return how many there are.

    Raises:
        DatabaseUnavailable: nothing was changed.
        KeysUnusable: the old secret is not the one.
        ValueError: the URL cannot be used.
    """
    async with await _open(url) as database:
        return await database.write(lambda connection: reseal(connection, old_secret, new_secret))


async def _open(url: str) -> Postgres:
    return await Postgres.open(url, MIGRATIONS, schema=SCHEMA, command_timeout_s=TIMEOUT_S)
