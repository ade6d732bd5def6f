"""Several gateways and profile services as processes on one PostgreSQL and one NATS.

Each reaches PostgreSQL and NATS through a proxy of its own, which can be cut; the gateways reach
the profile services through one that goes to whichever of them runs.
"""

import asyncio
import contextlib
import functools
import os
import signal
import sys
import time
from asyncio.subprocess import DEVNULL, Process
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import httpx
import psycopg

from tests.faults.books import StoredRow
from tests.faults.load import Pair
from tests.faults.member import Member
from tests.faults.processes import SETTINGS, UNHURRIED, Person, free_port, lasting
from tests.faults.proxy import Proxy
from tests.support.nats_server import NATS_SERVER_MISSING, NatsServer
from tests.support.postgres import POSTGRES_MISSING, PostgresServer
from tests.support.profile_service import PASSWORD

__all__ = [
    "Cluster",
    "Node",
    "missing",
    "one_cluster_for_all",
    "pairs_across",
    "running_cluster",
]

START_TIMEOUT_S = 30.0
_DATABASES = {"profile_service": "duet_profile", "ws_gateway": "duet_gateway"}
_shared: "list[Cluster]" = []


class Node:
    """One process of a service, its port and its networks."""

    def __init__(
        self, module: str, number: int, database: Proxy, bus: Proxy, settings: Mapping[str, str]
    ) -> None:
        self.module = module
        self.name = f"{module}-{number}"
        self.port = free_port()
        self.database = database
        """Its network to PostgreSQL."""
        self.bus = bus
        """Its network to NATS."""
        self.settings = dict(settings)
        self.http_url = f"http://127.0.0.1:{self.port}"
        self.url = f"ws://127.0.0.1:{self.port}/v1/ws"
        self.process: Process | None = None

    @property
    def runs(self) -> bool:
        """Whether its process has been started and has not ended."""
        return self.process is not None and self.process.returncode is None

    def signal(self, number: signal.Signals) -> None:
        """Signal its process."""
        assert self.process is not None
        self.process.send_signal(number)

    async def kill(self) -> None:
        """SIGKILL, as the kernel does when memory runs out."""
        assert self.process is not None
        self.process.kill()
        await self.process.wait()

    async def terminate(self, within_s: float = 30.0) -> int:
        """SIGTERM. Returns the exit status."""
        self.signal(signal.SIGTERM)
        assert self.process is not None
        async with asyncio.timeout(within_s):
            return await self.process.wait()


class Cluster:
    """Starts, kills and restarts all of it. `log` holds what the services have written."""

    def __init__(
        self, directory: Path, postgres: PostgresServer, nats: NatsServer, profile_front: Proxy
    ) -> None:
        self.directory = directory
        self.postgres = postgres
        self.nats = nats
        self.log = directory / "log.txt"
        self.gateways: list[Node] = []
        self.profile_services: list[Node] = []
        self.profile_front = profile_front
        self.http = httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{profile_front.port}",
            trust_env=False,
            timeout=30,
            transport=httpx.AsyncHTTPTransport(retries=2),
        )
        self._signed_up = 0

    @property
    def nodes(self) -> list[Node]:
        """All processes of Duet."""
        return [*self.profile_services, *self.gateways]

    async def start(self, node: Node) -> None:
        """Run a service; returns as soon as the process is there."""
        inherited = {key: value for key, value in os.environ.items() if key[:5] != "DUET_"}
        with self.log.open("ab") as log:
            node.process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                node.module,
                stdin=DEVNULL,
                stdout=log,
                stderr=log,
                env={**inherited, **node.settings},
            )

    async def ready(self, node: Node, *, within_s: float = START_TIMEOUT_S) -> None:
        """Wait until a service answers that it is ready.

        Raises:
            RuntimeError: its process ended.
            TimeoutError: it takes too long.
        """
        assert node.process is not None
        async with asyncio.timeout(within_s):
            while True:
                if node.process.returncode is not None:
                    raise RuntimeError(f"{node.name} ended: {self.log_tail()}")
                with contextlib.suppress(httpx.TransportError):
                    answer = await self.http.get(f"{node.http_url}/readyz", timeout=2)
                    if answer.status_code == httpx.codes.OK:
                        return
                await lasting(0.02)

    async def start_all(self) -> None:
        """Start everything and wait until it is ready."""
        for node in self.nodes:
            await self.start(node)
        for node in self.nodes:
            await self.ready(node)

    async def close(self) -> None:
        """End every process, whatever state it is in."""
        running = [node for node in self.nodes if node.runs]
        for node in running:
            node.signal(signal.SIGCONT)
            node.signal(signal.SIGTERM)
        for node in running:
            try:
                await asyncio.wait_for(node.process.wait() if node.process else lasting(0), 20)
            except TimeoutError:
                await node.kill()
        await self.http.aclose()

    def tracebacks(self) -> int:
        """How many tracebacks the log holds."""
        return self.log.read_text(errors="replace").count("Traceback (most recent call last)")

    def log_tail(self) -> str:
        """The end of the log, for a message."""
        return self.log.read_text(errors="replace")[-3000:]

    async def sign_up_many(self, count: int) -> list[Person]:
        """Sign several people up, a few at a time."""
        people: list[Person] = []
        while len(people) < count:
            few = range(min(10, count - len(people)))
            people += await asyncio.gather(*(self._sign_up() for _ in few))
        return people

    async def stored(self) -> tuple[list[StoredRow], str]:
        """Read every message from PostgreSQL, and whether its tables and indexes are sound."""
        connection = await asyncpg.connect(self.postgres.url(_DATABASES["ws_gateway"]))
        try:
            rows = await connection.fetch(_ALL_MESSAGES)
            await connection.execute("CREATE EXTENSION IF NOT EXISTS amcheck SCHEMA public")
            indexes = await connection.fetch(_ALL_INDEXES)
            for (index,) in indexes:  # raises when the table and its index do not agree
                await connection.execute("SELECT public.bt_index_check($1::regclass, true)", index)
            return [StoredRow(*row) for row in rows], "ok" if indexes else "no index"
        except asyncpg.DataError as error:
            return [StoredRow(*row) for row in rows], str(error)
        finally:
            await connection.close()

    async def _sign_up(self) -> Person:
        self._signed_up += 1
        username = f"person-{self._signed_up}"
        answer = await self.http.post(
            "/v1/users", json={"username": username, "password": PASSWORD}
        )
        assert answer.status_code == httpx.codes.CREATED, answer.text
        return Person(username, answer.json())


