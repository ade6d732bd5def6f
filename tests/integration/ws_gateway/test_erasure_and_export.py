"""People who delete their account, and people who want all they ever said."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from shared.ids import conversation_id
from tests.support.client import Client, Frame
from tests.support.engines import ON_SCALE
from tests.support.fake_profile import FakeProfile, FakeSession
from tests.support.gateway import TestGateway, database_locked, running_gateway, stored_messages
from tests.support.talk import search_index_is_sound
from tests.support.waiting import until
from ws_gateway import erasure
from ws_gateway.messenger import Messenger


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


def texts(path: Path) -> list[str]:
    return [text for _, _, _, text in stored_messages(path)]


async def erased(gateway: TestGateway) -> None:
    """Wait until nobody is left to be erased."""
    people = gateway.gateway.stores.people
    async with asyncio.timeout(20):
        while await people.users_to_erase():  # noqa: ASYNC110 - there is no event for it
            await asyncio.sleep(0.005)


async def test_deleted_persons_words_are_gone_and_the_talk_stays(
    gateway: TestGateway, ann: FakeSession, bob: FakeSession
) -> None:
    conversation = conversation_id(ann.user_id, bob.user_id)
    async with gateway.talking(ann) as a, gateway.talking(bob) as b:
        await a.say(bob.user_id, "hers one", "1")
        await b.expect("message")
        await b.say(ann.user_id, "his", "1")
        await a.expect("message")
        await a.say(bob.user_id, "hers two", "2")
        before = (await b.expect("message"))["cursor"]
        assert len((await b.ask("search", query="hers"))["items"]) == 2
        gateway.profile.delete_user(ann.user_id)
        told = await b.expect("erased")
        assert told == {
            "type": "erased",
            "conversation": conversation,
            "user": ann.user_id,
            "cursor": told["cursor"],
        }
        await a.expect_error("session_ended")
        assert (await a.closed())[0] == 3000
        await erased(gateway)
        assert texts(gateway.database) == ["", "his", ""]
        page = await b.ask("history", **{"with": ann.user_id})
        assert [(m["seq"], m["text"], m.get("deleted", False)) for m in page["messages"]] == [
            (1, "", True),
            (2, "his", False),
            (3, "", True),
        ]
        (item,) = (await b.ask("conversations"))["items"]
        assert (item["peer"]["id"], "username" in item["peer"]) == (ann.user_id, False)
        assert (await b.ask("search", query="hers"))["items"] == []
        await b.send(type="send", id="2", to=ann.user_id, text="are you there?")
        await b.expect_error("recipient_not_found", id="2")
        async with gateway.resuming(bob, before) as again:
            assert await again.collect("resumed") == [told]
    assert ON_SCALE or search_index_is_sound(gateway.database)


@pytest.mark.parametrize("finishes_first", [True, False])
async def test_words_on_their_way_are_erased_too(
    gateway: TestGateway, ann: FakeSession, bob: FakeSession, finishes_first: bool
) -> None:
    """Sent before the account was deleted, stored after: held up by a look-up of the recipient."""
    cid = gateway.profile.sign_up("cid")
    async with gateway.talking(ann) as a, gateway.talking(bob) as b:
        await a.say(bob.user_id, "stored", "1")
        await b.expect("message")
        gateway.profile.lookups.close()
        await a.send(type="send", id="2", to=cid.user_id, text="on its way")
        await gateway.profile.lookups.arrivals(2)
        gateway.profile.delete_user(ann.user_id)
        await b.expect("erased")
        if finishes_first:
            await erased(gateway)
        gateway.profile.lookups.open()
        await erased(gateway)
        await b.ask("blocks")
        cid_again = gateway.profile.log_in(cid.user_id)
        async with gateway.talking(cid_again) as c:  # whose own words come after all of these
            await c.say(bob.user_id, "last", "1")
    assert texts(gateway.database)[0] == ""
    assert "on its way" not in texts(gateway.database)


async def test_gateway_that_was_down_erases_when_it_is_back(tmp_path: Path) -> None:
    profile = FakeProfile()
    ann, bob = profile.sign_up("ann"), profile.sign_up("bob")
    async with running_gateway(tmp_path, profile=profile) as gateway, gateway.talking(ann) as a:
        await a.say(bob.user_id, "secret", "1")
    profile.delete_user(ann.user_id)
    assert texts(gateway.database) == ["secret"]
    async with running_gateway(tmp_path, profile=profile) as gateway:
        await until(lambda: texts(gateway.database) == [""])
        await erased(gateway)


async def test_erasure_that_was_cut_short_goes_on_after_the_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    profile = FakeProfile()
    ann, bob = profile.sign_up("ann"), profile.sign_up("bob")
    parts = 0
    submit = Messenger.submit

    def submit_some(messenger: Messenger, change: Any, sender: Any) -> None:
        nonlocal parts
        parts += 1
        if parts <= 2:
            submit(messenger, change, sender)

    with monkeypatch.context() as patch:
        async with running_gateway(tmp_path, profile=profile) as gateway:
            for _ in range(7):
                await gateway.fill(ann.user_id, bob.user_id, *["secret"] * 500)
            async with gateway.talking(bob) as b:
                start = f"{b.connected['cursor'].rpartition('.')[0]}.0"
            patch.setattr(Messenger, "submit", submit_some)
            profile.delete_user(ann.user_id)
            await until(lambda: parts == 3)
    left = texts(gateway.database).count("secret")
    assert 0 < left < 3500
    async with running_gateway(tmp_path, profile=profile) as gateway:
        await until(lambda: "secret" not in texts(gateway.database))
        await erased(gateway)
        async with gateway.resuming(bob, start) as b:
            frames = await b.collect("resumed")
        assert [f["seq"] for f in frames if f["type"] == "message"] == list(range(1, 3501))
        assert not any(frame.get("text") for frame in frames)
        assert [frame["type"] for frame in frames].count("erased") == 1


async def test_erasure_waits_for_a_database_that_is_busy(
    gateway: TestGateway, ann: FakeSession, bob: FakeSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(erasure, "_RETRY_S", 0.01)
    await gateway.fill(ann.user_id, bob.user_id, "secret")
    await gateway.gateway.stores.people.follow_feed("1.0", [ann.user_id])
    with database_locked(gateway.database):
        gateway.gateway.eraser.wake()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.3):
                await erased(gateway)
        assert texts(gateway.database) == ["secret"]
    await erased(gateway)
    assert texts(gateway.database) == [""]


async def exported(client: Client) -> tuple[list[Frame], int]:
    """Ask for an export. Returns its lines and how many messages it says it has."""
    await client.send(type="export", id="x")
    lines = ""
    while True:
        frame = json.loads(await client.socket.recv())
        match frame["type"]:
            case "export":
                assert frame["lines"].endswith("\n")
                lines += frame["lines"]
            case "exported":
                return [json.loads(line) for line in lines.split("\n")[:-1]], frame["messages"]
            case other:
                assert other in ("message", "presence"), frame


async def test_export_holds_every_conversation_as_lines_of_json(
    gateway: TestGateway, ann: FakeSession, bob: FakeSession
) -> None:
    cid = gateway.profile.sign_up("cid")
    odd = ["line\nbreak", '"quotes"', "\u2028\u2029", "\x01", "\U0001f600", "\\"]
    await gateway.fill(ann.user_id, bob.user_id, *odd)
    await gateway.fill(cid.user_id, ann.user_id, "from Cid")
    await gateway.fill(cid.user_id, bob.user_id, "not hers to see")
    async with gateway.talking(ann) as a:
        await a.send(
            type="delete", id="d", conversation=conversation_id(ann.user_id, bob.user_id), seq=6
        )
        await a.expect("ack")
        lines, count = await exported(a)
    heads = [line for line in lines if "with" in line]
    assert {(head["with"], head["name"]) for head in heads} == {
        (bob.user_id, "bob"),
        (cid.user_id, "cid"),
    }
    messages = [line for line in lines if "with" not in line]
    with_bob = [
        m for m in messages if m["conversation"] == conversation_id(ann.user_id, bob.user_id)
    ]
    assert [m["text"] for m in with_bob] == [*odd[:5], ""]
    assert count == len(messages) == 7


async def test_export_of_somebody_new_is_empty(gateway: TestGateway, ann: FakeSession) -> None:
    async with gateway.talking(ann) as a:
        assert await exported(a) == ([], 0)


@pytest.mark.parametrize("text", ["x" * 4000, "\x01" * 4000, '"' * 4000])
async def test_export_comes_in_pieces_that_fit_and_misses_nothing(
    gateway: TestGateway, ann: FakeSession, bob: FakeSession, text: str
) -> None:
    for _ in range(2):
        await gateway.fill(ann.user_id, bob.user_id, *[text] * 250)
    async with gateway.talking(ann, max_size=2**20) as a:
        lines, count = await exported(a)
    assert [line["seq"] for line in lines[1:]] == list(range(1, 501))
    assert {line["text"] for line in lines[1:]} == {text}
    assert count == 500


async def test_export_is_complete_while_conversations_move_up(
    gateway: TestGateway, bob: FakeSession
) -> None:
    """The oldest conversation gets a message while the newest is exported."""
    peers = [gateway.profile.sign_up(f"peer{n}") for n in range(250)]
    for peer in peers:
        await gateway.fill(peer.user_id, bob.user_id, "hi")
    gateway.profile.lookups.close()
    async with gateway.talking(bob) as b:
        exporting = asyncio.create_task(exported(b))
        await gateway.profile.lookups.arrivals(1)
        await gateway.fill(peers[0].user_id, bob.user_id, "moves up")
        await gateway.fill(peers[-1].user_id, bob.user_id, "moves up")
        gateway.profile.lookups.open()
        lines, _ = await exporting
    assert {line["with"] for line in lines if "with" in line} == {p.user_id for p in peers}
    assert sum("with" in line for line in lines) == 250


async def test_vanishing_in_an_export_leaves_nothing_behind(
    gateway: TestGateway, ann: FakeSession, bob: FakeSession
) -> None:
    for _ in range(4):
        await gateway.fill(ann.user_id, bob.user_id, *["x" * 4000] * 1000)
    tasks_before = asyncio.all_tasks()
    async with gateway.talking(ann, max_size=2**20) as a:
        await a.send(type="export", id="x")
        await a.expect("export")
        a.vanish()
    await until(lambda: gateway.connections_of(ann.user_id) == 0)
    await until(lambda: asyncio.all_tasks() <= tasks_before)
