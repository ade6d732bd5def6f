"""A real PostgreSQL for tests, and a fresh database for each of them.

`DUET_TEST_POSTGRES_URL` names a server to use; its user must be allowed to make databases. Without
it, one is started from the binaries of this machine, for each process that runs tests.
"""

import asyncio
import contextlib
import dataclasses
import itertools
import os
import pwd
import re
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest

from shared.postgres import Connection, migrate

__all__ = [
    "POSTGRES_MISSING",
    "Databases",
    "PostgresServer",
    "postgres_databases",
    "postgres_server",
    "somebody_waits",
]

POSTGRES_MISSING = "PostgreSQL is not installed (Debian, Ubuntu: apt install postgresql)"
USER = "duet"

_GIVEN_URL = os.environ.get("DUET_TEST_POSTGRES_URL")  # before the fixtures hide our settings
_WITHIN_S = 30.0
_READY = "database system is ready to accept connections"
_WAITING = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND wait_event_type = 'Lock'
"""
_CONFIGURATION = """
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
max_connections = 200
shared_buffers = 32MB
fsync = on
log_min_messages = warning
log_min_error_statement = panic
"""


class PostgresServer:
    """Starts, stops, crashes and freezes a server with a directory and a port of its own.

    Every method blocks: the first start for about 2 s, the others for less.
    """

    def __init__(self) -> None:
        self.lines: list[str] = []
        """What it has written."""
        self.password = secrets.token_urlsafe(9)
        self._port = 0
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None
        self._directory: Path | None = None

    @staticmethod
    def is_installed() -> bool:
        """Whether there is one to start."""
        return _binaries() is not None

    @property
    def pid(self) -> int:
        """Its first process, the parent of the others; 0 when it does not run."""
        return 0 if self._process is None else self._process.pid

    def url(self, database: str = "postgres") -> str:
        """What a client is told."""
        return f"postgresql://{USER}:{self.password}@127.0.0.1:{self._port}/{database}"

    def start(self) -> None:
        """Run it; returns when it takes connections.

        Raises:
            RuntimeError: it is not installed, has ended, or takes too long; the message says why.
        """
        binaries = _binaries()
        if binaries is None:
            raise RuntimeError(POSTGRES_MISSING)
        if self._directory is None:
            self._directory = self._make_directory(binaries)
        for _ in range(5):
            self._port = self._port or _free_port()
            if self._run(binaries, self._directory):
                return
            if "could not bind" in "\n".join(self.lines[-20:]):
                self._port = 0
        raise RuntimeError("PostgreSQL did not start:\n" + "\n".join(self.lines[-20:]))

    def stop(self) -> None:
        """Shut it down in order; clients are disconnected."""
        self._end(signal.SIGINT)

    def crash(self) -> None:
        """End it at once; the next start recovers from the write-ahead log."""
        self._end(signal.SIGQUIT)

    def kill(self) -> None:
        """SIGKILL to its first process alone; those of the sessions notice, and end."""
        self._end(signal.SIGKILL)

    def freeze(self) -> None:
        """SIGSTOP: its connections stay open, and it says nothing."""
        self._signal_all(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self._signal_all(signal.SIGCONT)

    def disconnect(self, database: str) -> int:
        """End every session of a database; returns how many."""
        with psycopg.connect(self.url(), autocommit=True) as connection:
            ended = connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = %s AND pid <> pg_backend_pid()",
                [database],
            ).fetchall()
        return len(ended)

    def close(self) -> None:
        """End it and remove its directory."""
        self.thaw()
        self.crash()
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)
            self._directory = None

    def _make_directory(self, binaries: Path) -> Path:
        directory = Path(tempfile.mkdtemp(prefix="duet-postgres-"))
        password = directory / "password"
        password.write_text(self.password)
        for path in (directory, password):
            if os.geteuid() == 0:
                os.chown(path, _owner().pw_uid, _owner().pw_gid)
        options = f"--auth scram-sha-256 --username {USER} --encoding UTF8 --locale C --no-sync"
        files = [f"--pgdata={directory}/data", f"--pwfile={password}"]
        made = subprocess.run(
            [binaries / "initdb", *options.split(), *files],
            capture_output=True,
            text=True,
            cwd=directory,
            check=False,
            **_not_as_root(),
        )
        if made.returncode:
            raise RuntimeError(f"initdb failed:\n{made.stdout}\n{made.stderr}")
        with (directory / "data" / "postgresql.conf").open("a") as configuration:
            configuration.write(_CONFIGURATION)
        return directory

    def _run(self, binaries: Path, directory: Path) -> bool:
        self._process = subprocess.Popen(
            [
                *_ended_with_us(),
                binaries / "postgres",
                "-D",
                directory / "data",
                "-p",
                str(self._port),
            ],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            cwd=directory,
            start_new_session=True,
            **_not_as_root(),
        )
        settled = threading.Event()
        self._reader = threading.Thread(target=self._read, args=(self._process, settled))
        self._reader.start()
        if settled.wait(_WITHIN_S) and self._process.poll() is None:
            return True
        self.crash()
        return False

    def _signal_all(self, number: signal.Signals) -> None:
        """Signal the server with the processes of its sessions."""
        if self._process is not None and self._process.poll() is None:
            children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
            for pid in [self._process.pid, *map(int, children.read_text().split())]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)

    def _end(self, number: signal.Signals) -> None:
        process, reader, self._process, self._reader = self._process, self._reader, None, None
        if process is None or reader is None:
            return
        process.send_signal(number)
        try:
            process.wait(_WITHIN_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        reader.join()

    def _read(self, process: "subprocess.Popen[str]", settled: threading.Event) -> None:
        assert process.stderr is not None
        with process.stderr:
            for line in process.stderr:
                self.lines.append(line.rstrip("\n"))
                if _READY in line:
                    settled.set()
        settled.set()


@dataclasses.dataclass
class Databases:
    """Makes databases on a server, each with a name of its own."""

    admin_url: str
    _templates: dict[tuple[str, str], str] = dataclasses.field(default_factory=dict)
    _made: list[str] = dataclasses.field(default_factory=list)
    _numbers: Iterator[int] = dataclasses.field(default_factory=itertools.count)

    def empty(self) -> str:
        """Make one that holds nothing; return its URL."""
        return self._url(self._make("template1"))

    def migrated(self, migrations: str, schema: str) -> str:
        """Make one with this schema as `Postgres.open` makes it, in some 50 ms; return its URL."""
        template = self._templates.get((migrations, schema))
        if template is None:
            template = self._templates[migrations, schema] = self._make("template1")
            migrate(self._url(template), migrations, schema)
        return self._url(self._make(template))

    def drop_all(self) -> None:
        """Remove them, and whoever is connected."""
        with psycopg.connect(self.admin_url, autocommit=True) as connection:
            for name in self._made:
                connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)".encode())
        self._made.clear()

    def _make(self, template: str) -> str:
        name = f"duet_test_{os.getpid()}_{secrets.token_hex(3)}_{next(self._numbers)}"
        with psycopg.connect(self.admin_url, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}".encode())
        self._made.append(name)
        return name

    def _url(self, database: str) -> str:
        return urlunsplit(urlsplit(self.admin_url)._replace(path=f"/{database}"))


@pytest.fixture(scope="session")
def _shared_server() -> Iterator[PostgresServer]:
    if not PostgresServer.is_installed():
        pytest.skip(POSTGRES_MISSING)
    server = PostgresServer()
    try:
        server.start()
        yield server
    finally:
        server.close()


@pytest.fixture(scope="session")
def postgres_databases(request: pytest.FixtureRequest) -> Iterator[Databases]:
    """Makes databases on a server that the tests of this process share: do not restart it."""
    if _GIVEN_URL is not None:
        databases = Databases(_GIVEN_URL)
        yield databases
        databases.drop_all()
        return
    yield Databases(request.getfixturevalue("_shared_server").url())


@pytest.fixture
def postgres_server() -> Iterator[PostgresServer]:
    """A server of the test's own, to be restarted, crashed or frozen."""
    if not PostgresServer.is_installed():
        pytest.skip(POSTGRES_MISSING)
    server = PostgresServer()
    try:
        server.start()
        yield server
    finally:
        server.close()


async def somebody_waits(connection: Connection, count: int = 1) -> None:
    """Return once so many statements wait for locks of the connection's database.

    Outside a transaction: within one PostgreSQL tells again what it has told first.
    """
    async with asyncio.timeout(10):
        while await connection.fetchval(_WAITING) < count:
            pass


def _binaries() -> Path | None:
    """Debian keeps them out of the PATH, in a directory for each version."""

    def version(folder: Path) -> list[int]:
        return [int(number) for number in re.findall(r"\d+", str(folder))]

    found = shutil.which("initdb")
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=version)
    candidates = [Path(found).resolve().parent] if found else []
    candidates += reversed(versions)
    return next((folder for folder in candidates if (folder / "postgres").exists()), None)


def _owner() -> pwd.struct_passwd:
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise RuntimeError("PostgreSQL refuses to run as root, and there is no user `nobody`")


def _not_as_root() -> dict[str, Any]:
    if os.geteuid() != 0:
        return {}
    return {"user": _owner().pw_uid, "group": _owner().pw_gid, "extra_groups": []}


def _ended_with_us() -> list[str]:
    """A test run that is killed must not leave a server behind (Linux)."""
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "QUIT"] if setpriv else []


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
