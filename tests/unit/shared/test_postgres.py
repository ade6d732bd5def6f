"""One PostgreSQL, many processes: transactions whole or not at all, faults that pass by."""

import asyncio
import contextlib
import secrets
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import asyncpg
import psycopg
import pytest

from shared.database import DatabaseUnavailable
from shared.postgres import Connection, Postgres, migrate
from tests.support.postgres import Databases, PostgresServer

SCHEMA = "notes_service"
_SLEEPING = "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'"


@pytest.fixture
def migrations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    package = tmp_path / "notes_migrations"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "0001.initial.sql").write_text(
        "-- depends:\nCREATE TABLE notes (id int PRIMARY KEY, text text NOT NULL);"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop(package.name, None)
    return package.name


@pytest.fixture
async def database(migrations: str, postgres_databases: Databases) -> AsyncIterator[Postgres]:
    url = postgres_databases.empty()
    async with opened(url, migrations) as database:
        yield database


@contextlib.asynccontextmanager
async def opened(url: str, migrations: str, **options: float) -> AsyncIterator[Postgres]:
    database = await Postgres.open(url, migrations, schema=SCHEMA, **options)  # type: ignore[arg-type]
    try:
        yield database
    finally:
        await database.close()


def insert(number: int, text: str = "") -> Callable[[Connection], Awaitable[None]]:
    async def transaction(connection: Connection) -> None:
        await connection.execute("INSERT INTO notes VALUES ($1, $2)", number, text)

    return transaction


async def numbers(connection: Connection) -> list[int]:
    return [row["id"] for row in await connection.fetch("SELECT id FROM notes ORDER BY id")]


async def test_write_returns_what_the_transaction_returns(database: Postgres) -> None:
    async def transaction(connection: Connection) -> str:
        await insert(1)(connection)
        return "done"

    assert await database.write(transaction) == "done"
    assert await database.read(numbers) == [1]


async def test_exception_rolls_back_and_comes_out(database: Postgres) -> None:
    async def transaction(connection: Connection) -> None:
        await insert(1)(connection)
        raise KeyError("why")

    with pytest.raises(KeyError, match="why"):
        await database.write(transaction)
    assert await database.read(numbers) == []


async def test_a_broken_rule_of_the_schema_comes_out_as_it_is(database: Postgres) -> None:
    await database.write(insert(1))
    with pytest.raises(asyncpg.UniqueViolationError):
        await database.write(insert(1))


async def test_a_cancelled_transaction_is_rolled_back(database: Postgres) -> None:
    written = asyncio.Event()

    async def transaction(connection: Connection) -> None:
        await insert(1)(connection)
        written.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(database.write(transaction))
    await written.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await database.read(numbers) == []
    await database.write(insert(1))


async def test_a_transaction_that_fell_to_a_deadlock_runs_again(database: Postgres) -> None:
    await database.write(insert(1))
    await database.write(insert(2))
    both_hold_one = asyncio.Barrier(2)
    runs = 0

    def update(first: int, second: int) -> Callable[[Connection], Awaitable[None]]:
        async def transaction(connection: Connection) -> None:
            nonlocal runs
            runs += 1
            statement = "UPDATE notes SET text = text || 'x' WHERE id = $1"
            await connection.execute(statement, first)
            if runs <= 2:
                await both_hold_one.wait()
            await connection.execute(statement, second)

        return transaction

    await asyncio.gather(database.write(update(1, 2)), database.write(update(2, 1)))
    assert runs == 3
    texts = await database.read(lambda connection: connection.fetch("SELECT text FROM notes"))
    assert [row["text"] for row in texts] == ["xx", "xx"]


async def test_many_processes_migrate_at_once(
    migrations: str, postgres_databases: Databases
) -> None:
    url = postgres_databases.empty()
    opening = [Postgres.open(url, migrations, schema=SCHEMA) for _ in range(4)]
    databases = await asyncio.gather(*opening)
    await databases[0].write(insert(1))
    assert await databases[3].read(numbers) == [1]
    await asyncio.gather(*(database.close() for database in databases))


async def test_a_migration_that_fails_leaves_nothing(
    migrations: str, postgres_databases: Databases, tmp_path: Path
) -> None:
    second = tmp_path / migrations / "0002.second.sql"
    second.write_text("-- depends: 0001.initial\nCREATE TABLE more (id int); SELECT wrong;")
    url = postgres_databases.empty()
    with pytest.raises(DatabaseUnavailable, match='column "wrong" does not exist'):
        await asyncio.to_thread(migrate, url, migrations, SCHEMA)
    with psycopg.connect(url) as connection:
        found = connection.execute("SELECT to_regclass('notes_service.notes')").fetchone()
    assert found == (None,)
    second.write_text("-- depends: 0001.initial\nCREATE TABLE more (id int);")
    async with opened(url, migrations) as database:
        await database.write(insert(1))


async def test_a_process_killed_while_it_migrates_holds_nobody_up(
    migrations: str, postgres_databases: Databases, tmp_path: Path
) -> None:
    slow = tmp_path / "slow" / migrations
    slow.mkdir(parents=True)
    (slow / "__init__.py").write_text("")
    first = tmp_path / migrations / "0001.initial.sql"
    (slow / first.name).write_text(first.read_text() + "\nSELECT pg_sleep(60);")
    url = postgres_databases.empty()
    script = f"from shared.postgres import migrate; migrate({url!r}, {migrations!r}, {SCHEMA!r})"
    environment = {"PYTHONPATH": f"{slow.parent}:{Path.cwd()}"}
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", script, env=environment)
    with psycopg.connect(url, autocommit=True) as connection:
        async with asyncio.timeout(20):
            while not connection.execute(_SLEEPING).fetchall():  # noqa: ASYNC110 - no event
                await asyncio.sleep(0.01)
        process.kill()
        await process.wait()
    async with opened(url, migrations) as database:
        assert await database.read(numbers) == []


async def test_a_lock_that_others_hold_for_long_is_a_fault(
    database: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    await database.write(insert(1))
    locked, release = asyncio.Event(), asyncio.Event()

    async def hold(connection: Connection) -> None:
        await connection.execute("UPDATE notes SET text = 'held'")
        locked.set()
        await release.wait()

    async def want(connection: Connection) -> None:
        await connection.execute("SET LOCAL lock_timeout = 1")
        await connection.execute("UPDATE notes SET text = 'wanted'")

    holding = asyncio.create_task(database.write(hold))
    await locked.wait()
    with pytest.raises(DatabaseUnavailable, match="lock timeout"):
        await database.write(want)
    release.set()
    await holding


async def test_it_recovers_when_the_server_comes_back(
    migrations: str, postgres_server: PostgresServer
) -> None:
    async with opened(postgres_server.url(), migrations) as database:
        await database.write(insert(1))
        postgres_server.crash()
        for _ in range(2):
            with pytest.raises(DatabaseUnavailable, match="PostgreSQL: "):
                await database.write(insert(2))
            with pytest.raises(DatabaseUnavailable):
                await database.read(numbers)
        postgres_server.start()
        assert await database.read(numbers) == [1]
        await database.write(insert(2))

        assert postgres_server.disconnect("postgres") >= 1
        with contextlib.suppress(DatabaseUnavailable):  # if nobody has noticed yet
            await database.read(numbers)
        assert await database.read(numbers) == [1, 2]


async def test_a_database_that_takes_no_connections_just_now_is_a_fault(
    migrations: str, postgres_databases: Databases
) -> None:
    url = postgres_databases.empty()
    name = url.rpartition("/")[2]
    with psycopg.connect(postgres_databases.admin_url, autocommit=True) as operator:
        async with opened(url, migrations) as database:
            operator.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false".encode())
            operator.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name]
            )
            for _ in range(2):  # a connection that was ended, and one that is refused
                with pytest.raises(DatabaseUnavailable, match="PostgreSQL: "):
                    await database.write(insert(1))
            operator.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true".encode())
            await database.write(insert(1))


