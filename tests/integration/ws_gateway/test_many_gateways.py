"""People on several gateways, as if they were on one: PostgreSQL between them, and NATS."""

import pytest

from tests.support.client import Client
from tests.support.fake_profile import FakeSession
from tests.support.gateways import Gateways


@pytest.fixture
def ann(gateways: Gateways) -> FakeSession:
    return gateways.profile.sign_up("ann")


@pytest.fixture
def bob(gateways: Gateways) -> FakeSession:
    return gateways.profile.sign_up("bob")


async def texts(client: Client, count: int) -> list[str]:
    """The texts of the next messages."""
    return [(await client.expect("message"))["text"] for _ in range(count)]


async def test_two_people_talk_in_both_directions_in_order(
    gateways: Gateways, ann: FakeSession, bob: FakeSession
) -> None:
    async with (
        gateways.running() as (here, there),
        here.talking(ann) as a,
        there.talking(bob) as b,
    ):
        for number in range(50):
            await a.send(type="send", id=f"a{number}", to=bob.user_id, text=f"a{number}")
            await b.send(type="send", id=f"b{number}", to=ann.user_id, text=f"b{number}")
        to_bob = (await b.gather(ack=50, message=50))["message"]
        to_ann = (await a.gather(ack=50, message=50))["message"]
        assert [f["text"] for f in to_bob] == [f"a{n}" for n in range(50)]
        assert [f["text"] for f in to_ann] == [f"b{n}" for n in range(50)]
        assert sorted(f["seq"] for f in to_bob + to_ann) == list(range(1, 101))


async def test_every_device_sees_everything_wherever_it_is(
    gateways: Gateways, ann: FakeSession, bob: FakeSession
) -> None:
    async with (
        gateways.running(3) as (one, two, three),
        one.talking(ann) as a,
        two.talking(ann) as phone,
        three.talking(bob) as b,
        one.talking(bob) as tablet,
    ):
        await a.say(bob.user_id, "hi", "1")
        for device in (phone, b, tablet):
            assert await texts(device, 1) == ["hi"]
        await phone.say(bob.user_id, "from the phone", "2")
        for device in (a, b, tablet):
            assert await texts(device, 1) == ["from the phone"]
        for device, session in ((a, ann), (phone, ann), (b, bob), (tablet, bob)):
            await device.nothing_more(session.user_id)


async def test_edits_deletions_receipts_and_typing_cross(
    gateways: Gateways, ann: FakeSession, bob: FakeSession
) -> None:
    async with (
        gateways.running() as (here, there),
        here.talking(ann) as a,
        there.talking(bob) as b,
    ):
        ack = await a.say(bob.user_id, "hi", "1")
        await b.expect("message")
        place = {"conversation": ack["conversation"], "seq": 1}
        await b.send(type="read", **place)
        await b.expect("receipt", user=bob.user_id, read=1)
        await a.expect("receipt", user=bob.user_id, received=1, read=1)
        await a.send(type="edit", id="2", text="hello", **place)
        await a.expect("ack", id="2", revision=1)
        await b.expect("edited", text="hello")
        await a.send(type="delete", id="3", **place)
        await a.expect("ack", id="3", revision=2)
        await b.expect("deleted", seq=1)
        await a.expect("presence", user=bob.user_id, online=True)
        await b.expect("presence", user=ann.user_id, online=True)
        await b.send(type="typing", to=ann.user_id, active=True)
        await a.expect("typing", active=True)


async def test_who_resumes_on_another_gateway_misses_nothing(
    gateways: Gateways, ann: FakeSession, bob: FakeSession
) -> None:
    async with gateways.running() as (here, there), here.talking(ann) as a:
        async with here.talking(bob) as b:
            await a.say(bob.user_id, "1", "1")
            cursor = (await b.expect("message"))["cursor"]
        for number in "234":
            await a.say(bob.user_id, number, number)
        async with there.resuming(bob, cursor) as b:
            frames = [f for f in await b.collect("resumed") if f["type"] == "message"]
            assert [frame["text"] for frame in frames] == ["2", "3", "4"]
            await a.say(bob.user_id, "5", "5")
            assert await texts(b, 1) == ["5"]
