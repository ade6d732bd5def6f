"""A PostgreSQL database that many processes share: short transactions on a few connections each.

Settings of each session, and why:

- `synchronous_commit=on`: a commit returns when it is on the disk.
- `statement_timeout`, `lock_timeout`, `idle_in_transaction_session_timeout`,
  `client_connection_check_interval` and the TCP timeouts: a process that is cut off, killed or
  stopped in the middle of a transaction holds up the others for some seconds at most; PostgreSQL
  then rolls it back.
- `search_path`: each service has a schema of its own, so one database can serve all of them.

Connections are opened again by themselves after PostgreSQL was restarted.
"""

import asyncio
import contextlib
import importlib.resources
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, TypeAlias, TypeVar

import asyncpg
import psycopg
import yoyo
import yoyo.backends.core.postgresql
import yoyo.connections
import yoyo.migrations

from shared.database import DatabaseUnavailable

__all__ = ["Connection", "Postgres", "migrate"]

T = TypeVar("T")
Connection: TypeAlias = asyncpg.Connection

CONNECT_TIMEOUT_S = 5.0
LOCK_TIMEOUT_S = 5.0
IDLE_IN_TRANSACTION_TIMEOUT_S = 5.0
CLIENT_CHECK_INTERVAL_S = 1
"""How soon a statement ends whose process was killed. PostgreSQL 14 is the first that can."""
RETRY_DELAYS_S = (0.01, 0.05, 0.2)
"""Between the attempts of a transaction that fell to a deadlock; randomised."""

_MIGRATION_LOCK = 0x64756574
""""duet": the key of the advisory lock under which schemas are changed."""

_FELL_TO_OTHERS = (asyncpg.DeadlockDetectedError, asyncpg.SerializationError)
_FAULTS = (
    OSError,  # TimeoutError, too
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # the server ended the session between two messages
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,  # shutting down, starting up, cancelled by a timeout
    asyncpg.InsufficientResourcesError,  # disk full, too many connections
    asyncpg.PostgresSystemError,
    asyncpg.LockNotAvailableError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.ReadOnlySQLTransactionError,  # a standby that was the primary
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.ObjectNotInPrerequisiteStateError,  # the database takes no connections just now
    *_FELL_TO_OTHERS,
)


