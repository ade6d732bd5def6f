"""The engines that keep conversations, for tests that hold for each of them."""

import contextlib
import sqlite3
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Protocol

import psycopg
import pytest

from tests.support.gateway import database_locked
from tests.support.postgres import Databases
from tests.support.talk import search_index_is_sound
from ws_gateway.adapters.postgres_search import document
from ws_gateway.adapters.postgres_stores import MIGRATIONS, SCHEMA, open_postgres_stores
from ws_gateway.adapters.sqlite_stores import open_sqlite_stores
from ws_gateway.ports import Stores

__all__ = ["ENGINES", "Engine", "PostgresEngine", "SqliteEngine", "engine_of"]

ENGINES = ["sqlite", "postgresql"]


class Engine(Protocol):
    """One database, and what a test asks of it past the stores."""

    def open(self) -> AbstractAsyncContextManager[Stores]:
        """Open the stores; again after they were closed."""
        ...

    def search_is_sound(self) -> bool:
        """Compare the search index, which must have caught up, with what it is made from."""
        ...

    def rows(self) -> list[str]:
        """Every row of every table but those of the search index."""
        ...

    def unwritable(self) -> contextlib.AbstractContextManager[None]:
        """Keep the search index from being written while the context lasts."""
        ...


class SqliteEngine:
    """A file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def open(self) -> AbstractAsyncContextManager[Stores]:
        """See `Engine`."""
        return open_sqlite_stores(self.path, busy_timeout_s=0.05)

    def search_is_sound(self) -> bool:
        """See `Engine`."""
        return search_index_is_sound(self.path)

    def rows(self) -> list[str]:
        """See `Engine`."""
        with contextlib.closing(sqlite3.connect(f"file:{self.path}?mode=ro", uri=True)) as c:
            tables = c.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall()
            return [str(row) for (name,) in tables for row in c.execute(f"SELECT * FROM {name}")]

    def unwritable(self) -> contextlib.AbstractContextManager[None]:
        """See `Engine`."""
        return database_locked(self.path.with_name("search.db"))


class PostgresEngine:
    """A database of the test's own on a real server."""

    def __init__(self, url: str) -> None:
        self.url = url

    def open(self) -> AbstractAsyncContextManager[Stores]:
        """See `Engine`."""
        return open_postgres_stores(self.url, max_connections=4, command_timeout_s=5)

    def connect(self) -> psycopg.Connection[Any]:
        """A connection of the test's own; close it."""
        return psycopg.connect(self.url, options=f"-c search_path={SCHEMA}")

    def search_is_sound(self) -> bool:
        """See `Engine`."""
        with contextlib.closing(self.connect()) as connection:
            behind = connection.execute(
                "SELECT count(*) FROM indexed JOIN conversations ON conversation = key"
                " WHERE indexed.seq <> last_seq"
            ).fetchall()
            made = connection.execute("SELECT conversation, seq, words::text FROM search")
            found = {(conversation, seq): words for conversation, seq, words in made}
            texts = connection.execute(
                "SELECT conversation, seq, text, low, high FROM messages"
                " JOIN conversations ON conversation = key WHERE NOT deleted"
            ).fetchall()
            wanted = {
                (conversation, seq): connection.execute(
                    "SELECT %s::tsvector::text", [document(text, low, high)]
                ).fetchall()[0][0]
                for conversation, seq, text, low, high in texts
            }
        return behind == [(0,)] and found == wanted

    def rows(self) -> list[str]:
        """See `Engine`."""
        with contextlib.closing(self.connect()) as connection:
            names = connection.execute(
                "SELECT tablename FROM pg_tables WHERE schemaname = %s AND tablename <> 'search'",
                [SCHEMA],
            ).fetchall()
            return [
                str(row)
                for (name,) in names
                for row in connection.execute(f"SELECT * FROM {name}".encode())
            ]

    @contextlib.contextmanager
    def unwritable(self) -> Iterator[None]:
        """See `Engine`."""
        with contextlib.closing(self.connect()) as connection:
            connection.execute("LOCK TABLE indexed IN EXCLUSIVE MODE")
            yield


def engine_of(name: str, request: pytest.FixtureRequest, directory: Path) -> Engine:
    """Make an empty database of an engine; skips when there is no server for it."""
    if name == "sqlite":
        return SqliteEngine(directory / "messages.db")
    databases: Databases = request.getfixturevalue("postgres_databases")
    return PostgresEngine(databases.migrated(MIGRATIONS, SCHEMA))
