"""A fault of the gateway's own: told to the client, shown in the log, and confined to one."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NoReturn

import pytest

from shared.introspection import TokenPair
from tests.support.client import Client
from tests.support.gateway import TestGateway, running_gateway
from tests.support.waiting import until
from ws_gateway import app
from ws_gateway.delivery.rendering import Rendering
from ws_gateway.identity import Identity
from ws_gateway.messenger import Messenger


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[TestGateway]:
    async with running_gateway(tmp_path) as gateway:
        yield gateway


def fail(*_arguments: object) -> NoReturn:
    raise RuntimeError("a fault of ours")


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


async def test_part_that_fails_begins_anew(
    gateway: TestGateway, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(app, "_BEGIN_ANEW_AFTER_S", 0.0)
    begun = asyncio.Event()

    async def fails_once() -> None:
        if not begun.is_set():
            begun.set()
            raise sqlite3.DatabaseError("database disk image is malformed")
        tidied.set()

    tidied = asyncio.Event()
    part = asyncio.create_task(app._go_on("tidying up", fails_once))
    await asyncio.wait_for(tidied.wait(), 5)
    part.cancel()
    assert "a part of the gateway failed, and begins anew" in caplog.text
    caplog.clear()


async def test_feed_that_fails_counts_as_down(
    gateway: TestGateway, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Then sessions are polled, and the gateway is not ready."""

    async def fails(*_arguments: object) -> None:
        raise sqlite3.DatabaseError("database disk image is malformed")

    watch = gateway.gateway.revocations
    await asyncio.wait_for(watch.connected.wait(), 5)
    monkeypatch.setattr(watch, "_receive", fails)
    ann = gateway.profile.sign_up("ann")
    gateway.profile.log_out(ann)
    await until(lambda: not watch.connected.is_set())
    await until(lambda: "a part of the gateway failed" in caplog.text)
    caplog.clear()


async def test_fault_while_handling_a_frame_closes_that_connection_and_is_logged(
    gateway: TestGateway, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ann, bob = gateway.profile.sign_up("ann"), gateway.profile.sign_up("bob")
    async with gateway.talking(ann) as a, gateway.talking(bob) as b:
        with monkeypatch.context() as patch:
            patch.setattr(Messenger, "submit", fail)
            await a.send(type="send", id="1", to=bob.user_id, text="hi")
            await a.expect_error("internal", retryable=True)
            assert (await a.closed())[0] == 1011
        await b.say(ann.user_id, "still here", "1")
    assert "handling a frame failed" in caplog.text
    caplog.clear()


async def test_message_that_is_stored_and_cannot_be_told_is_resumed(
    gateway: TestGateway, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Everybody is sent away: a later message would carry their cursors past it."""

    ann, bob = gateway.profile.sign_up("ann"), gateway.profile.sign_up("bob")
    async with gateway.talking(ann) as a, gateway.talking(bob) as b:
        await a.say(bob.user_id, "told", "1")
        cursor = (await b.expect("message", text="told"))["cursor"]
        with monkeypatch.context() as patch:
            patch.setattr(Rendering, "event", fail)
            await a.send(type="send", id="2", to=bob.user_id, text="not told")
            for client in (a, b):
                frames = await client.collect("error")
                assert {frame["type"] for frame in frames} <= {"ack", "presence"}
                assert (await client.closed())[0] == 1011
        await until(lambda: not gateway.gateway.connections.users)
    async with gateway.talking(ann) as a, Client.open(gateway.url) as b:
        assert (await a.say(bob.user_id, "not told", "2"))["duplicate"]
        await b.connect(bob.access_token, resume=cursor)
        await b.expect("message", text="not told")
        await b.expect("resumed")
        await a.say(bob.user_id, "told", "3")
        await b.expect("message", text="told", seq=3)
    assert "telling of stored changes failed" in caplog.text
    caplog.clear()
