"""Starts what is measured: the two services as a user starts them, and the relay.

Each is a real process, pinned to its core by `taskset`, on a free port of the loopback interface.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import httpx
import msgspec

from bench.tool import GENERATOR_CORE, SERVER_CORE

__all__ = ["Relay", "Services", "environment", "free_port", "relay", "services"]

SETTINGS = {
    # Hundreds of people sign up from one address, refresh all the time, and hold more connections
    # than a person does.
    "DUET_SIGN_UPS_PER_ADDRESS": "1000000",
    "DUET_REFRESH_BURST": "1000000",
    "DUET_MAX_CONNECTIONS_PER_USER": "1000",
    # A full run takes longer than ten minutes.
    "DUET_ACCESS_TOKEN_LIFETIME_S": "86400",
    # The limiter is on, as always, but the load is not what it is there to stop.
    "DUET_MESSAGES_PER_S": "1000000",
    "DUET_MESSAGE_BURST": "1000000",
    "DUET_REQUESTS_PER_S": "1000000",
    "DUET_REQUEST_BURST": "1000000",
    "DUET_LOG_LEVEL": "warning",
}
"""What differs from the defaults; everything else is as a user has it."""

_START_TIMEOUT_S = 20.0
_STOP_TIMEOUT_S = 20.0


class Relay(msgspec.Struct, frozen=True):
    """The running baseline."""

    url: str
    pid: int


class Services(msgspec.Struct, frozen=True):
    """The running product."""

    url: str
    """Of the WebSocket endpoint."""
    gateway_pid: int
    profile_pid: int
    profile_port: int
    gateway_port: int
    data_dir: Path

    @property
    def profile_url(self) -> str:
        """Of the REST API."""
        return f"http://127.0.0.1:{self.profile_port}"


@contextlib.contextmanager
def relay() -> Iterator[Relay]:
    """Run the relay on the server's core."""
    with _process("bench.relay", SERVER_CORE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        yield Relay(f"ws://127.0.0.1:{port}/v1/ws", process.pid)


@contextlib.contextmanager
def services(
    data_dir: Path,
    *,
    profile_core: int = GENERATOR_CORE,
    log: Path | None = None,
    **settings: str,
) -> Iterator[Services]:
    """Run both services, the gateway on the server's core, and wait until they are ready.

    `settings` are added to those of all runs.
    """
    profile_port, gateway_port = free_port(), free_port()
    settings = {**environment(data_dir, profile_port, gateway_port), **settings}
    with contextlib.ExitStack() as stack:
        out = stack.enter_context((log or data_dir / "log.txt").open("wb"))
        profile = stack.enter_context(
            _process("profile_service", profile_core, settings, stdout=out)
        )
        _until_ready(f"http://127.0.0.1:{profile_port}/readyz", profile)
        gateway = stack.enter_context(_process("ws_gateway", SERVER_CORE, settings, stdout=out))
        _until_ready(f"http://127.0.0.1:{gateway_port}/readyz", gateway)
        yield Services(
            url=f"ws://127.0.0.1:{gateway_port}/v1/ws",
            gateway_pid=gateway.pid,
            profile_pid=profile.pid,
            profile_port=profile_port,
            gateway_port=gateway_port,
            data_dir=data_dir,
        )


def environment(data_dir: Path, profile_port: int, gateway_port: int) -> dict[str, str]:
    """The settings of both services, for their environment."""
    return {
        **SETTINGS,
        "DUET_DATA_DIR": str(data_dir),
        "DUET_PROFILE_PORT": str(profile_port),
        "DUET_GATEWAY_PORT": str(gateway_port),
        "DUET_PROFILE_URL": f"http://127.0.0.1:{profile_port}",
    }


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def _until_ready(url: str, process: subprocess.Popen[bytes]) -> None:
    """Wait for an HTTP 200.

    Raises:
        RuntimeError: the process ended, or it takes too long.
    """
    deadline = time.monotonic() + _START_TIMEOUT_S
    with httpx.Client(trust_env=False, timeout=2.0) as client:
        while time.monotonic() < deadline:
            if process.poll() is not None:
                raise RuntimeError(f"{process.args!r} ended with status {process.returncode}")
            with contextlib.suppress(httpx.TransportError):
                if client.get(url).status_code == httpx.codes.OK:
                    return
            time.sleep(0.02)
    raise RuntimeError(f"{url} is not ready after {_START_TIMEOUT_S:g} s")


@contextlib.contextmanager
def _process(
    module: str,
    core: int,
    settings: Mapping[str, str] | None = None,
    stdout: "int | object" = subprocess.DEVNULL,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run `python -m` pinned to a core, and end it at the end."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("DUET_")}
    process: subprocess.Popen[bytes] = subprocess.Popen(
        ["taskset", "-c", str(core), sys.executable, "-m", module],
        stdin=subprocess.DEVNULL,
        stdout=stdout,  # type: ignore[arg-type]
        stderr=subprocess.STDOUT if stdout not in (subprocess.PIPE, subprocess.DEVNULL) else None,
        env={**inherited, **(settings or {})},
    )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()
