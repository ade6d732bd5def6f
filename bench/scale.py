"""`python -m bench scale`: several gateways on PostgreSQL and NATS, what a message costs each part.

Everything shares this machine's cores with the load generator, so the throughput says little about
several machines; the processor time, the bytes and the syncs of a message do (docs/scale.md).
"""

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import httpx
import msgspec
import psycopg

from bench import proc, tool
from bench.machine import machine
from bench.people import Person, sign_up
from bench.record import Machine
from bench.scale_load import ScalePair, ScalePlan, ScaleResult, family
from bench.scale_model import PARTS, Run, fitted, table
from bench.services import SETTINGS, free_port
from bench.stage import say
from tests.support.nats_server import NatsServer
from tests.support.postgres import PostgresServer

__all__ = ["main"]

_START_TIMEOUT_S = 60.0
_IDLE = 2000


class Idle(msgspec.Struct, frozen=True, kw_only=True):
    """What a connection takes, on average of so many people who connect and do nothing."""

    connections: int
    memory_bytes: dict[str, float]
    """Of each part, while it is idle."""
    connect_cpu_s: dict[str, float]
    """Of each part and of the profile service, to connect."""


class ScaleRecord(msgspec.Struct, frozen=True, kw_only=True):
    """All of one run."""

    machine: Machine
    runs: list[Run]
    idle: Idle


def main(arguments: list[str], results: Path) -> int:
    """Measure and report. Returns 0."""
    asked = _parser(results).parse_args(arguments)
    directory = Path(asked.directory)
    runs: list[Run] = []
    for gateways in asked.gateways:
        with _cluster(directory, gateways) as cluster:
            people = sign_up(cluster.profile_url, 2 * max(pairs for pairs, _ in asked.loads))
            for pairs, window in asked.loads:
                say(f"{gateways} gateways, {pairs} pairs x {window}")
                runs.append(_run(cluster, people[: 2 * pairs], window, asked.seconds))
    with _cluster(directory, 1) as cluster:
        idle = _idle(cluster)
    record = ScaleRecord(machine=machine(directory), runs=runs, idle=idle)
    results = Path(asked.results)
    results.mkdir(parents=True, exist_ok=True)
    (results / "scale.json").write_bytes(msgspec.json.format(msgspec.json.encode(record)))
    print(table(runs, fitted(runs), record.machine.cores))
    kept = (f"{name} {size / 1000:.1f} kB" for name, size in idle.memory_bytes.items())
    took = (f"{name} {cpu_s * 1e6:.0f} µs" for name, cpu_s in idle.connect_cpu_s.items())
    print(f"\nan idle connection: {', '.join(kept)}; to connect: {', '.join(took)}")
    print(f"Details: {results / 'scale.json'}")
    return 0


class _Cluster:
    """The running processes."""

    def __init__(self, postgres: PostgresServer, nats: NatsServer) -> None:
        self.postgres, self.nats = postgres, nats
        self.profile_url = ""
        self.profile_pid = 0
        self.gateway_ports: list[int] = []
        self.gateway_pids: list[int] = []

    @property
    def roots(self) -> dict[str, list[int]]:
        """Whose time is measured."""
        pids = (self.gateway_pids, [self.postgres.pid], [self.nats.pid], [self.profile_pid])
        return dict(zip((*PARTS, "profile"), pids, strict=True))

    def url(self, number: int) -> str:
        """Of the WebSocket endpoint of a gateway."""
        return f"ws://127.0.0.1:{self.gateway_ports[number % len(self.gateway_ports)]}/v1/ws"


def _run(cluster: _Cluster, people: list[Person], window: int, seconds: float) -> Run:
    pairs = [
        ScalePair(
            sender_url=cluster.url(number),
            recipient_url=cluster.url(number + 1),
            sender_token=sender.access_token,
            recipient_token=recipient.access_token,
            recipient_id=recipient.user_id,
        )
        for number, (sender, recipient) in enumerate(zip(people[::2], people[1::2], strict=True))
    ]
    plan = ScalePlan(
        pairs=pairs,
        window=window,
        roots=cluster.roots,
        gateway_metrics=[f"http://127.0.0.1:{port}/metrics" for port in cluster.gateway_ports],
        database_url=cluster.postgres.url(),
        nats_monitor_url=f"http://127.0.0.1:{cluster.nats.monitor_port}",
        measured_s=seconds,
    )
    result = tool.run("bench.scale_load", plan, ScaleResult, core=None)
    return Run(gateways=len(cluster.gateway_ports), pairs=len(pairs), window=window, result=result)


