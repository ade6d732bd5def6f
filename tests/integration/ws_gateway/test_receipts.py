"""Received and read: marks that only move forward, shown to the peer and to one's own devices."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from shared.ids import ConversationId, conversation_id
from tests.support.client import Client
from tests.support.fake_profile import FakeSession
from tests.support.gateway import TestGateway, running_gateway


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[TestGateway]:
    async with running_gateway(tmp_path) as gateway:
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


async def receipts(client: Client) -> list[tuple[int, int | None]]:
    """The marks of the receipts that have arrived."""
    frames = [frame for frame in await client.arrived() if frame["type"] == "receipt"]
    return [(frame["received"], frame.get("read")) for frame in frames]


async def test_marks_reach_the_peer_and_the_other_devices_and_answer_the_one(
    gateway: TestGateway, ann: FakeSession, bob: FakeSession, talk: ConversationId
) -> None:
    phone = gateway.profile.log_in(bob.user_id)
    async with gateway.talking(ann) as a, gateway.talking(bob) as b, gateway.talking(phone) as p:
        await a.say(bob.user_id, "one", "1")
        for client in (b, p):
            await client.expect("message")
        await b.send(type="received", conversation=talk, seq=1, id="r1")
        moved = {"type": "receipt", "conversation": talk, "user": bob.user_id, "received": 1}
        assert await b.expect("receipt") == {**moved, "read": 0, "id": "r1"}
        assert await p.expect("receipt") == await a.expect("receipt") == {**moved, "read": 0}
        await p.send(type="read", conversation=talk, seq=1)
        assert await p.expect("receipt") == {**moved, "read": 1}
        assert await b.expect("receipt") == await a.expect("receipt") == {**moved, "read": 1}


async def test_badge_clears_on_every_device(
    gateway: TestGateway, ann: FakeSession, bob: FakeSession, talk: ConversationId
) -> None:
    phone = gateway.profile.log_in(bob.user_id)
    async with gateway.talking(ann) as a, gateway.talking(bob) as b, gateway.talking(phone) as p:
        for number in range(3):
            await a.say(bob.user_id, f"{number}", f"{number}")
        await b.send(type="read", conversation=talk, seq=3)
        await p.collect("receipt")
        (item,) = (await p.ask("conversations"))["items"]
        assert (item["unread"], item["read"]) == (0, 3)


async def test_marks_never_move_back_and_a_repeated_one_tells_nobody(
    gateway: TestGateway, ann: FakeSession, bob: FakeSession, talk: ConversationId
) -> None:
    async with gateway.talking(ann) as a, gateway.talking(bob) as b:
        for number in range(5):
            await a.say(bob.user_id, f"{number}", f"{number}")
            await b.expect("message")
        answers = []
        for kind, seq in [("read", 3), ("read", 3), ("received", 2), ("read", 1), ("received", 5)]:
            await b.send(type=kind, conversation=talk, seq=seq)
            answer = await b.expect("receipt")
            answers.append((answer["received"], answer["read"]))
        assert answers == [(3, 3), (3, 3), (3, 3), (3, 3), (5, 3)]
        assert await receipts(a) == [(3, 3), (5, 3)]


@pytest.mark.parametrize("kind", ["received", "read"])
async def test_mark_beyond_the_end_or_of_others_is_refused(
    gateway: TestGateway, ann: FakeSession, bob: FakeSession, talk: ConversationId, kind: str
) -> None:
    cid = gateway.profile.sign_up("cid")
    async with gateway.talking(ann) as a, gateway.talking(cid) as c:
        await a.say(bob.user_id, "one", "1")
        for client, conversation, seq in ((a, talk, 2), (c, talk, 1), (a, "c_none", 1)):
            await client.send(type=kind, id="m", conversation=conversation, seq=seq)
            await client.expect_error("message_not_found", id="m", retryable=False)
        for wrong in (0, -1, 2**53, "1", None):
            await a.send(type=kind, id="m", conversation=talk, seq=wrong)
            await a.expect_error("invalid_frame", id="m")


async def test_private_reads_show_nowhere_but_on_ones_own_devices(
    gateway: TestGateway, ann: FakeSession, bob: FakeSession, talk: ConversationId
) -> None:
    phone = gateway.profile.log_in(bob.user_id)
    async with gateway.talking(ann) as a, gateway.talking(bob) as b, gateway.talking(phone) as p:
        answer = await b.ask("preferences", share_reads=False)
        assert (answer["share_reads"], answer["share_presence"]) == (False, True)
        cursor = a.connected["cursor"]
        await a.say(bob.user_id, "one", "1")
        await a.say(bob.user_id, "two", "2")
        await b.send(type="received", conversation=talk, seq=1)
        await b.send(type="read", conversation=talk, seq=1)
        await b.send(type="read", conversation=talk, seq=2)
        for _ in range(3):
            await b.collect("receipt")
        assert await receipts(a) == [(1, None), (2, None)]
        assert await receipts(p) == [(1, 0), (1, 1), (2, 2)]
        (item,) = (await a.ask("conversations"))["items"]
        assert (item["peer_received"], "peer_read" in item) == (2, False)
        async with gateway.resuming(ann, cursor) as again:
            resumed = [f for f in await again.collect("resumed") if f["type"] == "receipt"]
            assert [(f["received"], "read" in f) for f in resumed] == [(2, False)]
        trace = await a.ask("trace", conversation=talk, seq=1)
        assert ("received_at" in trace, "read_at" in trace) == (True, False)


async def test_shared_again_reads_show_again(
    gateway: TestGateway, ann: FakeSession, bob: FakeSession, talk: ConversationId
) -> None:
    async with gateway.talking(ann) as a, gateway.talking(bob) as b:
        await a.say(bob.user_id, "one", "1")
        await b.expect("message")
        await b.ask("preferences", share_reads=False)
        assert (await b.ask("preferences"))["share_reads"] is False
        await b.ask("preferences", share_reads=True)
        await b.send(type="read", conversation=talk, seq=1)
        await b.expect("receipt")
        assert await receipts(a) == [(1, 1)]


async def test_two_devices_that_hide_different_things_at_once_hide_both(
    gateway: TestGateway, bob: FakeSession
) -> None:
    phone = gateway.profile.log_in(bob.user_id)
    async with gateway.talking(bob) as b, gateway.talking(phone) as p:
        for _ in range(20):
            await asyncio.gather(
                b.ask("preferences", share_reads=False), p.ask("preferences", share_presence=False)
            )
            now = await b.ask("preferences")
            assert (now["share_reads"], now["share_presence"]) == (False, False)
            await b.ask("preferences", share_reads=True, share_presence=True)
