"""The bus between gateways is away, or loses: messages come late then, and in order, and once."""

import time

import pytest

from tests.support.client import Client
from tests.support.fake_profile import FakeSession
from tests.support.gateway import TestGateway
from tests.support.gateways import Gateways, connected, cut_off
from ws_gateway.adapters.nats_bus import NatsBus


@pytest.fixture
def ann(gateways: Gateways) -> FakeSession:
    return gateways.profile.sign_up("ann")


@pytest.fixture
def bob(gateways: Gateways) -> FakeSession:
    return gateways.profile.sign_up("bob")


async def texts(client: Client, count: int) -> list[str]:
    """The texts of the next messages."""
    return [(await client.expect("message"))["text"] for _ in range(count)]


def bus_of(gateway: TestGateway) -> NatsBus:
    """What a gateway publishes on."""
    bus = gateway.gateway.messenger._bus
    assert isinstance(bus, NatsBus)
    return bus


async def test_nats_goes_and_comes_back_and_nothing_is_lost_or_doubled(
    gateways: Gateways, ann: FakeSession, bob: FakeSession
) -> None:
    async with (
        gateways.running() as (here, there),
        here.talking(ann) as a,
        there.talking(bob) as b,
    ):
        ack = await a.say(bob.user_id, "before", "0")
        assert await texts(b, 1) == ["before"]
        gateways.nats.kill()
        await cut_off(here, there)
        started = time.monotonic()
        for number in "123":
            await a.say(bob.user_id, number, number)
        assert await texts(b, 3) == ["1", "2", "3"]
        assert time.monotonic() - started < 8  # a second, and as much as a busy machine takes
        await b.send(type="read", conversation=ack["conversation"], seq=4)
        await b.expect("receipt", read=4)
        assert await a.arrived() == []
        await a.say(bob.user_id, "4", "4")
        gateways.nats.start()
        await connected(here, there)
        await a.expect("receipt", user=bob.user_id, read=4)
        await a.say(bob.user_id, "after", "5")
        assert await texts(b, 2) == ["4", "after"]
        await b.nothing_more(bob.user_id)
        await b.say(ann.user_id, "bye", "1")
        assert await texts(a, 1) == ["bye"]


async def test_gateways_without_nats_hear_of_each_other_from_the_store(
    gateways: Gateways, ann: FakeSession, bob: FakeSession
) -> None:
    gateways.nats.kill()
    async with (
        gateways.running() as (here, there),
        here.talking(ann) as a,
        there.talking(bob) as b,
    ):
        for number in "123":
            await a.say(bob.user_id, number, number)
            await b.expect("message", text=number)
            await b.say(ann.user_id, number, number)
            await a.expect("message", text=number)


async def test_forgotten_bus_costs_a_second(
    gateways: Gateways, ann: FakeSession, bob: FakeSession
) -> None:
    async with (
        gateways.running(with_bus=False) as (here, there),
        here.talking(ann) as a,
        there.talking(bob) as b,
    ):
        for gateway in (here, there):
            assert gateway.gateway.heartbeat is not None
            await gateway.gateway.heartbeat.beat()
        await a.say(bob.user_id, "hi", "1")
        assert await texts(b, 1) == ["hi"]


async def test_lost_notice_is_healed_by_the_next_one(
    gateways: Gateways, ann: FakeSession, bob: FakeSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        gateways.running(bus_check_interval_s=3600) as (here, there),
        here.talking(ann) as a,
        there.talking(bob) as b,
    ):
        with monkeypatch.context() as lossy:
            lossy.setattr(bus_of(here), "_send", lambda *_: None)
            for number in "123":
                await a.say(bob.user_id, number, number)
        await a.say(bob.user_id, "4", "4")
        assert await texts(b, 4) == ["1", "2", "3", "4"]
        assert there.sample("duet_gateway_healed_events_total") == 3


async def test_lost_notice_is_healed_by_the_periodic_check(
    gateways: Gateways, ann: FakeSession, bob: FakeSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        gateways.running(bus_check_interval_s=0.1) as (here, there),
        here.talking(ann) as a,
        there.talking(bob) as b,
    ):
        monkeypatch.setattr(bus_of(here), "_send", lambda *_: None)
        await a.say(bob.user_id, "hi", "1")
        assert await texts(b, 1) == ["hi"]


async def test_checks_under_load_show_nobody_their_own_message(
    gateways: Gateways, ann: FakeSession, bob: FakeSession
) -> None:
    async with (
        gateways.running(bus_check_interval_s=0.001) as (here, there),
        here.talking(ann) as a,
        there.talking(bob) as b,
    ):
        for number in range(200):
            await a.send(type="send", id=f"{number}", to=bob.user_id, text=f"{number}")
            if number % 3 == 0:
                await b.send(type="send", id=f"{number}", to=ann.user_id, text=f"{number}")
        to_ann = await a.gather(ack=200, message=67)
        to_bob = await b.gather(ack=67, message=200)
        assert [f["text"] for f in to_bob["message"]] == [str(n) for n in range(200)]
        assert [f["text"] for f in to_ann["message"]] == [str(n) for n in range(0, 200, 3)]
        await a.nothing_more(ann.user_id)
        await b.nothing_more(bob.user_id)