def _idle(cluster: _Cluster) -> Idle:
    say(f"{_IDLE:,} idle connections")
    people = sign_up(cluster.profile_url, _IDLE)

    def memory() -> dict[str, float]:
        roots = cluster.roots
        return {name: sum(map(proc.rss_bytes, roots[name])) for name in ("gateway", "nats")}

    def cpu() -> dict[str, float]:
        return {
            name: sum(proc.cpu_s(pid) for root in roots for pid in family(root))
            for name, roots in cluster.roots.items()
        }

    memory_before, cpu_before = memory(), cpu()
    plan = {"url": cluster.url(0), "tokens": [person.access_token for person in people]}
    holder = subprocess.Popen(
        [sys.executable, "-m", "bench.scale_idle"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdin is not None
    assert holder.stdout is not None
    with holder:
        holder.stdin.write(msgspec.json.encode(plan) + b"\n")
        holder.stdin.flush()
        if holder.stdout.readline() != b"connected\n":
            raise RuntimeError("not everybody could connect")
        time.sleep(2)
        memory_after, cpu_after = memory(), cpu()
        holder.stdin.close()
    return Idle(
        connections=_IDLE,
        memory_bytes=_of_one(memory_before, memory_after),
        connect_cpu_s=_of_one(cpu_before, cpu_after),
    )


def _of_one(before: dict[str, float], after: dict[str, float]) -> dict[str, float]:
    return {name: (after[name] - before[name]) / _IDLE for name in before}


@contextlib.contextmanager
def _cluster(directory: Path, gateways: int) -> Iterator[_Cluster]:
    """Run PostgreSQL, NATS, a profile service and some gateways."""
    with contextlib.ExitStack() as stack:
        data_dir = Path(
            stack.enter_context(tempfile.TemporaryDirectory(dir=directory, prefix="duet-scale-"))
        )
        postgres, nats = PostgresServer(), NatsServer()
        stack.callback(postgres.close)
        postgres.start()
        stack.callback(nats.kill)
        nats.start()
        with psycopg.connect(postgres.url(), autocommit=True) as connection:
            for name in ("duet_profile", "duet_gateway"):
                connection.execute(f"CREATE DATABASE {name}".encode())
        log = stack.enter_context((data_dir / "log.txt").open("wb"))
        cluster = _Cluster(postgres, nats)
        profile_port = free_port()
        cluster.profile_url = f"http://127.0.0.1:{profile_port}"
        settings = {
            **SETTINGS,
            "DUET_DATA_DIR": str(data_dir),
            "DUET_SERVICE_SECRET": "of the bench, and of nothing else than the bench",
            "DUET_PROFILE_URL": cluster.profile_url,
            "DUET_PROFILE_PORT": str(profile_port),
            "DUET_BUS_URL": nats.url,
            "DUET_ARGON2_MEMORY_KIB": "8",
        }

        def start(module: str, database: str, port: int, **more: str) -> int:
            told = {**settings, "DUET_DATABASE_URL": postgres.url(database), **more}
            process = subprocess.Popen(
                [sys.executable, "-m", module],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **told},
            )
            stack.callback(_end, process)
            _until_ready(f"http://127.0.0.1:{port}/readyz", process, Path(log.name))
            return process.pid

        cluster.profile_pid = start("profile_service", "duet_profile", profile_port)
        for _ in range(gateways):
            port = free_port()
            pid = start("ws_gateway", "duet_gateway", port, DUET_GATEWAY_PORT=str(port))
            cluster.gateway_ports.append(port)
            cluster.gateway_pids.append(pid)
        yield cluster


def _until_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_S
    with httpx.Client(trust_env=False, timeout=2.0) as client:
        while time.monotonic() < deadline and process.poll() is None:
            with contextlib.suppress(httpx.TransportError):
                if client.get(url).status_code == httpx.codes.OK:
                    return
            time.sleep(0.02)
    raise RuntimeError(f"{process.args!r} is not ready:\n{log.read_text()[-2000:]}")


def _end(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _parser(results: Path) -> argparse.ArgumentParser:
    def counts(text: str) -> Sequence[int]:
        return [int(part) for part in text.split(",")]

    def loads(text: str) -> Sequence[tuple[int, ...]]:
        return [tuple(map(int, part.split("x"))) for part in text.split(",")]

    parser = argparse.ArgumentParser(prog="python -m bench scale", description=__doc__)
    parser.add_argument("--gateways", type=counts, default=(1, 2, 3))
    parser.add_argument(
        "--loads",
        type=loads,
        default=((10, 1), (50, 1), (50, 4), (50, 20)),
        help="pairs x messages in flight for each, by commas: 10x1,50x4",
    )
    parser.add_argument("--seconds", type=float, default=8.0, help="of each measurement")
    parser.add_argument(
        "--directory", default=tempfile.gettempdir(), help="where state is made: on a disk"
    )
    parser.add_argument("--results", default=results, help="where scale.json goes")
    return parser
