"""Both services as real processes, on free ports, with a data directory of their own."""

import asyncio
import contextlib
import json
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from tests.support.engines import settings_of

__all__ = ["ServiceProcess", "gateway_process", "profile_process"]

_WITHIN_S = 30.0


class ServiceProcess:
    """A running service whose log is read as it comes."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.lines: list[str] = []
        self._news = asyncio.Condition()
        self._ended = False
        self._reading = asyncio.create_task(self._read())

    async def logged(self, event: str) -> dict[str, Any]:
        """Return the first record of the log that is this event, once it is there."""
        async with asyncio.timeout(_WITHIN_S), self._news:
            await self._news.wait_for(lambda: self._ended or self._find(event) is not None)
        found = self._find(event)
        assert found is not None, f"ended without {event!r}:\n" + "\n".join(self.lines)
        return found

    async def url(self) -> str:
        """Where it listens, once it does."""
        return str((await self.logged("listening"))["url"])

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    async def exit_status(self) -> int:
        """Wait for its end and for all of its log."""
        async with asyncio.timeout(_WITHIN_S):
            await self._reading
            return await self.process.wait()

    @property
    def log(self) -> str:
        """All that it wrote."""
        return "\n".join(self.lines)

    def _find(self, event: str) -> dict[str, Any] | None:
        for line in self.lines:
            with contextlib.suppress(ValueError):
                record: dict[str, Any] = json.loads(line)
                if record.get("event") == event:
                    return record
        return None

    async def _read(self) -> None:
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            async with self._news:
                self.lines.append(line.decode().rstrip("\n"))
                self._news.notify_all()
        async with self._news:
            self._ended = True
            self._news.notify_all()


@contextlib.asynccontextmanager
async def gateway_process(
    data_dir: Path, profile_url: str, **settings: str
) -> AsyncIterator[ServiceProcess]:
    """Run `python -m ws_gateway`; killed at the end unless it ended before."""
    settings = {"DUET_GATEWAY_PORT": "0", "DUET_PROFILE_URL": profile_url, **settings}
    async with _running("ws_gateway", data_dir, settings) as service:
        yield service


@contextlib.asynccontextmanager
async def profile_process(data_dir: Path, **settings: str) -> AsyncIterator[ServiceProcess]:
    """Run `python -m profile_service`; killed at the end unless it ended before."""
    quick = {"DUET_PROFILE_PORT": "0", "DUET_ARGON2_MEMORY_KIB": "8"}
    async with _running("profile_service", data_dir, {**quick, **settings}) as service:
        yield service


@contextlib.asynccontextmanager
async def _running(
    module: str, data_dir: Path, settings: dict[str, str]
) -> AsyncIterator[ServiceProcess]:
    inherited = {k: v for k, v in os.environ.items() if not k.upper().startswith("DUET_")}
    environment = {
        **inherited,
        "DUET_DATA_DIR": str(data_dir),
        "DUET_LOG_FORMAT": "json",
        **settings_of(data_dir),
        **settings,
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", module, env=environment, stdin=DEVNULL, stderr=PIPE
    )
    service = ServiceProcess(process)
    try:
        yield service
    finally:
        if process.returncode is None:
            process.kill()
        await service.exit_status()
