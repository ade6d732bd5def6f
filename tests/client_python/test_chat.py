"""The full-screen chat, driven by Textual's pilot, against both real services."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from textual.events import Paste
from textual.pilot import Pilot
from textual.widgets import Static

from duet_client import Client, NewMessage, Tokens
from duet_client.cli.chat import Chat, MessageLine, MessageList
from tests.client_python.proxy import Proxy
from tests.client_python.services import Duet, expect, running_gateway_process
from tests.support.waiting import until


@contextlib.asynccontextmanager
async def _chatting(client: Client, peer: str) -> AsyncIterator[Pilot[None]]:
    app = Chat(client, peer)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(lambda: app.conversation.id is not None)
        yield pilot


def _shown(pilot: Pilot[None]) -> list[str]:
    messages = pilot.app.query_one("#messages", MessageList)
    return [str(line.content)[6:] for line in messages.query(MessageLine)]


def _text(pilot: Pilot[None], selector: str) -> str:
    return str(pilot.app.query_one(selector, Static).content)


async def _write(pilot: Pilot[None], text: str) -> None:
    await pilot.press(*text, "enter")


async def test_written_message_arrives_and_its_ticks_follow(
    duet: Duet, ann: Tokens, bob: Tokens, tmp_path: Path
) -> None:
    async with (
        duet.connect(ann, tmp_path / "a") as a,
        duet.connect(bob, tmp_path / "b") as b,
        _chatting(a, bob.username) as pilot,
    ):
        await _write(pilot, "hi")
        await until(lambda: _shown(pilot) == ["hi ✓"])
        message = await expect(b, NewMessage)
        assert message.text == "hi"
        await until(lambda: _shown(pilot) == ["hi ✓✓"])
        line = pilot.app.query_one(MessageLine)
        await b.mark_read(message.conversation, message.seq)
        await until(lambda: line.line.tick.name == "READ")
        assert pilot.app.query_one(MessageLine) is line


async def test_incoming_message_is_shown_and_read_and_changes_follow(
    duet: Duet, ann: Tokens, bob: Tokens, tmp_path: Path
) -> None:
    async with (
        duet.connect(ann, tmp_path / "a") as a,
        duet.connect(bob, tmp_path / "b") as b,
        _chatting(a, bob.username) as pilot,
    ):
        ack = await (await b.send(ann.username, "[b]helo[/b]\x1b[2J")).acknowledged()
        await until(lambda: _shown(pilot) == ["[b]helo[/b]\N{REPLACEMENT CHARACTER}[2J"])
        async with asyncio.timeout(10):
            while (await b.trace(ack.conversation, ack.seq)).read_at is None:
                pass
        await b.edit(ack.conversation, ack.seq, "hello")
        await until(lambda: _shown(pilot) == ["hello (edited)"])
        await b.typing(ann.username)
        await until(lambda: _text(pilot, "#typing") == f"{bob.username} is typing …")
        await b.delete(ack.conversation, ack.seq)
        await until(lambda: _shown(pilot) == ["deleted"])
        await until(lambda: _text(pilot, "#title") == f"{bob.username}  online")


async def test_older_messages_come_as_one_scrolls_back(
    duet: Duet, ann: Tokens, bob: Tokens, tmp_path: Path
) -> None:
    async with duet.connect(ann, tmp_path / "a") as a, duet.connect(bob, tmp_path / "b") as b:
        outgoing = [await b.send(ann.username, str(number)) for number in range(120)]
        await outgoing[-1].acknowledged()
        async with _chatting(a, bob.username) as pilot:
            await until(lambda: len(_shown(pilot)) == 50)
            messages = pilot.app.query_one("#messages", MessageList)
            # Mounted is not laid out yet, and what is not laid out is at its end, too.
            await until(lambda: messages.max_scroll_y > 0 and messages.is_vertical_scroll_end)
            while len(_shown(pilot)) < 120:
                await pilot.press("pageup")
            assert _shown(pilot) == [str(number) for number in range(120)]
            assert not messages.is_vertical_scroll_end


async def test_message_written_without_a_connection_waits_in_sight_and_goes_out(
    duet: Duet, ann: Tokens, bob: Tokens, tmp_path: Path
) -> None:
    async with Proxy.before(duet.gateway.url) as proxy, duet.connect(bob, tmp_path / "b") as b:
        async with (
            duet.connect(ann, tmp_path / "a", gateway_url=proxy.url) as a,
            _chatting(a, bob.username) as pilot,
        ):
            target, proxy.target = proxy.target, "ws://127.0.0.1:1"
            proxy.cut()
            await until(lambda: "No connection" in _text(pilot, "#banner"))
            await _write(pilot, "later")
            await until(lambda: _shown(pilot) == ["later …"])
            proxy.target = target
            await until(lambda: _shown(pilot) == ["later ✓"] or _shown(pilot) == ["later ✓✓"])
            assert _text(pilot, "#banner") == ""
        assert (await expect(b, NewMessage)).text == "later"


async def test_nobody_is_online_while_there_is_no_connection(
    duet: Duet, ann: Tokens, bob: Tokens, tmp_path: Path
) -> None:
    async with Proxy.before(duet.gateway.url) as proxy, duet.connect(bob, tmp_path / "b") as b:
        await (await b.send(ann.username, "hi")).acknowledged()
        async with (
            duet.connect(ann, tmp_path / "a", gateway_url=proxy.url) as a,
            _chatting(a, bob.username) as pilot,
        ):
            await until(lambda: _text(pilot, "#title") == f"{bob.username}  online")
            target, proxy.target = proxy.target, "ws://127.0.0.1:1"
            proxy.cut()
            await until(lambda: _text(pilot, "#title") == bob.username)
            proxy.target = target
            await until(lambda: _text(pilot, "#title") == f"{bob.username}  online")


async def test_other_database_of_the_gateway_shows_its_own_messages(
    duet: Duet, ann: Tokens, bob: Tokens, tmp_path: Path, shared_data: Path
) -> None:
    with running_gateway_process(
        tmp_path / "other",
        duet.profile_url,
        DUET_SERVICE_SECRET_FILE=str(shared_data / "service_secret"),
    ) as other:
        async with Duet(duet.profile_url, other).connect(bob, ":memory:") as b:
            await (await b.send(ann.username, "of the other")).acknowledged()
        async with Proxy.before(duet.gateway.url) as proxy, duet.connect(bob, ":memory:") as b:
            await (await b.send(ann.username, "of the one")).acknowledged()
            await (await b.send(ann.username, "of the one alone")).acknowledged()
            async with (
                duet.connect(ann, tmp_path / "a", gateway_url=proxy.url) as a,
                _chatting(a, bob.username) as pilot,
            ):
                await until(lambda: _shown(pilot) == ["of the one", "of the one alone"])
                proxy.target = other.url
                proxy.cut()
                await until(lambda: _shown(pilot) == ["of the other"])


async def test_pasted_lines_are_all_sent(
    duet: Duet, ann: Tokens, bob: Tokens, tmp_path: Path
) -> None:
    async with duet.connect(ann, tmp_path / "a") as a, _chatting(a, bob.username) as pilot:
        pilot.app.post_message(Paste("one\r\ntwo\nthree"))
        await pilot.press("enter")
        await until(lambda: _shown(pilot) == ["one two three ✓"])


async def test_refused_message_stays_and_says_why(
    duet: Duet, ann: Tokens, bob: Tokens, tmp_path: Path
) -> None:
    async with duet.connect(bob, tmp_path / "b") as b:
        await b.block(ann.username)
    async with duet.connect(ann, tmp_path / "a") as a, _chatting(a, bob.username) as pilot:
        await _write(pilot, "hi")
        await until(lambda: "✗ This person does not take messages" in "".join(_shown(pilot)))


@pytest.mark.parametrize("key", ["escape"])
async def test_escape_leaves(
    duet: Duet, ann: Tokens, bob: Tokens, tmp_path: Path, key: str
) -> None:
    async with duet.connect(ann, tmp_path / "a") as a, _chatting(a, bob.username) as pilot:
        await pilot.press(key)
        await until(lambda: not pilot.app.is_running)
