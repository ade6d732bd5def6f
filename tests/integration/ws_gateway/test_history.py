"""Asking for what was said: history and the list of conversations, over real sockets."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from shared.ids import UserId, conversation_id, new_user_id
from tests.support.client import Client, Frame
from tests.support.fake_profile import FakeSession
from tests.support.gateway import TestGateway, database_locked, running_gateway
from tests.support.talk import say


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[TestGateway]:
    async with running_gateway(tmp_path, database_busy_timeout_s=0.05) as gateway:
        yield gateway


@pytest.fixture
def ann(gateway: TestGateway) -> FakeSession:
    return gateway.profile.sign_up("ann")


@pytest.fixture
def bob(gateway: TestGateway) -> FakeSession:
    return gateway.profile.sign_up("bob")


async def history(client: Client, peer: UserId, **asked: object) -> Frame:
    return await client.ask("history", **{"with": peer, **asked})


def seqs(page: Frame) -> list[int]:
    return [message["seq"] for message in page["messages"]]


async def test_history_shows_both_sides_alike_and_says_what_was_changed(
    gateway: TestGateway, ann: FakeSession, bob: FakeSession
) -> None:
    conversation = conversation_id(ann.user_id, bob.user_id)
    async with gateway.talking(ann) as a, gateway.talking(bob) as b:
        for number, text in enumerate(["one", "two", "three"]):
            await a.say(bob.user_id, text, f"{number}")
        await a.send(type="edit", id="e", conversation=conversation, seq=1, text="mended")
        await a.expect("ack", id="e")
        await a.send(type="delete", id="d", conversation=conversation, seq=2)
        await a.expect("ack", id="d")
        page = await history(a, bob.user_id)
        await b.arrived()
        assert page == await history(b, ann.user_id)
        first, second, third = page["messages"]
        assert (first["text"], first["revision"], "edited_at" in first) == ("mended", 1, True)
        assert (second["text"], second["deleted"]) == ("", True)
        assert third == {
            "conversation": conversation,
            "seq": 3,
            "from": ann.user_id,
            "text": "three",
            "sent_at": third["sent_at"],
        }
        assert page["conversation"] == conversation
        assert page["more"] is False


async def test_history_pages_back_and_forth_without_gap_or_double_while_messages_arrive(
    gateway: TestGateway, ann: FakeSession, bob: FakeSession
) -> None:
    async with gateway.talking(ann) as a, gateway.talking(bob) as b:
        for number in range(25):
            await a.say(bob.user_id, f"{number}", f"{number}")
        await b.arrived()
        page = await history(b, ann.user_id, limit=10)
        collected = seqs(page)
        while page["more"]:
            await a.say(bob.user_id, "meanwhile", f"m{len(collected)}")
            await b.expect("message")
            page = await history(b, ann.user_id, limit=10, before=collected[0])
            collected = seqs(page) + collected
        assert collected == list(range(1, 26))
        page = await history(b, ann.user_id, limit=10, after=0)
        collected = seqs(page)
        while page["more"]:
            page = await history(b, ann.user_id, limit=10, after=collected[-1])
            collected += seqs(page)
        assert collected == list(range(1, 28))


@pytest.mark.parametrize(
    "asked",
    [
        {"limit": 0},
        {"limit": 201},
        {"limit": -1},
        {"limit": "5"},
        {"limit": 1.5},
        {"before": 0},
        {"before": 2**53},
        {"after": -1},
        {"before": 5, "after": 1},
        {"with": ""},
        {"with": "x" * 65},
        {"with": None},
    ],
)
async def test_history_out_of_bounds_is_refused_and_the_connection_stays(
    gateway: TestGateway, ann: FakeSession, bob: FakeSession, asked: dict[str, object]
) -> None:
    async with gateway.talking(ann) as a:
        await a.send(type="history", id="h", **{"with": bob.user_id, **asked})
        await a.expect_error("invalid_frame", id="h", retryable=False)
        assert seqs(await history(a, bob.user_id, limit=200)) == []


@pytest.mark.parametrize(
    "asked", [{"type": "history", "with": "u_x"}, {"type": "conversations"}, {"type": "search"}]
)
async def test_limit_may_be_null(
    gateway: TestGateway, ann: FakeSession, asked: dict[str, str]
) -> None:
    async with gateway.talking(ann) as a:
        await a.send(id="q", query="hi", before=None, after=None, limit=None, **asked)
        await a.expect(asked["type"], id="q")


async def test_nobody_reads_other_peoples_history(
    gateway: TestGateway, ann: FakeSession, bob: FakeSession
) -> None:
    cid = gateway.profile.sign_up("cid")
    async with gateway.talking(ann) as a, gateway.talking(cid) as c:
        await a.say(bob.user_id, "private", "1")
        for peer in (ann.user_id, bob.user_id, cid.user_id, new_user_id()):
            assert seqs(await history(c, peer)) == []


@pytest.mark.parametrize("text", ["x" * 4000, "\U0001f600" * 4000, "\x01" * 4000, '"' * 4000])
async def test_page_of_long_texts_is_cut_and_says_so(
    gateway: TestGateway, ann: FakeSession, bob: FakeSession, text: str
) -> None:
    """Each frame fits into what clients take by default, however the texts are escaped."""
    await say(gateway.gateway.stores.messages, ann.user_id, bob.user_id, *[text] * 200)
    async with gateway.talking(bob, max_size=2**20) as b:
        page = await history(b, ann.user_id, limit=200)
        collected = seqs(page)
        assert page["more"]
        assert collected[-1] == 200
        while page["more"]:
            page = await history(b, ann.user_id, limit=200, before=collected[0])
            collected = seqs(page) + collected
        assert collected == list(range(1, 201))
        page = await history(b, ann.user_id, limit=200, after=0)
        assert seqs(page)[0] == 1
        assert page["more"] is True


async def test_answers_come_in_the_order_of_asking(
    gateway: TestGateway, ann: FakeSession, bob: FakeSession
) -> None:
    async with gateway.talking(ann) as a:
        await a.say(bob.user_id, "one", "1")
        for number in range(60):
            kind = ["history", "conversations", "search", "blocks"][number % 4]
            await a.send(type=kind, id=f"{number}", query="one", **{"with": bob.user_id})
        for number in range(60):
            await a.expect(["history", "conversations", "search", "blocks"][number % 4])


async def test_too_many_questions_at_once_are_refused_one_by_one(
    gateway: TestGateway, ann: FakeSession
) -> None:
    gateway.profile.lookups.close()
    async with gateway.talking(ann) as a:
        await a.send(type="block", id="held", user=new_user_id())
        await gateway.profile.lookups.arrivals(1)
        for number in range(70):
            await a.send(type="blocks", id=f"{number}")
        for number in range(63, 70):
            error = await a.expect_error("overloaded", id=f"{number}", retryable=True)
            assert error["retry_after_ms"] > 0
        gateway.profile.lookups.open()
        await a.expect_error("recipient_not_found", id="held")
        for number in range(63):
            await a.expect("blocks", id=f"{number}")


async def test_conversation_list_shows_names_unread_and_marks(
    gateway: TestGateway, ann: FakeSession, bob: FakeSession
) -> None:
    conversation = conversation_id(ann.user_id, bob.user_id)
    async with gateway.talking(ann) as a, gateway.talking(bob) as b:
        for number in range(3):
            await a.say(bob.user_id, f"{number}", f"{number}")
        await b.send(type="read", conversation=conversation, seq=1)
        await b.send(type="received", conversation=conversation, seq=2)
        await b.collect("receipt")
        await b.expect("receipt")
        (item,) = (await b.ask("conversations"))["items"]
        assert (item["unread"], item["received"], item["read"]) == (2, 2, 1)
        assert (item["peer_received"], item["peer_read"]) == (0, 0)
        assert item["peer"] == {"id": ann.user_id, "username": "ann", "online": True}
        assert item["last_message"]["text"] == "2"
        (item,) = (await a.ask("conversations"))["items"]
        assert (item["unread"], item["peer_received"], item["peer_read"]) == (0, 2, 1)


async def test_conversation_pages_join_and_end(gateway: TestGateway, bob: FakeSession) -> None:
    async with contextlib.AsyncExitStack() as stack:
        b = await stack.enter_async_context(gateway.talking(bob))
        senders = [gateway.profile.sign_up(f"sender{n}") for n in range(7)]
        clients = [await stack.enter_async_context(gateway.talking(s)) for s in senders]
        for client in clients:
            await client.say(bob.user_id, "hi", "1")
        await b.arrived()
        names: list[str] = []
        after: dict[str, object] = {}
        while True:
            page = await b.ask("conversations", limit=3, **after)
            names += [item["peer"]["username"] for item in page["items"]]
            if "next" not in page:
                break
            after = {"after": page["next"]}
            await clients[-1].say(bob.user_id, "meanwhile", f"m{len(names)}")
            await b.expect("message")
        assert names == [f"sender{n}" for n in reversed(range(7))]


@pytest.mark.parametrize("after", ["x", "-1", "1.5", "", " 1", "9" * 30, "\u0661"])
async def test_made_up_page_cursor_is_refused(
    gateway: TestGateway, ann: FakeSession, after: str
) -> None:
    async with gateway.talking(ann) as a:
        for kind, more in (("conversations", {}), ("search", {"query": "x"})):
            await a.send(type=kind, id="c", after=after, **more)
            code = "invalid_cursor" if after else "invalid_frame"
            if (kind, after) == ("search", "1.5"):
                await a.expect("search", id="c")
            else:
                await a.expect_error(code, id="c")


async def test_list_without_the_profile_service_has_no_names_and_all_else(
    gateway: TestGateway, ann: FakeSession, bob: FakeSession
) -> None:
    async with gateway.talking(ann) as a:
        await a.say(bob.user_id, "hi", "1")
        gateway.profile.available = False
        (item,) = (await a.ask("conversations"))["items"]
        assert item["peer"] == {"id": bob.user_id}
        assert item["last_message"]["text"] == "hi"


async def test_what_cannot_be_read_now_may_be_asked_again(
    gateway: TestGateway, ann: FakeSession, bob: FakeSession
) -> None:
    async with gateway.talking(ann) as a:
        await a.say(bob.user_id, "hi", "1")
        with database_locked(gateway.database):
            assert seqs(await history(a, bob.user_id)) == [1]  # history waits for nothing
            await a.send(type="conversations", id="c")
            error = await a.expect_error("store_unavailable", id="c", retryable=True)
            assert error["retry_after_ms"] > 0
        assert len((await a.ask("conversations"))["items"]) == 1
        with database_locked(gateway.database):  # nothing waits to be caught up with: reads work
            assert seqs(await history(a, bob.user_id)) == [1]
            assert len((await a.ask("conversations"))["items"]) == 1


async def test_unread_is_exact_while_both_write_and_read(
    gateway: TestGateway, ann: FakeSession, bob: FakeSession
) -> None:
    conversation = conversation_id(ann.user_id, bob.user_id)

    async def write_and_read(client: Client, to: UserId) -> None:
        for number in range(40):
            await client.send(type="send", id=f"{number}", to=to, text="x")
            if number % 7 == 3:
                await client.send(type="read", conversation=conversation, seq=number)
        acks = 0
        while acks < 40:
            await client.collect("ack")
            acks += 1

    async with gateway.talking(ann) as a, gateway.talking(bob) as b:
        await asyncio.gather(write_and_read(a, bob.user_id), write_and_read(b, ann.user_id))
        await a.arrived()
        await b.arrived()
        page = await history(a, bob.user_id, limit=200)
        assert seqs(page) == list(range(1, 81))
        for client, user in ((a, ann.user_id), (b, bob.user_id)):
            (item,) = (await client.ask("conversations"))["items"]
            unread = [m for m in page["messages"] if m["seq"] > item["read"] and m["from"] != user]
            assert item["unread"] == len(unread)
