"""What becomes of the gateway's database when a backup takes its place."""

import sqlite3

__all__ = ["DATABASE_NAME", "begin_new_life"]

DATABASE_NAME = "messages.db"


def begin_new_life(connection: sqlite3.Connection) -> None:
    """Rename the life of a restored database, so that cursors of the lost one are noticed."""
    connection.execute("UPDATE life SET epoch = lower(hex(randomblob(6)))")
