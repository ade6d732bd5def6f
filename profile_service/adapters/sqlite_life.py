"""What becomes of the profile service's database when a backup takes its place."""

import sqlite3

__all__ = ["DATABASE_NAME", "begin_new_life"]

DATABASE_NAME = "users.db"


def begin_new_life(connection: sqlite3.Connection) -> None:
    """Log everybody out of a restored database.

    Otherwise a session that was ended after the backup was taken would be alive again, and with it
    a refresh token that was stolen and found out. Followers of the feed hear of it as of any other
    revocation; one that stands at an event of the lost database is told to start afresh.
    """
    for statement in _LOG_OUT:
        connection.execute(statement)


_NOW_MS = "1000 * strftime('%s', 'now')"
_LOG_OUT = (
    "UPDATE users SET token_version = token_version + 1"
    " WHERE id IN (SELECT user_id FROM sessions WHERE ended_at_ms IS NULL)",
    "INSERT INTO revocations (nonce, at_ms, event)"  # noqa: S608 - constants
    f" SELECT lower(hex(randomblob(8))), {_NOW_MS}, json_object("
    "'kind', 'all_sessions', 'user_id', id, 'token_version', token_version)"
    " FROM users WHERE id IN (SELECT user_id FROM sessions WHERE ended_at_ms IS NULL)",
    f"UPDATE sessions SET ended_at_ms = {_NOW_MS} WHERE ended_at_ms IS NULL",  # noqa: S608
)
