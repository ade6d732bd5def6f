"""Both services as processes for the client's tests, with a thread each that reads their log."""

import asyncio
import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import duet_client
from duet_client import Client, Event, Tokens

__all__ = [
    "PASSWORD",
    "Duet",
    "Gateway",
    "expect",
    "running_gateway_process",
    "running_profile_process",
]

T = TypeVar("T", bound=Event)

PASSWORD = "correct horse battery"
_WITHIN_S = 30.0
_UNHURRIED = {
    "DUET_MESSAGES_PER_S": "100000",
    "DUET_MESSAGE_BURST": "100000",
    "DUET_REQUESTS_PER_S": "100000",
    "DUET_REQUEST_BURST": "100000",
}


class _Service:
    def __init__(self, module: str, data_dir: Path, settings: dict[str, str]) -> None:
        inherited = {k: v for k, v in os.environ.items() if not k.upper().startswith("DUET_")}
        self._process = subprocess.Popen(
            [sys.executable, "-m", module],
            env={
                **inherited,
                "DUET_DATA_DIR": str(data_dir),
                "DUET_LOG_FORMAT": "json",
                **settings,
            },
            stderr=subprocess.PIPE,
            text=True,
        )
        self.log: list[str] = []
        self._news = threading.Condition()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def url(self) -> str:
        """Where it listens, once it does."""

        def find() -> dict[str, Any] | None:
            records = (json.loads(line) for line in self.log if line.startswith("{"))
            return next((record for record in records if record["event"] == "listening"), None)

        with self._news:
            found = self._news.wait_for(find, _WITHIN_S)
        assert found, self.log
        return str(found["url"])

    def kill(self) -> None:
        """End it as a crash does."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def stop(self) -> None:
        """End it as an operator does."""
        self._process.send_signal(signal.SIGTERM)
        assert self._process.wait(_WITHIN_S) == 0

    def close(self) -> None:
        """End it, if it is still there."""
        self._process.kill()
        self._process.wait()
        self._reader.join()
        assert self._process.stderr is not None
        self._process.stderr.close()

    def _read(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            with self._news:
                self.log.append(line)
                self._news.notify_all()


class Gateway:
    """A gateway process that can be killed and started again on the same port and data."""

    def __init__(self, data_dir: Path, profile_url: str, settings: dict[str, str]) -> None:
        self._data_dir = data_dir
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self._settings = {
            "DUET_GATEWAY_PORT": str(port),
            "DUET_PROFILE_URL": profile_url,
            **_UNHURRIED,
            **settings,
        }
        self.database = data_dir / "messages.db"
        self.start()

    def start(self) -> None:
        """Start, and wait until it listens."""
        self._service = _Service("ws_gateway", self._data_dir, self._settings)
        self.url = self._service.url()

    def kill(self) -> None:
        """End it as a crash does."""
        self._service.kill()
        self._service.close()

    def stop(self) -> None:
        """End it as an operator does."""
        self._service.stop()
        self._service.close()

    @property
    def log(self) -> list[str]:
        """What it wrote since it was started last."""
        return self._service.log

    def close(self) -> None:
        """End it, if it is still there."""
        self._service.close()


class Duet:
    """Where both services are, and how people come to be."""

    def __init__(self, profile_url: str, gateway: Gateway) -> None:
        self.profile_url = profile_url
        self.gateway = gateway

    async def sign_up(self, prefix: str = "user") -> Tokens:
        """Create an account; its name begins with `prefix`."""
        return await duet_client.sign_up(
            self.profile_url, f"{prefix}-{secrets.token_hex(6)}", PASSWORD, trust_env=False
        )

    def connect(
        self, tokens: Tokens | duet_client.CredentialStore, state: Path | str, **options: Any
    ) -> contextlib.AbstractAsyncContextManager[duet_client.Client]:
        """A client that tries again at once."""
        chosen: dict[str, Any] = {
            "gateway_url": self.gateway.url,
            "backoff": duet_client.Backoff(first_s=0.02, longest_s=0.2),
            "trust_env": False,
            **options,
        }
        return duet_client.connect(self.profile_url, credentials=tokens, state=state, **chosen)


@contextlib.contextmanager
def running_profile_process(data_dir: Path, **settings: str) -> Iterator[str]:
    """Run `python -m profile_service`; gives its URL."""
    quick = {
        "DUET_PROFILE_PORT": "0",
        "DUET_ARGON2_MEMORY_KIB": "8",
        "DUET_SIGN_UPS_PER_ADDRESS": "100000",
        "DUET_LOGIN_ATTEMPTS_PER_ADDRESS": "100000",
    }
    service = _Service("profile_service", data_dir, {**quick, **settings})
    try:
        yield service.url()
    finally:
        service.close()


@contextlib.contextmanager
def running_gateway_process(data_dir: Path, profile_url: str, **settings: str) -> Iterator[Gateway]:
    """Run `python -m ws_gateway`."""
    gateway = Gateway(data_dir, profile_url, settings)
    try:
        yield gateway
    finally:
        gateway.close()


async def expect(client: Client, kind: type[T], *, within_s: float = 10.0) -> T:
    """Return the next event of a kind, and handle it and all before it."""
    async with asyncio.timeout(within_s):
        async for event in client.events():
            await client.handled(event)
            if isinstance(event, kind):
                return event
    raise AssertionError("the client was closed")
