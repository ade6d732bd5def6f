"""Taking nothing from somebody any more."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from shared.ids import conversation_id, new_user_id
from tests.support.client import Client
from tests.support.fake_profile import FakeSession
from tests.support.gateway import TestGateway, running_gateway, stored_messages


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[TestGateway]:
    async with running_gateway(tmp_path, offline_after_s=0) as gateway:
        yield gateway


@pytest.fixture
def ann(gateway: TestGateway) -> FakeSession:
    return gateway.profile.sign_up("ann")


@pytest.fixture
def bob(gateway: TestGateway) -> FakeSession:
    return gateway.profile.sign_up("bob")


async def test_blocked_person_is_refused_until_unblocked(
    gateway: TestGateway, ann: FakeSession, bob: FakeSession
) -> None:
    async with gateway.talking(ann) as a, gateway.talking(bob) as b:
        first = await a.say(bob.user_id, "one", "1")
        await b.expect("message")
        await b.send(type="block", id="b", user=ann.user_id)
        await b.expect("done", id="b")
        assert (await b.ask("blocks"))["users"] == [ann.user_id]
        await a.send(type="send", id="2", to=bob.user_id, text="two")
        await a.expect_error("blocked", id="2", retryable=False)
        assert await a.say(bob.user_id, "one", "1") == {**first, "duplicate": True}
        page = await b.ask("history", **{"with": ann.user_id})
        assert [message["text"] for message in page["messages"]] == ["one"]
        await b.send(type="unblock", id="u", user=ann.user_id)
        await b.expect("done", id="u")
        assert (await b.ask("blocks"))["users"] == []
        assert (await a.say(bob.user_id, "two", "2"))["seq"] == 2
        await b.expect("message", text="two")


async def test_blocked_person_cannot_speak_through_an_edit(
    gateway: TestGateway, ann: FakeSession, bob: FakeSession
) -> None:
    conversation = conversation_id(ann.user_id, bob.user_id)
    async with gateway.talking(ann) as a, gateway.talking(bob) as b:
        await a.say(bob.user_id, "one", "1")
        await b.expect("message")
        await b.send(type="block", id="b", user=ann.user_id)
        await b.expect("done")
        await a.send(type="edit", id="e", conversation=conversation, seq=1, text="abuse")
        await a.expect_error("blocked", id="e", retryable=False)
        await a.send(type="delete", id="d", conversation=conversation, seq=1)
        await a.expect("ack", id="d")
        await b.expect("deleted", seq=1)


async def test_block_ends_typing_and_presence_both_ways(
    gateway: TestGateway, ann: FakeSession, bob: FakeSession
) -> None:
    async with gateway.talking(ann) as a, gateway.talking(bob) as b:
        await a.say(bob.user_id, "one", "1")
        await a.expect("presence", user=bob.user_id, online=True)
        await b.expect("message")
        await b.expect("presence", user=ann.user_id, online=True)
        await b.send(type="block", id="b", user=ann.user_id)
        await a.expect("presence", user=bob.user_id, online=False)
        await b.expect("done", id="b")
        await b.expect("presence", user=ann.user_id, online=False)
        for client, to in ((a, bob), (b, ann)):
            await client.send(type="typing", to=to.user_id, active=True)
            assert await client.arrived() == []
        assert await a.arrived() == await b.arrived() == []
        for client in (a, b):
            (item,) = (await client.ask("conversations"))["items"]
            assert {"online", "last_seen"} & set(item["peer"]) == set()
        await b.send(type="unblock", id="u", user=ann.user_id)
        await a.expect("presence", user=bob.user_id, online=True)


async def test_blocked_person_is_not_shown_what_the_blocker_reads(
    gateway: TestGateway, ann: FakeSession, bob: FakeSession
) -> None:
    talk = conversation_id(ann.user_id, bob.user_id)
    phone = gateway.profile.log_in(bob.user_id)
    async with gateway.talking(ann) as a, gateway.talking(bob) as b, gateway.talking(phone) as p:

        async def receipts(client: Client) -> list[tuple[int, int | None]]:
            frames = [frame for frame in await client.arrived() if frame["type"] == "receipt"]
            return [(frame["received"], frame.get("read")) for frame in frames]

        async def found() -> list[object]:
            """What Ann sees of Bob's reads when she lists, resumes and traces."""
            (item,) = (await a.ask("conversations"))["items"]
            async with gateway.resuming(ann, a.connected["cursor"]) as again:
                (receipt,) = [f for f in await again.collect("resumed") if f["type"] == "receipt"]
            trace = await a.ask("trace", conversation=talk, seq=1)
            return [item.get("peer_read"), receipt.get("read"), "read_at" in trace]

        for number in range(4):
            await a.say(bob.user_id, f"{number}", f"{number}")
        await b.send(type="read", conversation=talk, seq=1)
        await b.collect("receipt")
        await b.send(type="block", id="b", user=ann.user_id)
        await b.collect("done")
        for kind, seq in (("received", 3), ("read", 2)):
            await b.send(type=kind, conversation=talk, seq=seq)
            await b.collect("receipt")
        assert await receipts(a) == [(1, 1), (3, None)]
        assert await receipts(p) == [(1, 1), (3, 1), (3, 2)]
        assert await found() == [None, None, False]
        await b.send(type="unblock", id="u", user=ann.user_id)
        await b.collect("done")
        assert await found() == [2, 2, True]
        await b.send(type="read", conversation=talk, seq=4)
        await b.collect("receipt")
        assert await receipts(a) == [(4, 4)]


