"""A fault of the gateway's own: told to the client, shown in the log, and confined to one."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from shared.introspection import TokenPair
from tests.support.client import Client
from tests.support.gateway import TestGateway, running_gateway
from tests.support.waiting import until
from ws_gateway.identity import Identity
from ws_gateway.messenger import Messenger


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[TestGateway]:
    async with running_gateway(tmp_path) as gateway:
        yield gateway


async def test_fault_while_verifying_closes_that_connection_and_is_logged(
    gateway: TestGateway, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fails(_tokens: TokenPair) -> Identity | None:
        raise RuntimeError("a fault of ours")

    ann = gateway.profile.sign_up("ann")
    async with gateway.talking(ann) as a:
        with monkeypatch.context() as patch:
            patch.setattr(gateway.profile, "verify", fails)
            async with Client.open(gateway.url) as client:
                await client.send(type="connect", access_token="token")
                await client.expect_error("internal", retryable=True)
                assert (await client.closed())[0] == 1011
            await a.send(type="refresh", id="r", access_token=ann.access_token)
            await a.expect_error("internal", retryable=True)
            await a.closed()
    await until(lambda: gateway.gateway.server.connections == 0)
    assert caplog.text.count("a fault of ours") >= 2
    assert "token" not in caplog.text.replace("tokens", "").replace("access_token", "")
    caplog.clear()


async def test_fault_while_handling_a_frame_closes_that_connection_and_is_logged(
    gateway: TestGateway, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*_arguments: object) -> None:
        raise RuntimeError("a fault of ours")

    ann, bob = gateway.profile.sign_up("ann"), gateway.profile.sign_up("bob")
    async with gateway.talking(ann) as a, gateway.talking(bob) as b:
        with monkeypatch.context() as patch:
            patch.setattr(Messenger, "submit", fails)
            await a.send(type="send", id="1", to=bob.user_id, text="hi")
            await a.expect_error("internal", retryable=True)
            assert (await a.closed())[0] == 1011
        await b.say(ann.user_id, "still here", "1")
    assert "handling a frame failed" in caplog.text
    caplog.clear()