class Postgres:
    """Reads and writes one schema. Make it with `open` and `close` it.

    Any coroutine may call `read` and `write`; they run side by side, here and in other processes.
    Cancelling a caller rolls its transaction back.
    """

    def __init__(self, pool: asyncpg.Pool, options: dict[str, Any]) -> None:
        self._pool = pool
        self._options = options

    @classmethod
    async def open(
        cls,
        url: str,
        migrations: str,
        *,
        schema: str,
        max_connections: int = 8,
        command_timeout_s: float = 10.0,
    ) -> "Postgres":
        """Connect, after making the schema or bringing it up to date.

        `migrations` is the package that holds the numbered `.sql` files; `schema` is a plain name,
        which PostgreSQL shows as the application's, too.

        Raises:
            DatabaseUnavailable: it cannot be reached or migrated.
            ValueError: the URL cannot be used.
        """
        await asyncio.to_thread(migrate, url, migrations, schema)
        options = {
            "dsn": url,
            "timeout": CONNECT_TIMEOUT_S,
            "command_timeout": command_timeout_s,
            "server_settings": _session_settings(schema, command_timeout_s),
        }
        database = cls(await _pool(options, max_connections), options)
        try:
            await database.read(lambda connection: connection.execute("SELECT 1"))
        except DatabaseUnavailable:
            database._pool.terminate()
            raise
        return database

    async def apart(self, max_connections: int) -> "Postgres":
        """Make another pool of the same database: who uses it waits for nobody who uses this one.

        Close it, too.
        """
        return Postgres(await _pool(self._options, max_connections), self._options)

    async def __aenter__(self) -> "Postgres":
        """Close it with the context."""
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def write(self, transaction: Callable[[Connection], Awaitable[T]]) -> T:
        """Run `transaction` between BEGIN (READ COMMITTED) and COMMIT; then it is on the disk.

        It runs again, a few times, when it fell to a deadlock or a conflict with another one. Any
        other exception of `transaction` rolls back and comes out as it is.

        Raises:
            DatabaseUnavailable: away, locked, full or failing. Rolled back, or, when the connection
                broke during the commit, unknown.
        """
        return await self._until_it_stands(lambda: self._in_transaction(transaction))

    async def autocommit(self, statement: Callable[[Connection], Awaitable[T]]) -> T:
        """Run one statement, which is a transaction by itself: BEGIN and COMMIT cost round trips.

        Otherwise as `write`.
        """
        return await self._until_it_stands(lambda: self._with_connection(statement))

    async def read(self, query: Callable[[Connection], Awaitable[T]]) -> T:
        """Run `query` on a connection, outside a transaction: each statement is a snapshot.

        Raises:
            DatabaseUnavailable: away or failing.
        """
        with _faults_translated():
            return await self._with_connection(query)

    @contextlib.asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """Open a connection of the caller's own, such as one that listens.

        Raises:
            DatabaseUnavailable: away, or lost inside the context.
        """
        with _faults_translated():
            connection = await asyncpg.connect(**self._options)
            try:
                yield connection
            finally:
                connection.terminate()

    async def close(self) -> None:
        """Wait for what is under way, for some seconds, then close every connection."""
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await self._pool.close()
        except (TimeoutError, asyncpg.InterfaceError):
            self._pool.terminate()

    async def _until_it_stands(self, attempt: Callable[[], Awaitable[T]]) -> T:
        with _faults_translated():
            for delay_s in RETRY_DELAYS_S:
                try:
                    return await attempt()
                except _FELL_TO_OTHERS:
                    await asyncio.sleep(delay_s * (0.5 + random.random()))  # noqa: S311
            return await attempt()

    async def _with_connection(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        async with self._pool.acquire(timeout=CONNECT_TIMEOUT_S) as connection:
            try:
                return await work(connection)
            except asyncpg.InternalClientError:
                connection.terminate()  # nobody knows what it would answer next
                raise

    async def _in_transaction(self, transaction: Callable[[Connection], Awaitable[T]]) -> T:
        async def work(connection: Connection) -> T:
            async with connection.transaction():
                return await transaction(connection)

        return await self._with_connection(work)


def migrate(url: str, package: str, schema: str) -> None:
    """Make `schema` if there is none, and apply the migrations that are missing. Blocks.

    Several processes may do so at once: one does, the others wait. A process that is killed leaves
    nothing half done and nothing locked.

    Raises:
        DatabaseUnavailable: it cannot be reached or changed.
    """
    with (
        importlib.resources.as_file(importlib.resources.files(package)) as folder,
        _connected(url, schema) as backend,
    ):
        found = yoyo.read_migrations(str(folder))  # among them the package's own __init__.py
        migrations = found.filter(lambda migration: migration.path.endswith(".sql"))
        backend.execute(f"SET client_connection_check_interval TO '{CLIENT_CHECK_INTERVAL_S}s'")
        backend.execute(f"SELECT pg_advisory_lock({_MIGRATION_LOCK})")
        if backend.execute(f"SELECT to_regnamespace('{schema}')").fetchone()[0] is None:
            backend.execute(f"CREATE SCHEMA {schema}")
        backend.ensure_internal_schema_updated()
        with backend.transaction():
            backend.apply_migrations(backend.to_apply(migrations))


class _Backend(yoyo.backends.core.postgresql.PostgresqlPsycopgBackend):  # type: ignore[misc]
    """Does everything on one connection, so that one lock and one transaction hold all of it."""

    def copy(self) -> "contextlib.nullcontext[_Backend]":
        return contextlib.nullcontext(self)

    def lock(self, timeout: float = 0) -> "contextlib.nullcontext[None]":  # noqa: ARG002
        """The advisory lock is held; yoyo's own, a row, would survive a kill."""
        return contextlib.nullcontext()


@contextlib.contextmanager
def _connected(url: str, schema: str) -> Iterator[_Backend]:
    location = yoyo.connections.parse_uri(url)
    location.args.update(schema=schema)
    location.args.setdefault("connect_timeout", f"{CONNECT_TIMEOUT_S:.0f}")
    try:
        backend = _Backend(location, yoyo.migrations.default_migration_table)
        with contextlib.closing(backend.connection):
            yield backend
    except psycopg.Error as error:
        raise DatabaseUnavailable(f"PostgreSQL: {str(error).strip()}") from error


@contextlib.contextmanager
def _faults_translated() -> Iterator[None]:
    try:
        yield
    except _FAULTS as error:
        if isinstance(error, ValueError):  # asyncpg's way of refusing an argument: a bug of ours
            raise
        reason = str(error) or type(error).__name__
        raise DatabaseUnavailable(f"PostgreSQL: {reason}") from error


def _session_settings(schema: str, command_timeout_s: float) -> dict[str, str]:
    return {
        "application_name": schema,
        "search_path": schema,
        "synchronous_commit": "on",
        "statement_timeout": f"{command_timeout_s * 1000:.0f}",
        "lock_timeout": f"{LOCK_TIMEOUT_S * 1000:.0f}",
        "idle_in_transaction_session_timeout": f"{IDLE_IN_TRANSACTION_TIMEOUT_S * 1000:.0f}",
        "client_connection_check_interval": f"{CLIENT_CHECK_INTERVAL_S}s",
        "tcp_keepalives_idle": "10",
        "tcp_keepalives_interval": "3",
        "tcp_keepalives_count": "3",
        "tcp_user_timeout": "15000",
        "jit": "off",  # compiling costs more than any of our queries
    }


async def _pool(options: dict[str, Any], max_connections: int) -> asyncpg.Pool:
    with _faults_translated():
        return await asyncpg.create_pool(
            **options,
            min_size=0,  # otherwise asyncpg logs a traceback a second while PostgreSQL is away
            max_size=max_connections,
            reset=_leave_as_it_is,
        )


async def _leave_as_it_is(_connection: Connection) -> None:
    """Spare the round trip that would undo what no transaction here does to its session."""
