"""What depends on the address of a client: who may see metrics, and how many may connect."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus

from tests.support.gateway import TestGateway, running_gateway
from tests.support.profile_service import fast_settings, running_service
from tests.support.waiting import until


async def metrics_of_both(tmp_path: Path, headers: dict[str, str], **settings: Any) -> list[int]:
    """The statuses with which both services answer a scrape."""
    async with (
        running_gateway(tmp_path / "gateway", **settings) as gateway,
        running_service(fast_settings(tmp_path / "profile", **settings)) as service,
        httpx.AsyncClient(trust_env=False) as client,
    ):
        return [
            (await client.get(f"{url}/metrics", headers=headers)).status_code
            for url in (gateway.http_url, f"http://127.0.0.1:{service.port}")
        ]


@pytest.mark.parametrize(
    ("settings", "headers", "status"),
    [
        ({}, {}, 200),
        ({}, {"X-Forwarded-For": "8.8.8.8"}, 404),
        ({}, {"X-Forwarded-For": "127.0.0.1"}, 404),
        ({"metrics_networks": ("10.0.0.0/8",)}, {}, 404),
        ({"metrics_networks": ()}, {}, 404),
    ],
)
async def test_metrics_are_for_those_inside(
    tmp_path: Path,
    settings: dict[str, tuple[str, ...]],
    headers: dict[str, str],
    status: int,
) -> None:
    assert await metrics_of_both(tmp_path, headers, **settings) == [status] * 2


@contextlib.asynccontextmanager
async def behind_a_proxy(tmp_path: Path) -> AsyncIterator[TestGateway]:
    async with running_gateway(
        tmp_path, max_connections_per_address=2, gateway_trusted_proxies=("127.0.0.1",)
    ) as gateway:
        yield gateway


def connecting(gateway: TestGateway, address: str) -> connect:
    """Connect as the proxy does for a client of that address."""
    headers = {"X-Forwarded-For": f"1.1.1.1, {address}"}
    return connect(gateway.url, proxy=None, additional_headers=headers, close_timeout=1)


async def test_one_address_may_not_take_all_connections(tmp_path: Path) -> None:
    async with behind_a_proxy(tmp_path) as gateway, contextlib.AsyncExitStack() as stack:
        held: list[ClientConnection] = [
            await stack.enter_async_context(connecting(gateway, "8.8.8.8")) for _ in range(2)
        ]
        with pytest.raises(InvalidStatus) as refused:
            await stack.enter_async_context(connecting(gateway, "8.8.8.8"))
        assert refused.value.response.status_code == 503
        assert refused.value.response.headers["Retry-After"] == "2"
        await stack.enter_async_context(connecting(gateway, "8.8.4.4"))
        await held[0].close()
        await until(lambda: gateway.gateway.server.connections == 2)
        await stack.enter_async_context(connecting(gateway, "8.8.8.8"))


async def test_a_network_of_ipv6_counts_as_one_and_one_s_own_are_not_counted(
    tmp_path: Path,
) -> None:
    async with behind_a_proxy(tmp_path) as gateway, contextlib.AsyncExitStack() as stack:
        for last in range(2):
            await stack.enter_async_context(connecting(gateway, f"2001:4860::{last}"))
        with pytest.raises(InvalidStatus):
            await stack.enter_async_context(connecting(gateway, "2001:4860::9"))
        for _ in range(4):
            await stack.enter_async_context(connecting(gateway, "192.168.0.1"))


async def test_what_a_client_says_of_its_address_is_not_believed(tmp_path: Path) -> None:
    async with (
        running_gateway(tmp_path, max_connections_per_address=1) as gateway,
        contextlib.AsyncExitStack() as stack,
    ):
        for _ in range(3):
            await stack.enter_async_context(connecting(gateway, "8.8.8.8"))
