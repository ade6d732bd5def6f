"""Too fast: refused one by one with a wait that is true, then closed."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.client import Client
from tests.support.fake_profile import FakeSession
from tests.support.gateway import TestGateway, running_gateway, stored_messages
from tests.support.manual_clock import ManualClock


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def gateway(tmp_path: Path, clock: ManualClock) -> AsyncIterator[TestGateway]:
    async with running_gateway(
        tmp_path,
        now=clock,
        messages_per_s=10,
        message_burst=5,
        requests_per_s=50,
        request_burst=20,
    ) as gateway:
        yield gateway


@pytest.fixture
def ann(gateway: TestGateway) -> FakeSession:
    return gateway.profile.sign_up("ann")


@pytest.fixture
def bob(gateway: TestGateway) -> FakeSession:
    return gateway.profile.sign_up("bob")


async def burst(client: Client, to: FakeSession, name: str, count: int) -> None:
    """Send so many messages, which must be taken."""
    for number in range(count):
        await client.say(to.user_id, "x", f"{name}{number}")


async def test_limits_are_told_and_a_burst_is_taken(
    gateway: TestGateway, ann: FakeSession, bob: FakeSession
) -> None:
    async with gateway.talking(ann) as a:
        limits = a.connected["limits"]
        assert (limits["messages_per_s"], limits["message_burst"]) == (10, 5)
        await burst(a, bob, "b", 5)


async def test_refused_message_is_taken_after_exactly_the_told_wait(
    gateway: TestGateway, ann: FakeSession, bob: FakeSession, clock: ManualClock
) -> None:
    async with gateway.talking(ann) as a:
        await burst(a, bob, "b", 5)
        await a.send(type="send", id="more", to=bob.user_id, text="more")
        error = await a.expect_error("rate_limited", id="more", retryable=True)
        assert len(stored_messages(gateway.database)) == 5
        clock.advance((error["retry_after_ms"] - 4) / 1000)
        await a.send(type="send", id="more", to=bob.user_id, text="more")
        error = await a.expect_error("rate_limited", id="more")
        clock.advance(error["retry_after_ms"] / 1000)
        assert (await a.say(bob.user_id, "more", "more"))["duplicate"] is False


async def test_connections_of_one_user_share_what_they_may_write(
    gateway: TestGateway, ann: FakeSession, bob: FakeSession
) -> None:
    async with gateway.talking(ann) as a, gateway.talking(ann) as phone:
        await burst(a, bob, "a", 3)
        await phone.collect("message")
        await phone.arrived()
        await burst(phone, bob, "p", 2)
        await phone.send(type="send", id="more", to=bob.user_id, text="more")
        await phone.expect_error("rate_limited", id="more")
    async with gateway.talking(ann) as again, gateway.talking(bob) as b:
        await again.send(type="send", id="more", to=bob.user_id, text="more")
        await again.expect_error("rate_limited", id="more")
        await b.say(ann.user_id, "others are free", "1")


async def test_edits_and_deletions_count_and_reading_does_not(
    gateway: TestGateway, ann: FakeSession, bob: FakeSession
) -> None:
    async with gateway.talking(ann) as a:
        await burst(a, bob, "b", 4)
        (item,) = (await a.ask("conversations"))["items"]
        place = {"conversation": item["conversation"], "seq": 1}
        for number in range(5):
            await a.ask("history", **{"with": bob.user_id})
            await a.send(type="read", **place, id=f"r{number}")
            await a.expect("receipt")
        await a.send(type="edit", id="e", text="y", **place)
        await a.expect("ack", id="e")
        await a.send(type="delete", id="d", **place)
        await a.expect_error("rate_limited", id="d")


async def test_third_strike_closes_and_says_why(
    gateway: TestGateway, ann: FakeSession, bob: FakeSession, clock: ManualClock
) -> None:
    async with gateway.talking(ann) as a, gateway.talking(ann) as other:
        for strike in range(3):
            for number in range(15):
                await a.send(type="send", id=f"{strike}-{number}", to=bob.user_id, text=f"{number}")
            while True:
                frame = json.loads(await a.socket.recv())
                if frame["type"] == "error" and frame["id"] == f"{strike}-14":
                    break
                if frame["type"] == "error" and frame["code"] == "flood":
                    break
            clock.advance(1)
        assert (frame["code"], frame["retryable"]) == ("flood", True)
        assert (await a.closed())[0] == 1008
        assert gateway.connections_of(ann.user_id) == 1
        await other.arrived()


async def test_flood_of_requests_is_refused_too(
    gateway: TestGateway, ann: FakeSession, clock: ManualClock
) -> None:
    async with gateway.talking(ann) as a:
        for number in range(20):
            await a.send(type="blocks", id=f"{number}")
            await a.expect("blocks")
        await a.send(type="blocks", id="more")
        error = await a.expect_error("rate_limited", id="more")
        clock.advance(error["retry_after_ms"] / 1000)
        await a.send(type="blocks", id="more")
        await a.expect("blocks", id="more")
