"""Both services as a browser meets them, and Chromium."""

import contextlib
import json
import shutil
import signal
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

from playwright.async_api import Browser, BrowserContext, async_playwright

from tests.faults.proxy import Proxy
from tests.support.engines import ON_SCALE
from tests.support.processes import ServiceProcess, gateway_process, profile_process

__all__ = ["Stack", "chromium", "chromium_path", "chromium_that_stores_nothing", "running_stack"]

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
    """The two services; the gateway may be killed and comes back on the same port.

    With `DUET_TEST_SCALE=1`, two gateways stand behind that port, and each new connection goes to
    the next one.
    """

    def __init__(self, folder: Path, settings: dict[str, str]) -> None:
        self.profile_port, self.gateway_port = _free_ports()
        self.url = f"http://127.0.0.1:{self.profile_port}"
        self.gateway_url = f"ws://127.0.0.1:{self.gateway_port}/v1/ws"
        self.data_dir = folder
        self._gateways: list[ServiceProcess] = []
        self._settings = {
            "DUET_SIGN_UPS_PER_ADDRESS": "100000",
            "DUET_GATEWAY_PORT": str(self.gateway_port),
            **settings,
        }
        self._open = contextlib.AsyncExitStack()
        self._front: contextlib.AsyncExitStack | None = None

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
        if not ON_SCALE:
            await self._add_gateway(self.gateway_port)
            return
        urls = [await self._add_gateway(0) for _ in range(2)]
        ports = [urlsplit(url).port or 0 for url in urls]
        self._front = contextlib.AsyncExitStack()
        await self._front.enter_async_context(Proxy.to(*ports, port=self.gateway_port))

    async def stop_gateway(self, number: signal.Signals = signal.SIGKILL) -> None:
        """End the gateway and wait until it is gone."""
        gateways, self._gateways = self._gateways, []
        for gateway in gateways:
            gateway.signal(number)
        for gateway in gateways:
            await gateway.exit_status()
        await self._close_front()

    async def _add_gateway(self, port: int) -> str:
        settings = {
            **self._settings,
            "DUET_ALLOWED_ORIGINS": self.url,
            "DUET_GATEWAY_PORT": str(port),
        }
        gateway = await self._open.enter_async_context(
            gateway_process(self.data_dir, self.url, **settings)
        )
        self._gateways.append(gateway)
        return await gateway.url()

    async def _close_front(self) -> None:
        if self._front is not None:
            await self._front.aclose()
            self._front = None

    async def close(self) -> None:
        """End both."""
        await self._close_front()
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


@contextlib.asynccontextmanager
async def chromium_that_stores_nothing(folder: Path) -> AsyncIterator[BrowserContext]:
    """Run Chromium as somebody has it who lets no site store anything."""
    preferences = folder / "Default" / "Preferences"
    preferences.parent.mkdir(parents=True)
    blocked = {"profile": {"default_content_setting_values": {"cookies": 2}}}
    preferences.write_text(json.dumps(blocked))
    async with async_playwright() as playwright:
        context = await playwright.chromium.launch_persistent_context(
            folder, executable_path=chromium_path(), args=_FLAGS
        )
        try:
            yield context
        finally:
            await context.close()


def _free_ports() -> tuple[int, int]:
    with (
        socket.create_server(("127.0.0.1", 0)) as one,
        socket.create_server(("127.0.0.1", 0)) as other,
    ):
        return int(one.getsockname()[1]), int(other.getsockname()[1])