async def test_blocking_nobody_or_oneself_is_refused(
    gateway: TestGateway, ann: FakeSession
) -> None:
    async with gateway.talking(ann) as a:
        for user, code in (
            (new_user_id(), "recipient_not_found"),
            ("u_\u00e9", "recipient_not_found"),
            (ann.user_id, "recipient_is_sender"),
            ("", "invalid_frame"),
        ):
            await a.send(type="block", id="b", user=user)
            await a.expect_error(code, id="b", retryable=False)
        gateway.profile.available = False
        await a.send(type="block", id="b", user=new_user_id())
        await a.expect_error("verification_unavailable", id="b", retryable=True)


async def test_nothing_passes_once_the_block_is_confirmed(
    gateway: TestGateway, ann: FakeSession, bob: FakeSession
) -> None:
    """While the blocked one sends as fast as they can."""
    async with gateway.talking(ann) as a, gateway.talking(bob) as b:
        await a.say(bob.user_id, "first", "first")
        stop = asyncio.Event()

        async def keep_sending() -> None:
            number = 0
            while not stop.is_set():
                number += 1
                await a.send(type="send", id=f"{number}", to=bob.user_id, text="x")
                await a.socket.recv()

        sending = asyncio.create_task(keep_sending())
        for _ in range(5):
            await b.send(type="block", id="b", user=ann.user_id)
            await b.collect("done")
            before = len(stored_messages(gateway.database))
            await b.ask("history", **{"with": ann.user_id, "limit": 1})
            assert len(stored_messages(gateway.database)) == before
            await b.send(type="unblock", id="u", user=ann.user_id)
            await b.collect("done")
            await b.collect("message")
        stop.set()
        await sending


async def test_other_connections_are_told_to_ask_again(
    gateway: TestGateway, ann: FakeSession, bob: FakeSession
) -> None:
    async with (
        gateway.talking(ann) as a,
        gateway.talking(bob) as b,
        gateway.talking(bob) as phone,
    ):
        for request in ("block", "unblock"):
            await b.send(type=request, id=request, user=ann.user_id)
            await b.expect("done", id=request)
            await phone.expect("changed", what="blocks")
            blocked = (await b.ask("blocks"))["users"]
            assert (await phone.ask("blocks"))["users"] == blocked
        await b.send(type="block", id="nobody", user=new_user_id())
        await b.expect_error("recipient_not_found", id="nobody")
        for client in (a, b, phone):
            assert "changed" not in {frame["type"] for frame in await client.arrived()}
