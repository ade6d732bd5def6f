"""The launcher as somebody at a terminal meets it: start, stop, and what can go wrong."""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from asyncio.subprocess import DEVNULL, PIPE, STDOUT, Process
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path

import pytest

READY = "Duet is ready"
TIMEOUT_S = 30


@pytest.fixture
def ports() -> tuple[int, int]:
    with _listening() as profile, _listening() as gateway:
        return _port(profile), _port(gateway)


@pytest.fixture
def environment(ports: tuple[int, int], tmp_path: Path) -> Mapping[str, str]:
    profile, gateway = ports
    return {
        **os.environ,
        "DUET_DATA_DIR": str(tmp_path / "data"),
        "DUET_PROFILE_PORT": str(profile),
        "DUET_GATEWAY_PORT": str(gateway),
    }


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP])
async def test_signal_stops_both_services_and_is_a_clean_exit(
    environment: Mapping[str, str], number: signal.Signals
) -> None:
    async with _duet(environment) as duet:
        await _read_until(duet, READY)
        duet.send_signal(number)
        await _read_to_the_end(duet)
        assert await duet.wait() == 0


async def test_occupied_port_is_named_and_stops_the_other_service(
    environment: Mapping[str, str], ports: tuple[int, int]
) -> None:
    with _listening(ports[1]):
        async with _duet(environment) as duet:
            output = await _read_to_the_end(duet)
            assert await duet.wait() == 1
    assert f"127.0.0.1:{ports[1]} is in use" in output
    assert "ws_gateway stopped with exit status 1; stopping the other too" in output


async def test_service_that_dies_stops_the_other(environment: Mapping[str, str]) -> None:
    async with _duet(environment) as duet:
        await _read_until(duet, READY)
        os.kill(_child(duet, "profile_service"), signal.SIGKILL)
        output = await _read_to_the_end(duet)
        assert await duet.wait() == 1
    assert "profile_service stopped with exit status -9; stopping the other too" in output


async def test_second_interrupt_kills_a_service_that_hangs(
    environment: Mapping[str, str],
) -> None:
    async with _duet(environment) as duet:
        await _read_until(duet, READY)
        os.kill(_child(duet, "ws_gateway"), signal.SIGSTOP)
        duet.send_signal(signal.SIGINT)
        await _read_until(duet, "duet: stopping")
        duet.send_signal(signal.SIGINT)
        output = await _read_to_the_end(duet)
        assert await duet.wait() == 1
    assert "ws_gateway did not stop in time: killing it" in output


async def test_unusable_setting_is_named(environment: Mapping[str, str]) -> None:
    async with _duet({**environment, "DUET_LOG_LEVEL": "loud"}) as duet:
        assert "DUET_LOG_LEVEL" in await _read_to_the_end(duet)
        assert await duet.wait() == 1


@contextlib.asynccontextmanager
async def _duet(environment: Mapping[str, str]) -> AsyncIterator[Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "shared.launcher",
        env=environment,
        stdin=DEVNULL,
        stdout=PIPE,
        stderr=STDOUT,
    )
    try:
        async with asyncio.timeout(TIMEOUT_S):
            yield process
    finally:
        if process.returncode is None:
            process.terminate()
            await process.communicate()


async def _read_until(process: Process, text: str) -> None:
    assert process.stdout is not None
    seen = ""
    while text not in seen:
        line = (await process.stdout.readline()).decode()
        assert line, f"ended without {text!r}:\n{seen}"
        seen += line


async def _read_to_the_end(process: Process) -> str:
    """What is still written, until every process that could write is gone."""
    assert process.stdout is not None
    return (await process.stdout.read()).decode()


def _child(parent: Process, module: str) -> int:
    listing = subprocess.run(
        ["ps", "-A", "-o", "pid=,ppid=,args="], capture_output=True, text=True, check=True
    )
    rows = [line.split(maxsplit=2) for line in listing.stdout.splitlines()]
    (found,) = [
        int(pid) for pid, of, command in rows if int(of) == parent.pid and module in command
    ]
    return found


@contextlib.contextmanager
def _listening(port: int = 0) -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", port)) as listener:
        yield listener


def _port(listener: socket.socket) -> int:
    return int(listener.getsockname()[1])
