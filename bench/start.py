"""How long both services take from what `make run` starts to the first acknowledged message.

The data directory is empty: databases, signing keys and the service secret are made on the way.
Two people sign up, one connects and writes to the other. Nothing is pinned.
"""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
import msgspec

from bench import wire
from bench.pairs import open_client
from bench.people import sign_up
from bench.services import environment, free_port
from bench.tool import Unexpected, main

__all__ = ["StartPlan", "StartResult"]

_TIMEOUT_S = 30.0


class StartPlan(msgspec.Struct, frozen=True, kw_only=True):
    """One start, with state in a new directory in `directory`."""

    directory: str


class StartResult(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds from the start of the process."""

    ready_s: float
    """Both services say they are ready."""
    first_ack_s: float


async def _measure(plan: StartPlan) -> StartResult:
    profile_port, gateway_port = free_port(), free_port()
    with tempfile.TemporaryDirectory(dir=plan.directory) as directory:
        settings = environment(Path(directory), profile_port, gateway_port)
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("DUET_")}
        started = time.monotonic()
        duet = subprocess.Popen(  # noqa: ASYNC220 - nothing else is running
            [sys.executable, "-m", "shared.launcher"],
            env={**inherited, **settings},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                for port in (profile_port, gateway_port):
                    await _ready(f"http://127.0.0.1:{port}/readyz", duet)
                ready_s = time.monotonic() - started
                await _first_ack(f"http://127.0.0.1:{profile_port}", gateway_port)
            return StartResult(ready_s=ready_s, first_ack_s=time.monotonic() - started)
        finally:
            duet.send_signal(signal.SIGTERM)
            await asyncio.to_thread(duet.wait)


async def _ready(url: str, process: subprocess.Popen[bytes]) -> None:
    async with httpx.AsyncClient(trust_env=False) as client:
        while process.poll() is None:
            with contextlib.suppress(httpx.TransportError):
                if (await client.get(url)).status_code == httpx.codes.OK:
                    return
            await asyncio.sleep(0.005)
    raise Unexpected(f"{process.args!r} ended with status {process.returncode}")


async def _first_ack(profile_url: str, gateway_port: int) -> None:
    sender, recipient = await asyncio.to_thread(sign_up, profile_url, 2)
    client = await open_client(f"ws://127.0.0.1:{gateway_port}/v1/ws", sender.access_token)
    answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
    client.on_text = lambda payload, _: answer.set_result(payload)
    client.write(
        wire.send_frame(wire.ClientIds("uuid7").next(), recipient.user_id.encode(), b"first")
    )
    if not (payload := await answer).startswith(b'{"type":"ack"'):
        raise Unexpected(payload.decode())
    client.close()


if __name__ == "__main__":
    sys.exit(main(StartPlan, _measure))
