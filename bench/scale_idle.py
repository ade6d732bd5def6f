"""Connects people and holds them, idle, until its standard input ends (run by `bench.scale`)."""

import asyncio
import sys

import msgspec
import uvloop

from bench.machine import allow_many_files
from bench.pairs import open_client

_AT_ONCE = 50


class IdlePlan(msgspec.Struct):
    """Who connects where."""

    url: str
    tokens: list[str]


async def _hold(plan: IdlePlan) -> None:
    clients = []
    for start in range(0, len(plan.tokens), _AT_ONCE):
        few = plan.tokens[start : start + _AT_ONCE]
        clients += await asyncio.gather(*(open_client(plan.url, token) for token in few))
    print("connected", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    for client in clients:
        client.close()


if __name__ == "__main__":
    allow_many_files()
    uvloop.run(_hold(msgspec.json.decode(sys.stdin.readline(), type=IdlePlan)))