async def test_a_server_that_hangs_is_a_fault(
    migrations: str, postgres_server: PostgresServer
) -> None:
    async with opened(postgres_server.url(), migrations, command_timeout_s=0.2) as database:
        await database.write(insert(1))
        postgres_server.freeze()
        with pytest.raises(DatabaseUnavailable, match="TimeoutError"):
            await database.read(numbers)
        postgres_server.thaw()
        assert await database.read(numbers) == [1]


async def test_what_cannot_be_reached_says_so_without_the_password(
    migrations: str, postgres_databases: Databases
) -> None:
    url = postgres_databases.empty()
    password = url.split(":")[2].partition("@")[0]
    for unusable in (url + "_none", url.replace(password, "s3cret"), url.replace("@", "@no.")):
        with pytest.raises(DatabaseUnavailable, match="PostgreSQL: ") as raised:
            await Postgres.open(unusable, migrations, schema=SCHEMA)
        assert password not in str(raised.value)
        assert "s3cret" not in str(raised.value)


async def test_a_role_that_may_not_make_schemas_uses_one_that_was_made_for_it(
    migrations: str, postgres_databases: Databases
) -> None:
    url = postgres_databases.empty()
    role = f"limited_{secrets.token_hex(4)}"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'limited'".encode())
        connection.execute(f"CREATE SCHEMA {SCHEMA} AUTHORIZATION {role}".encode())
    address = url.partition("@")[2]
    async with opened(f"postgresql://{role}:limited@{address}", migrations) as database:
        await database.write(insert(1))
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"DROP OWNED BY {role}".encode())
        connection.execute(f"DROP ROLE {role}".encode())


async def test_two_services_may_share_a_database(
    migrations: str, postgres_databases: Databases
) -> None:
    url = postgres_databases.empty()
    async with opened(url, migrations) as database:
        other = await Postgres.open(url, migrations, schema="other_service")
        await other.write(insert(1))
        assert await database.read(numbers) == []
        await other.close()


async def test_sessions_have_limits(database: Postgres) -> None:
    async def settings(connection: Connection) -> dict[str, str]:
        rows = await connection.fetch("SELECT name, setting FROM pg_settings")
        return {row["name"]: row["setting"] for row in rows}

    found = await database.read(settings)
    wanted = {
        "application_name": SCHEMA,
        "synchronous_commit": "on",
        "statement_timeout": "10000",
        "lock_timeout": "5000",
        "idle_in_transaction_session_timeout": "5000",
    }
    assert {name: found[name] for name in wanted} == wanted


async def test_a_connection_of_ones_own_can_listen(database: Postgres) -> None:
    heard: asyncio.Queue[str] = asyncio.Queue()
    async with database.connection() as connection:
        await connection.add_listener("news", lambda *news: heard.put_nowait(news[-1]))
        await database.write(lambda c: c.execute("SELECT pg_notify('news', 'hello')"))
        async with asyncio.timeout(10):
            assert await heard.get() == "hello"
