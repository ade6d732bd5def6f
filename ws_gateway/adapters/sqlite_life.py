"""The gateway's files, and what becomes of them when a copy takes their place."""

import sqlite3

__all__ = ["DATABASE_NAME", "SEARCH_NAME", "begin_new_life", "merge_search"]

DATABASE_NAME = "messages.db"
SEARCH_NAME = "search.db"


def begin_new_life(connection: sqlite3.Connection) -> None:
    """Rename the life of a restored database, so that cursors of the lost one are noticed."""
    connection.execute("UPDATE life SET epoch = lower(hex(randomblob(6)))")


def merge_search(connection: sqlite3.Connection) -> None:
    """Merge the search index into one part, without the words of removed texts."""
    connection.execute("INSERT INTO search (search) VALUES ('optimize')")