@contextlib.asynccontextmanager
async def running_cluster(
    directory: Path, *, gateways: int = 3, profile_services: int = 2, **settings: str
) -> AsyncIterator[Cluster]:
    """Run PostgreSQL, NATS and Duet, all ready, while the context lasts."""
    if _shared:
        yield _shared[-1]
        return
    await asyncio.to_thread(directory.mkdir, parents=True, exist_ok=True)
    async with contextlib.AsyncExitStack() as stack:
        postgres, nats = PostgresServer(), NatsServer()
        stack.callback(postgres.close)
        await asyncio.to_thread(postgres.start)
        for name in _DATABASES.values():
            await asyncio.to_thread(_make_database, postgres.url(), name)
        stack.callback(nats.kill)
        await asyncio.to_thread(nats.start)
        network = functools.partial(_network, stack)
        postgres_port = urlsplit(postgres.url()).port
        assert postgres_port is not None
        shared = {**SETTINGS, **UNHURRIED, **settings}

        async def node(module: str, number: int, **more: str) -> Node:
            database, bus = await network(postgres_port), await network(nats.port)
            made = Node(module, number, database, bus, {**shared, **more})
            made.settings |= {
                "DUET_DATA_DIR": str(directory / made.name),
                "DUET_DATABASE_URL": _at_port(postgres.url(_DATABASES[module]), database.port),
                "DUET_BUS_URL": f"nats://127.0.0.1:{bus.port}",
                "DUET_PROFILE_PORT": str(made.port),
                "DUET_GATEWAY_PORT": str(made.port),
            }
            return made

        profiles = [await node("profile_service", number) for number in range(profile_services)]
        front = await network(*(profile.port for profile in profiles))
        cluster = Cluster(directory, postgres, nats, front)
        cluster.profile_services = profiles
        front_url = f"http://127.0.0.1:{front.port}"
        cluster.gateways = [
            await node("ws_gateway", number, DUET_PROFILE_URL=front_url)
            for number in range(gateways)
        ]
        stack.push_async_callback(cluster.close)
        await cluster.start_all()
        yield cluster


@contextlib.asynccontextmanager
async def one_cluster_for_all(directory: Path) -> AsyncIterator[None]:
    """Have every `running_cluster` in this context be the same one: starting costs seconds."""
    async with running_cluster(directory) as cluster:
        _shared.append(cluster)
        try:
            yield
        finally:
            _shared.pop()


def pairs_across(
    cluster: Cluster, people: Sequence[Person], *, window: int = 8, pause_s: float = 0.0
) -> list[Pair]:
    """People two by two, each first at another gateway than the other, then at any that runs."""
    urls = [gateway.url for gateway in cluster.gateways]

    def member(number: int, person: Person, peer: Person) -> Member:
        first = number % len(urls)
        return Member(urls[first:] + urls[:first], person, peer, window=window, pause_s=pause_s)

    return [
        Pair(member(number, one, other), member(number + 1, other, one))
        for number, (one, other) in enumerate(zip(people[::2], people[1::2], strict=True))
    ]


def missing() -> str | None:
    """Say what this machine lacks for all this, if anything."""
    if not PostgresServer.is_installed():
        return POSTGRES_MISSING
    return None if NatsServer.is_installed() else NATS_SERVER_MISSING


async def _network(stack: contextlib.AsyncExitStack, *ports: int) -> Proxy:
    return await stack.enter_async_context(Proxy.to(*ports))


def _make_database(url: str, name: str) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            with psycopg.connect(url, autocommit=True) as connection:
                connection.execute(f"CREATE DATABASE {name}".encode())
            return
        except psycopg.OperationalError:
            if time.monotonic() > deadline:
                raise


def _at_port(url: str, port: int) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=f"{parts.username}:{parts.password}@127.0.0.1:{port}"))


_ALL_MESSAGES = """
SELECT conversations.id, seq, users.id, client_id FROM duet_gateway.messages
JOIN duet_gateway.conversations ON conversations.key = messages.conversation
JOIN duet_gateway.users ON users.key = messages.sender
"""
_ALL_INDEXES = """
SELECT indexrelid::regclass::text FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid
JOIN pg_namespace ON pg_namespace.oid = relnamespace JOIN pg_am ON pg_am.oid = relam
WHERE amname = 'btree' AND nspname NOT LIKE 'pg\\_%' AND nspname <> 'information_schema'
"""
