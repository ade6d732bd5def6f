"""Online, offline, typing: told to whom it concerns, and no ghost stays."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.client import Client, Frame
from tests.support.fake_profile import FakeSession
from tests.support.gateway import TestGateway, running_gateway
from tests.support.raw_socket import RawSocket
from tests.support.waiting import until


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[TestGateway]:
    async with running_gateway(tmp_path, offline_after_s=0.05) as gateway:
        yield gateway


@pytest.fixture
def ann(gateway: TestGateway) -> FakeSession:
    return gateway.profile.sign_up("ann")


@pytest.fixture
def bob(gateway: TestGateway) -> FakeSession:
    return gateway.profile.sign_up("bob")


@contextlib.asynccontextmanager
async def peers(
    gateway: TestGateway, ann: FakeSession, bob: FakeSession
) -> AsyncIterator[tuple[Client, Client]]:
    """Two who have talked and know of each other."""
    async with gateway.talking(ann) as a, gateway.talking(bob) as b:
        await a.say(bob.user_id, "hi", "1")
        await a.expect("presence", user=bob.user_id, online=True)
        await b.expect("message")
        await b.expect("presence", user=ann.user_id, online=True)
        yield a, b


async def test_first_message_introduces_and_leaving_is_told_with_last_seen(
    gateway: TestGateway, ann: FakeSession, bob: FakeSession
) -> None:
    async with peers(gateway, ann, bob) as (a, b):
        await b.socket.close()
        gone = await a.expect("presence", user=bob.user_id, online=False)
        assert gone["last_seen"].endswith("Z")
        async with gateway.talking(bob) as again:
            await a.expect("presence", user=bob.user_id, online=True)
            await again.expect("presence", user=ann.user_id, online=True)
        await a.expect("presence", online=False)
        (item,) = (await a.ask("conversations"))["items"]
        assert item["peer"]["last_seen"] >= gone["last_seen"]
        assert "online" not in item["peer"]


async def test_second_device_keeps_a_person_online(
    gateway: TestGateway, ann: FakeSession, bob: FakeSession
) -> None:
    async with peers(gateway, ann, bob) as (a, b), gateway.talking(bob) as phone:
        await phone.expect("presence", user=ann.user_id, online=True)
        await b.socket.close()
        await until(lambda: gateway.connections_of(bob.user_id) == 1)
        assert await gateway.gateway.presence.online([bob.user_id], ann.user_id)
        await phone.socket.close()
        await a.expect("presence", user=bob.user_id, online=False)


async def test_strangers_are_told_nothing(
    gateway: TestGateway, ann: FakeSession, bob: FakeSession
) -> None:
    cid = gateway.profile.sign_up("cid")
    async with gateway.talking(cid) as c:
        async with peers(gateway, ann, bob) as (a, b):
            await c.send(type="typing", to=ann.user_id, active=True)
            await a.send(type="typing", to=cid.user_id, active=True)
            assert await c.arrived() == []
            assert [f["type"] for f in await a.arrived()] == []
            await b.socket.close()
        await until(lambda: not gateway.connections_of(ann.user_id))
        assert await c.arrived() == []


@pytest.mark.parametrize("how", ["vanishes", "goes silent"])
async def test_killed_connection_leaves_no_ghost(tmp_path: Path, how: str) -> None:
    """Gone within keepalive and debounce, whether or not TCP says so."""
    async with running_gateway(
        tmp_path, offline_after_s=0.05, ping_interval_s=0.1, ping_timeout_s=0.1, close_timeout_s=0.1
    ) as gateway:
        ann, bob = gateway.profile.sign_up("ann"), gateway.profile.sign_up("bob")
        async with gateway.talking(ann) as a:
            async with RawSocket.open(gateway.url) as silent:
                await silent.connect(bob.access_token)
                await a.say(bob.user_id, "hi", "1")
                await a.expect("presence", user=bob.user_id, online=True)
                if how == "goes silent":
                    await a.expect("presence", user=bob.user_id, online=False)
            if how == "vanishes":
                await a.expect("presence", user=bob.user_id, online=False)
        assert gateway.connections_of(bob.user_id) == 0


async def test_logged_out_person_goes_offline(
    gateway: TestGateway, ann: FakeSession, bob: FakeSession
) -> None:
    async with peers(gateway, ann, bob) as (a, _):
        gateway.profile.log_out_everywhere(bob.user_id)
        await a.expect("presence", user=bob.user_id, online=False)


async def test_hidden_presence_shows_nothing_and_sees_all(
    gateway: TestGateway, ann: FakeSession, bob: FakeSession
) -> None:
    async with peers(gateway, ann, bob) as (a, b):
        await b.ask("preferences", share_presence=False)
        await a.expect("presence", user=bob.user_id, online=False)
        (item,) = (await a.ask("conversations"))["items"]
        assert item["peer"] == {"id": bob.user_id, "username": "bob"}
        (item,) = (await b.ask("conversations"))["items"]
        assert item["peer"]["online"] is True
        await b.ask("preferences", share_presence=True)
        await a.expect("presence", user=bob.user_id, online=True)


async def test_typing_goes_to_the_peer_at_most_once_a_second(
    gateway: TestGateway, ann: FakeSession, bob: FakeSession
) -> None:
    async with peers(gateway, ann, bob) as (a, b):
        for _ in range(10):
            await a.send(type="typing", to=bob.user_id, active=True)
        await a.send(type="typing", to=bob.user_id, active=False)
        assert await a.arrived() == []
        shown = await b.arrived()
        expected = {"type": "typing", "from": ann.user_id, "expires_in_ms": 6000}
        assert shown == [{**expected, "active": True}, {**expected, "active": False}]


async def test_typing_is_dropped_first_for_a_reader_who_is_behind(tmp_path: Path) -> None:
    """Every message arrives; what may be lost is, while they pile up."""
    async with running_gateway(
        tmp_path, offline_after_s=0, outbox_max_bytes=4096, outbox_grace_s=30
    ) as gateway:
        ann, bob = gateway.profile.sign_up("ann"), gateway.profile.sign_up("bob")
        async with gateway.talking(ann) as a, RawSocket.open(gateway.url) as slow:
            await slow.connect(bob.access_token)
            await a.say(bob.user_id, "hi", "first")
            await a.expect("presence", user=bob.user_id, online=True)
            (connection,) = gateway.gateway.connections.of_user(bob.user_id)
            connection._websocket.outbox.pause()  # type: ignore[attr-defined]
            await a.send(type="typing", to=bob.user_id, active=True)
            await a.say(bob.user_id, "while behind", "second")
            connection._websocket.outbox.resume()  # type: ignore[attr-defined]
            await a.say(bob.user_id, "after", "third")
            kinds: list[Frame] = []
            async with asyncio.timeout(10):
                while not kinds or kinds[-1].get("text") != "after":
                    kinds.append(json.loads(bytes((await slow.read_frame()).data)))
            assert "typing" not in {frame["type"] for frame in kinds}
            texts = [frame["text"] for frame in kinds if frame["type"] == "message"]
            assert texts == ["hi", "while behind", "after"]


async def test_changed_preferences_are_told_to_ones_other_connections_alone(
    gateway: TestGateway, ann: FakeSession, bob: FakeSession
) -> None:
    async with peers(gateway, ann, bob) as (a, b), gateway.talking(bob) as phone:
        await phone.expect("presence", user=ann.user_id, online=True)
        held = await b.ask("preferences", share_reads=False)
        await phone.expect("changed", what="preferences")
        assert await phone.ask("preferences") == held
        await b.ask("preferences")
        await b.ask("preferences", share_reads=False)  # it is so already
        for client in (a, b, phone):
            assert await client.arrived() == []
