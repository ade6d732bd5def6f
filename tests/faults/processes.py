"""Both services as real processes, on ports that stay theirs across restarts."""

import asyncio
import contextlib
import os
import signal
import socket
import sys
import time
from asyncio.subprocess import DEVNULL, Process
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import httpx

from tests.support.profile_service import PASSWORD, SERVICE_SECRET
from tests.support.waiting import until

__all__ = ["Duet", "Person", "free_port", "lasting", "running_duet"]

START_TIMEOUT_S = 20.0

SETTINGS = {
    "DUET_SERVICE_SECRET": SERVICE_SECRET,
    "DUET_ARGON2_MEMORY_KIB": "8",
    "DUET_SIGN_UPS_PER_ADDRESS": "1000000",
    "DUET_REFRESH_BURST": "1000000",
    "DUET_LOGIN_ATTEMPTS_PER_ADDRESS": "1000000",
    "DUET_LOGIN_ATTEMPTS_PER_ACCOUNT": "1000000",
    "DUET_LOGIN_ATTEMPTS_PER_ACCOUNT_AND_ADDRESS": "1000000",
    "DUET_ACCESS_TOKEN_LIFETIME_S": "3600",
}
"""One address signs everybody up, and hashing is cheap: neither is what is tried here."""

UNHURRIED = {
    "DUET_MESSAGES_PER_S": "1000000",
    "DUET_MESSAGE_BURST": "1000000",
    "DUET_REQUESTS_PER_S": "1000000",
    "DUET_REQUEST_BURST": "1000000",
}
"""For loads that are faster than people may be; floods are tried with the limits as they are."""


class Person:
    """Somebody who is signed up, with tokens of one device."""

    def __init__(self, username: str, granted: Mapping[str, Any]) -> None:
        self.username = username
        self.user_id = str(granted["user"]["id"])
        self.access_token = str(granted["access_token"])
        self.refresh_token = str(granted["refresh_token"])

    @property
    def bearer(self) -> dict[str, str]:
        """The header of a request in this person's name."""
        return {"Authorization": f"Bearer {self.access_token}"}


