"""Finding what was said, in one's own conversations alone."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from shared.ids import conversation_id
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


async def found(client: Client, query: str, **asked: object) -> list[str]:
    page = await client.ask("search", query=query, **asked)
    assert page["complete"] is True
    return [item["message"]["text"] for item in page["items"]]


async def test_message_is_found_at_once_with_peer_and_snippet(
    gateway: TestGateway, ann: FakeSession, bob: FakeSession
) -> None:
    async with gateway.talking(ann) as a, gateway.talking(bob) as b:
        await a.say(bob.user_id, "Meet me at the Café", "1")
        await b.expect("message")
        for client, peer in ((a, bob), (b, ann)):
            (item,) = (await client.ask("search", query="cafe"))["items"]
            assert item["peer"] == peer.user_id
            assert item["snippet"] == "Meet me at the «Café»"
            assert item["message"]["seq"] == 1


async def test_nobody_finds_what_others_said(
    gateway: TestGateway, ann: FakeSession, bob: FakeSession
) -> None:
    cid = gateway.profile.sign_up("cid")
    async with gateway.talking(ann) as a, gateway.talking(cid) as c:
        await a.say(bob.user_id, "secret plan u1 u2 u3", "1")
        await c.say(ann.user_id, "hello", "1")
        for query in ("secret", "u1", "u2", 'x" OR "secret', "people:u1", "secret*", "NOT hello"):
            assert await found(c, query) == []
            assert await found(c, query, **{"with": bob.user_id}) == []
            assert await found(c, query, **{"with": ann.user_id}) == []


@pytest.mark.parametrize(
    "query",
    ['"', "*", "(", "NEAR(", "a AND", "\x00", "{}:", "^", "-", "\\", "'; DROP TABLE m", "%"],
)
async def test_whatever_is_typed_is_a_search_and_never_an_error(
    gateway: TestGateway, ann: FakeSession, query: str
) -> None:
    async with gateway.talking(ann) as a:
        assert await found(a, query) == []


@pytest.mark.parametrize("query", ["", "x" * 201, None, 5])
async def test_query_out_of_bounds_is_refused(
    gateway: TestGateway, ann: FakeSession, query: object
) -> None:
    async with gateway.talking(ann) as a:
        await a.send(type="search", id="s", query=query)
        await a.expect_error("invalid_frame", id="s")


async def test_edited_and_deleted_text_is_found_no_more(
    gateway: TestGateway, ann: FakeSession, bob: FakeSession
) -> None:
    conversation = conversation_id(ann.user_id, bob.user_id)
    async with gateway.talking(ann) as a:
        await a.say(bob.user_id, "old words", "1")
        await a.say(bob.user_id, "doomed words", "2")
        assert len(await found(a, "words")) == 2
        await a.send(type="edit", id="e", conversation=conversation, seq=1, text="new words")
        await a.expect("ack", id="e")
        await a.send(type="delete", id="d", conversation=conversation, seq=2)
        await a.expect("ack", id="d")
        assert await found(a, "old") == await found(a, "doomed") == []
        assert await found(a, "words") == ["new words"]


async def test_pages_join_without_double_while_messages_arrive(
    gateway: TestGateway, ann: FakeSession, bob: FakeSession
) -> None:
    async with gateway.talking(ann) as a:
        for number in range(12):
            await a.say(bob.user_id, f"word {'x ' * number}", f"{number}")
        seqs: list[int] = []
        more: dict[str, str] = {}
        while True:
            page = await a.ask("search", query="word", limit=5, **more)
            seqs += [item["message"]["seq"] for item in page["items"]]
            if "next" not in page:
                break
            more = {"after": page["next"]}
            await a.say(bob.user_id, "word", f"m{len(seqs)}")
        assert seqs == list(range(1, 13))
        assert len(json.dumps(page)) < 2**20
