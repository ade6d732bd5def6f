"""Why didn't Bob get it? What a person may know of an own message."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from shared.ids import ConversationId, conversation_id
from tests.support.fake_profile import FakeSession
from tests.support.gateway import TestGateway, running_gateway
from tests.support.manual_clock import ManualClock


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def gateway(tmp_path: Path, clock: ManualClock) -> AsyncIterator[TestGateway]:
    async with running_gateway(tmp_path, now=clock) as gateway:
        yield gateway


@pytest.fixture
def ann(gateway: TestGateway) -> FakeSession:
    return gateway.profile.sign_up("ann")


@pytest.fixture
def bob(gateway: TestGateway) -> FakeSession:
    return gateway.profile.sign_up("bob")


@pytest.fixture
def talk(ann: FakeSession, bob: FakeSession) -> ConversationId:
    return conversation_id(ann.user_id, bob.user_id)


async def test_trace_follows_a_message_from_disk_to_reader(
    gateway: TestGateway,
    ann: FakeSession,
    bob: FakeSession,
    talk: ConversationId,
    clock: ManualClock,
) -> None:
    async with gateway.talking(ann) as a:
        ack = await a.say(bob.user_id, "hello", "1")
        asked = {"conversation": talk, "seq": 1}
        trace = await a.ask("trace", **asked)
        stored = {"type": "trace", "id": "ask-trace", **asked, "stored_at": ack["sent_at"]}
        assert trace == stored
        clock.advance(60)
        start = f"{a.connected['cursor'].rpartition('.')[0]}.0"
        async with gateway.resuming(bob, start) as b:
            await b.collect("resumed")
            trace = await a.ask("trace", **asked)
            delivered = {"delivered_to_connections": 1, "delivered_at": "2027-01-15T08:01:00.000Z"}
            assert trace == {**stored, **delivered}
            clock.advance(1)
            await b.send(type="received", **asked)
            await b.collect("receipt")
            clock.advance(1)
            await b.send(type="read", **asked)
            await b.collect("receipt")
        trace = await a.ask("trace", **asked)
        assert trace == {
            **stored,
            **delivered,
            "received_at": "2027-01-15T08:01:01.000Z",
            "read_at": "2027-01-15T08:01:02.000Z",
        }


async def test_live_delivery_is_known_at_once_with_how_many_devices_got_it(
    gateway: TestGateway, ann: FakeSession, bob: FakeSession, talk: ConversationId
) -> None:
    async with gateway.talking(ann) as a, gateway.talking_often(bob, 3):
        ack = await a.say(bob.user_id, "hello", "1")
        trace = await a.ask("trace", conversation=talk, seq=1)
        assert trace["delivered_to_connections"] == 3
        assert trace["delivered_at"] == ack["sent_at"]


async def test_trace_survives_a_restart(tmp_path: Path) -> None:
    async with running_gateway(tmp_path) as gateway:
        profile = gateway.profile
        ann, bob = profile.sign_up("ann"), profile.sign_up("bob")
        async with gateway.talking(ann) as a, gateway.talking(bob):
            await a.say(bob.user_id, "hello", "1")
    async with running_gateway(tmp_path, profile=profile) as gateway, gateway.talking(ann) as a:
        talk = conversation_id(ann.user_id, bob.user_id)
        assert (await a.ask("trace", conversation=talk, seq=1))["delivered_to_connections"] == 1


async def test_only_the_sender_may_ask(
    gateway: TestGateway, ann: FakeSession, bob: FakeSession, talk: ConversationId
) -> None:
    cid = gateway.profile.sign_up("cid")
    async with gateway.talking(ann) as a, gateway.talking(bob) as b, gateway.talking(cid) as c:
        await a.say(bob.user_id, "hello", "1")
        await b.expect("message")
        for client, conversation, seq in ((b, talk, 1), (c, talk, 1), (a, talk, 2), (a, "c_x", 1)):
            await client.send(type="trace", id="t", conversation=conversation, seq=seq)
            await client.expect_error("message_not_found", id="t", retryable=False)
