"""Holds authenticated connections idle, until its standard input ends: a companion of loads."""

import asyncio
import contextlib
import gc
import subprocess
import sys
from collections.abc import Iterator

import msgspec
import uvloop

from bench.pairs import open_client
from bench.tool import GENERATOR_CORE

__all__ = ["IdlePlan", "held"]

_IN_FLIGHT = 64


class IdlePlan(msgspec.Struct, frozen=True, kw_only=True):
    """Hold so many; tokens are used in turns."""

    url: str
    tokens: list[str]
    connections: int


@contextlib.contextmanager
def held(plan: IdlePlan) -> Iterator[None]:
    """Hold connections, in a process of their own, while the context lasts.

    Raises:
        RuntimeError: they could not be opened.
    """
    process = subprocess.Popen(
        ["taskset", "-c", str(GENERATOR_CORE), sys.executable, "-m", "bench.idle"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(msgspec.json.encode(plan) + b"\n")
        process.stdin.flush()
        if not process.stdout.readline():
            raise RuntimeError(f"{plan.connections:,} idle connections could not be opened")
        yield
    finally:
        process.stdin.close()
        process.wait()
        process.stdout.close()


async def _hold(plan: IdlePlan) -> None:
    gc.disable()
    numbers = iter(range(plan.connections))
    clients = []

    async def worker() -> None:
        for number in numbers:
            token = plan.tokens[number % len(plan.tokens)]
            clients.append(await open_client(plan.url, token))

    await asyncio.gather(*(worker() for _ in range(_IN_FLIGHT)))
    print(len(clients), flush=True)
    await asyncio.to_thread(sys.stdin.buffer.read)
    for client in clients:
        client.close()


if __name__ == "__main__":
    uvloop.run(_hold(msgspec.json.decode(sys.stdin.buffer.readline(), type=IdlePlan)))