class Duet:
    """Starts, kills, freezes and stops the two services; `log` holds what both have written."""

    def __init__(self, directory: Path, settings: Mapping[str, str]) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.data_dir = directory / "data"
        self.log = directory / "log.txt"
        self.profile_port, self.gateway_port = free_port(), free_port()
        self.profile_url = f"http://127.0.0.1:{self.profile_port}"
        self.url = f"ws://127.0.0.1:{self.gateway_port}/v1/ws"
        self.gateway_http_url = f"http://127.0.0.1:{self.gateway_port}"
        self.settings = {
            "DUET_DATA_DIR": str(self.data_dir),
            "DUET_PROFILE_PORT": str(self.profile_port),
            "DUET_PROFILE_URL": self.profile_url,
            "DUET_GATEWAY_PORT": str(self.gateway_port),
            **SETTINGS,
            **settings,
        }
        self.processes: dict[str, Process] = {}
        self.http = httpx.AsyncClient(base_url=self.profile_url, trust_env=False, timeout=30)
        self._signed_up = 0

    @property
    def messages_db(self) -> Path:
        """The gateway's database."""
        return self.data_dir / "messages.db"

    @property
    def users_db(self) -> Path:
        """The profile service's database."""
        return self.data_dir / "users.db"

    @property
    def environment(self) -> dict[str, str]:
        """What a process is told, a service or one of its commands."""
        inherited = {key: value for key, value in os.environ.items() if key[:5] != "DUET_"}
        return {**inherited, **self.settings}

    async def start(self, name: str, **settings: str) -> Process:
        """Run `python -m name`; returns as soon as the process is there."""
        with self.log.open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                name,
                stdin=DEVNULL,
                stdout=log,
                stderr=log,
                env={**self.environment, **settings},
            )
        self.processes[name] = process
        return process

    async def ready(self, name: str) -> None:
        """Wait until the service answers that it is ready.

        Raises:
            RuntimeError: its process ended.
            TimeoutError: it takes too long.
        """
        url = self.profile_url if name == "profile_service" else self.gateway_http_url
        process = self.processes[name]
        async with asyncio.timeout(START_TIMEOUT_S):
            while True:
                if process.returncode is not None:
                    raise RuntimeError(f"{name} ended with {process.returncode}: {self.log_tail()}")
                with contextlib.suppress(httpx.TransportError):
                    if (await self.http.get(f"{url}/readyz")).status_code == httpx.codes.OK:
                        return
                await lasting(0.02)

    async def start_both(self) -> None:
        """Start both and wait until they are ready."""
        for name in ("profile_service", "ws_gateway"):
            await self.start(name)
        for name in ("profile_service", "ws_gateway"):
            await self.ready(name)

    async def kill(self, name: str) -> None:
        """SIGKILL, as the kernel does when memory runs out."""
        process = self.processes[name]
        process.kill()
        await process.wait()

    def freeze(self, name: str) -> None:
        """SIGSTOP: alive, and stuck."""
        self.processes[name].send_signal(signal.SIGSTOP)

    def thaw(self, name: str) -> None:
        """Let it go on."""
        self.processes[name].send_signal(signal.SIGCONT)

    async def terminate(self, name: str, within_s: float = 30.0) -> tuple[int, float]:
        """SIGTERM. Returns the exit status and how long it took in seconds."""
        process = self.processes[name]
        started = time.monotonic()
        process.terminate()
        async with asyncio.timeout(within_s):
            status = await process.wait()
        return status, time.monotonic() - started

    async def close(self) -> None:
        """End both, whatever state they are in."""
        for process in self.processes.values():
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.send_signal(signal.SIGCONT)
                    process.terminate()
                try:
                    async with asyncio.timeout(20):
                        await process.wait()
                except TimeoutError:
                    process.kill()
                    await process.wait()
        await self.http.aclose()

    def memory_bytes(self, name: str) -> int:
        """Resident memory now."""
        status = Path(f"/proc/{self.processes[name].pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmRSS"))
        return int(line.split()[1]) * 1024

    def tracebacks(self) -> int:
        """How many tracebacks both logs hold."""
        return self.log.read_text(errors="replace").count("Traceback (most recent call last)")

    def log_tail(self) -> str:
        """The end of the log, for a message."""
        return self.log.read_text(errors="replace")[-2000:]

    async def metric(self, name: str) -> float:
        """One of the gateway's numbers, summed over its labels."""
        text = (await self.http.get(f"{self.gateway_http_url}/metrics")).text
        rows = (line.rpartition(" ") for line in text.splitlines() if line.startswith(name))
        return sum(float(value) for key, _, value in rows if key.partition("{")[0] == name)

    async def sign_up(self, username: str | None = None) -> Person:
        """Sign somebody up."""
        self._signed_up += 1
        username = username or f"person-{self._signed_up}"
        answer = await self.http.post(
            "/v1/users", json={"username": username, "password": PASSWORD}
        )
        assert answer.status_code == httpx.codes.CREATED, answer.text
        return Person(username, answer.json())

    async def sign_up_many(self, count: int) -> list[Person]:
        """Sign several people up, a few at a time."""
        people: list[Person] = []
        while len(people) < count:
            few = min(20, count - len(people))
            people += await asyncio.gather(*(self.sign_up() for _ in range(few)))
        return people

    async def log_in(self, person: Person) -> Person:
        """Log another device of somebody in."""
        answer = await self.http.post(
            "/v1/sessions", json={"username": person.username, "password": PASSWORD}
        )
        assert answer.status_code == httpx.codes.CREATED, answer.text
        return Person(person.username, answer.json())

    async def readable(self, *, ready: bool) -> None:
        """Wait until the gateway says that it is ready, or that it is not."""
        wanted = httpx.codes.OK if ready else httpx.codes.SERVICE_UNAVAILABLE
        async with asyncio.timeout(30):
            while True:
                answer = await self.http.get(f"{self.gateway_http_url}/readyz")
                if answer.status_code == wanted:
                    return
                await lasting(0.02)


@contextlib.asynccontextmanager
async def running_duet(directory: Path, **settings: str) -> AsyncIterator[Duet]:
    """Run both services, ready, while the context lasts."""
    duet = Duet(directory, settings)
    try:
        await duet.start_both()
        yield duet
    finally:
        await duet.close()


async def lasting(seconds: float) -> None:
    """Let a fault last: an outage of so many seconds takes so many seconds."""
    ends_at = time.monotonic() + seconds
    await until(lambda: time.monotonic() >= ends_at, within_s=seconds + 10)


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
