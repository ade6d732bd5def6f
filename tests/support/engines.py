"""What the processes of tests keep their state in: SQLite, or with `DUET_TEST_SCALE=1` PostgreSQL.

Then gateways also tell each other over NATS, and tests that start one may start several. So the
same tests show that the other engines change nothing that people see.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.support.nats_server import NATS_SERVER_MISSING, NatsServer
from tests.support.postgres import POSTGRES_MISSING, PostgresServer

__all__ = ["ON_SCALE", "engines", "settings_of", "stored_in_postgres"]

ON_SCALE = os.environ.get("DUET_TEST_SCALE") == "1"  # before the fixtures hide our settings

_running: list[tuple[PostgresServer, NatsServer]] = []
_databases: dict[Path, str] = {}
_STORED = """
SELECT conversations.id, seq, client_id, text FROM duet_gateway.messages
JOIN duet_gateway.conversations ON conversations.key = messages.conversation
ORDER BY sent_at_ms, conversations.id, seq
"""


@pytest.fixture(scope="session", autouse=True)
def engines() -> Iterator[None]:
    """Run the servers for as long as the tests run, if they are asked for."""
    if not ON_SCALE:
        yield
        return
    if not PostgresServer.is_installed() or not NatsServer.is_installed():
        raise RuntimeError(f"{POSTGRES_MISSING}; {NATS_SERVER_MISSING}")
    postgres, nats = PostgresServer(), NatsServer()
    try:
        postgres.start()
        nats.start()
        _running.append((postgres, nats))
        yield
    finally:
        _running.clear()
        nats.kill()
        postgres.close()


def settings_of(data_dir: Path) -> dict[str, str]:
    """What a service is told, besides its data directory, which stands for a database here."""
    if not ON_SCALE:
        return {}
    (_, nats), url = _running[0], _database_of(data_dir)
    return {"DUET_DATABASE_URL": url, "DUET_BUS_URL": nats.url}


def stored_in_postgres(data_dir: Path) -> list[tuple[str, int, str, str]]:
    """What the gateways stored: (conversation, seq, client id, text), in the order of sending."""
    with psycopg.connect(_database_of(data_dir)) as connection:
        return list(connection.execute(_STORED))


def _database_of(data_dir: Path) -> str:
    postgres, _ = _running[0]
    if data_dir not in _databases:
        name = f"duet_{len(_databases)}"
        with psycopg.connect(postgres.url(), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        _databases[data_dir] = postgres.url(name)
    return _databases[data_dir]
