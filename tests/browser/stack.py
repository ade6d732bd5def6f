"""Both services as a browser meets them, and Chromium."""

import contextlib
import shutil
import signal
import socket
from collections.abc import AsyncIterator
from pathlib import Path

from playwright.async_api import Browser, async_playwright

from tests.support.processes import ServiceProcess, gateway_process, profile_process

__all__ = ["Stack", "chromium", "chromium_path", "running_stack"]

_FLAGS = [
    "--no-sandbox",  # tests run as root in containers
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--force-color-profile=srgb",
    "--font-render-hinting=none",
]


class Stack:
    """The two services; the gateway may be killed and comes back on the same port."""

    def __init__(self, folder: Path, settings: dict[str, str]) -> None:
        self.profile_port, self.gateway_port = _free_ports()
        self.url = f"http://127.0.0.1:{self.profile_port}"
        self.gateway_url = f"ws://127.0.0.1:{self.gateway_port}/v1/ws"
        self.data_dir = folder
        self.gateway: ServiceProcess | None = None
        self._settings = {
            "DUET_SIGN_UPS_PER_ADDRESS": "100000",
            "DUET_GATEWAY_PORT": str(self.gateway_port),
            **settings,
        }
        self._open = contextlib.AsyncExitStack()

    async def start(self) -> None:
        """Start both services and wait until they listen."""
        profile = await self._open.enter_async_context(
            profile_process(
                self.data_dir, **{**self._settings, "DUET_PROFILE_PORT": str(self.profile_port)}
            )
        )
        await profile.url()
        await self.start_gateway()

    async def start_gateway(self) -> None:
        """Start the gateway, for the first time or again."""
        self.gateway = await self._open.enter_async_context(
            gateway_process(
                self.data_dir, self.url, **{**self._settings, "DUET_ALLOWED_ORIGINS": self.url}
            )
        )
        await self.gateway.url()

    async def stop_gateway(self, number: signal.Signals = signal.SIGKILL) -> None:
        """End the gateway and wait until it is gone."""
        assert self.gateway is not None
        self.gateway.signal(number)
        await self.gateway.exit_status()

    async def close(self) -> None:
        """End both."""
        await self._open.aclose()


@contextlib.asynccontextmanager
async def running_stack(folder: Path, **settings: str) -> AsyncIterator[Stack]:
    """Run both services on free ports while the context lasts."""
    stack = Stack(folder, settings)
    try:
        await stack.start()
        yield stack
    finally:
        await stack.close()


def chromium_path() -> str | None:
    """Where Debian's Chromium is, if it is installed."""
    return shutil.which("chromium") or shutil.which("chromium-browser")


@contextlib.asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """Run Chromium while the context lasts."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium_path(), args=_FLAGS)
        try:
            yield browser
        finally:
            await browser.close()


def _free_ports() -> tuple[int, int]:
    with (
        socket.create_server(("127.0.0.1", 0)) as one,
        socket.create_server(("127.0.0.1", 0)) as other,
    ):
        return int(one.getsockname()[1]), int(other.getsockname()[1])
