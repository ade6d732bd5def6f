"""What becomes of the profile service's database when a backup takes its place."""

import sqlite3

__all__ = ["DATABASE_NAME", "begin_new_life"]

DATABASE_NAME = "users.db"


def begin_new_life(connection: sqlite3.Connection) -> None:
    """End every session of a restored database, and make the feed's followers notice.

    A session that was ended after the backup was taken would be alive again, and so would a refresh
    token that was stolen and found out. Followers resume from an event whose name they no longer
    find, are told so, and check the sessions that they hold.
    """
    connection.execute(
        "UPDATE sessions SET ended_at_ms = 1000 * strftime('%s', 'now') WHERE ended_at_ms IS NULL"
    )
    connection.execute("UPDATE revocations SET nonce = lower(hex(randomblob(8)))")
    connection.execute("UPDATE epoch SET value = lower(hex(randomblob(8)))")
