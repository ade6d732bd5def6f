"""Runs one measurement in a process of its own: a plan goes in, a result comes out, as JSON."""

import contextlib
import subprocess
import sys
from collections.abc import Awaitable, Callable
from typing import TypeVar

import msgspec
import picows
import uvloop

__all__ = ["GENERATOR_CORE", "SERVER_CORE", "Unexpected", "main", "run"]

SERVER_CORE = 0
GENERATOR_CORE = 1

_TIMEOUT_S = 180.0

Plan = TypeVar("Plan")
Result = TypeVar("Result")


class Unexpected(Exception):
    """The server sent something else than was due, or closed the connection."""


def run(
    module: str,
    plan: object,
    result: type[Result],
    *,
    core: int | None = GENERATOR_CORE,
    timeout_s: float = _TIMEOUT_S,
) -> Result:
    """Run `python -m module` on a core, or on any.

    Raises:
        RuntimeError: it failed; the message is what it said.
    """
    pinned = [] if core is None else ["taskset", "-c", str(core)]
    try:
        finished = subprocess.run(
            [*pinned, sys.executable, "-m", module],
            input=msgspec.json.encode(plan),
            capture_output=True,
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"{module} took more than {timeout_s:g} s") from None
    if finished.returncode != 0:
        raise RuntimeError(finished.stderr.decode().strip())
    return msgspec.json.decode(finished.stdout, type=result)


def main(plan_type: type[Plan], measure: Callable[[Plan], Awaitable[object]]) -> int:
    """The other end of `run`: read the plan, measure, print the result. Returns the exit status."""

    async def measured() -> object:
        return await measure(plan)

    plan = msgspec.json.decode(sys.stdin.buffer.read(), type=plan_type)
    try:
        with contextlib.redirect_stdout(sys.stderr):  # a library that prints spoils no result
            result = uvloop.run(measured())
    except (Unexpected, OSError, picows.WSError, TimeoutError) as error:
        print(f"{plan_type.__name__}: {error!r}", file=sys.stderr)
        return 1
    sys.stdout.buffer.write(msgspec.json.encode(result))
    return 0
