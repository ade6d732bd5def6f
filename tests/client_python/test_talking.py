"""Two people talk through both real services."""

import asyncio
import contextlib
import json
from pathlib import Path

import pytest

import duet_client
from duet_client import NewMessage, Tokens
from tests.client_python.services import PASSWORD, Duet, expect


async def test_message_sent_by_name_arrives(
    duet: Duet, ann: Tokens, bob: Tokens, tmp_path: Path
) -> None:
    async with duet.connect(ann, tmp_path / "a") as a, duet.connect(bob, tmp_path / "b") as b:
        outgoing = await a.send(bob.username.upper(), "hi")
        ack = await outgoing.acknowledged()
        message = await expect(b, NewMessage)
        assert (message.text, message.sender, message.seq) == ("hi", ann.user_id, ack.seq)
        sent = await expect(a, duet_client.MessageSent)
        assert (sent.id, sent.text) == (outgoing.id, "hi")
        assert a.queued == []


async def test_history_conversations_and_search_tell_what_was_said(
    duet: Duet, ann: Tokens, bob: Tokens, tmp_path: Path
) -> None:
    async with duet.connect(ann, tmp_path / "a") as a, duet.connect(bob, tmp_path / "b") as b:
        for text in ("one", "two", "three apples"):
            last = await (await a.send(bob.username, text)).acknowledged()
        page = await b.history(ann.username, limit=2)
        assert [m.text for m in page.messages] == ["two", "three apples"]
        assert page.more
        older = await b.history(ann.user_id, before=page.messages[0].seq)
        assert [m.text for m in older.messages] == ["one"]
        (item,) = (await b.conversations()).items
        assert (item.peer.username, item.unread) == (ann.username, 3)
        async with asyncio.timeout(10):
            while not (found := await b.search("apples")).items:
                assert not found.complete
        assert found.items[0].message.seq == last.seq
        lines = [line async for line in b.export()]
        assert len(lines) == 4


async def test_exported_line_is_whole_whatever_separators_its_text_holds(
    duet: Duet, ann: Tokens, bob: Tokens, tmp_path: Path
) -> None:
    text = "one\u2028two\u2029three\u0085four\nfive"
    async with duet.connect(ann, tmp_path / "a") as a:
        await (await a.send(bob.username, text)).acknowledged()
        _head, message = [json.loads(line) async for line in a.export()]
    assert message["text"] == text


async def test_edit_and_delete_reach_the_other(
    duet: Duet, ann: Tokens, bob: Tokens, tmp_path: Path
) -> None:
    async with duet.connect(ann, tmp_path / "a") as a, duet.connect(bob, tmp_path / "b") as b:
        ack = await (await a.send(bob.username, "helo")).acknowledged()
        await (await a.edit(ack.conversation, ack.seq, "hello")).acknowledged()
        assert (await expect(b, duet_client.MessageEdited)).text == "hello"
        await (await a.delete(ack.conversation, ack.seq)).acknowledged()
        assert (await expect(b, duet_client.MessageDeleted)).seq == ack.seq
        with pytest.raises(duet_client.NotAuthor):
            await (await b.edit(ack.conversation, ack.seq, "mine")).acknowledged()


async def test_handled_message_is_marked_received_and_mark_read_reaches_the_author(
    duet: Duet, ann: Tokens, bob: Tokens, tmp_path: Path
) -> None:
    async with duet.connect(ann, tmp_path / "a") as a, duet.connect(bob, tmp_path / "b") as b:
        ack = await (await a.send(bob.username, "hi")).acknowledged()
        await expect(b, NewMessage)
        receipt = await expect(a, duet_client.Receipt)
        assert (receipt.received, receipt.read) == (ack.seq, 0)
        await b.mark_read(ack.conversation, ack.seq)
        assert (await expect(a, duet_client.Receipt)).read == ack.seq
        trace = await a.trace(ack.conversation, ack.seq)
        assert trace.read_at is not None


async def test_typing_presence_and_preferences(
    duet: Duet, ann: Tokens, bob: Tokens, tmp_path: Path
) -> None:
    async with duet.connect(ann, tmp_path / "a") as a:
        await (await a.send(bob.username, "hi")).acknowledged()
        async with duet.connect(bob, tmp_path / "b") as b:
            assert (await expect(a, duet_client.Presence)).online
            await b.typing(ann.username)
            assert (await expect(a, duet_client.Typing)).sender == bob.user_id
            assert not (await b.preferences(share_reads=False)).share_reads


async def test_blocked_person_cannot_write(
    duet: Duet, ann: Tokens, bob: Tokens, tmp_path: Path
) -> None:
    async with duet.connect(ann, tmp_path / "a") as a, duet.connect(bob, tmp_path / "b") as b:
        await b.block(ann.username)
        assert await b.blocks() == [ann.user_id]
        with pytest.raises(duet_client.Blocked):
            await (await a.send(bob.username, "hi")).acknowledged()
        await b.unblock(ann.username)
        await (await a.send(bob.username, "hi")).acknowledged()


async def test_other_device_is_told_what_to_ask_for_again(
    duet: Duet, ann: Tokens, bob: Tokens, tmp_path: Path
) -> None:
    async with duet.connect(ann, tmp_path / "a") as a, duet.connect(ann, tmp_path / "b") as b:
        await a.block(bob.username)
        assert (await expect(b, duet_client.SettingChanged)).what == "blocks"
        assert await b.blocks() == [bob.user_id]
        await b.preferences(share_reads=False)
        assert (await expect(a, duet_client.SettingChanged)).what == "preferences"
        assert not (await a.preferences()).share_reads


async def test_refusal_that_nobody_waited_for_comes_as_an_event_until_it_is_handled(
    duet: Duet, ann: Tokens, tmp_path: Path
) -> None:
    async with duet.connect(ann, tmp_path / "a") as a:
        outgoing = await a.send("nobody-at-all", "hi")
        async with asyncio.timeout(10):
            async for event in a.events():
                if isinstance(event, duet_client.SendFailed):
                    break
    async with duet.connect(ann, tmp_path / "a") as a:
        failed = await expect(a, duet_client.SendFailed)
        assert (failed.id, failed.text) == (outgoing.id, "hi")
        assert isinstance(failed.error, duet_client.RecipientNotFound)
    async with duet.connect(ann, tmp_path / "a") as a:
        assert isinstance(await anext(a.events()), duet_client.ConnectionRestored)


async def test_refusal_that_somebody_waited_for_is_raised_and_forgotten(
    duet: Duet, ann: Tokens, tmp_path: Path
) -> None:
    async with duet.connect(ann, tmp_path / "a") as a:
        with pytest.raises(duet_client.RecipientNotFound):
            await (await a.send("nobody-at-all", "hi")).acknowledged()
        with pytest.raises(duet_client.RecipientIsSender):
            await (await a.send(ann.username, "hi")).acknowledged()
        with pytest.raises(duet_client.UserNotFound):
            await a.history("nobody-at-all")
    async with duet.connect(ann, tmp_path / "a") as a:
        assert isinstance(await anext(a.events()), duet_client.ConnectionRestored)


@pytest.mark.parametrize("name", ["", "..", "a/b", "bob smith", "b%6Fb?", "x" * 300])
async def test_message_to_what_is_nobodys_name_is_refused(
    duet: Duet, ann: Tokens, tmp_path: Path, name: str
) -> None:
    async with duet.connect(ann, tmp_path / "a") as a:
        outgoing = await a.send(name, "hi")
        with pytest.raises(duet_client.RecipientNotFound):
            async with asyncio.timeout(10):
                await outgoing.acknowledged()
        assert a.queued == []


@pytest.mark.parametrize("text", ["", "x" * 4001, "\x00", "\ud800"])
async def test_text_that_no_gateway_takes_is_refused_before_it_is_queued(
    duet: Duet, ann: Tokens, tmp_path: Path, text: str
) -> None:
    async with duet.connect(ann, tmp_path / "a") as a:
        with pytest.raises(duet_client.InvalidRequest):
            await a.send("bob", text)
        assert a.queued == []


async def test_unhandled_event_comes_again_and_a_handled_one_does_not(
    duet: Duet, ann: Tokens, bob: Tokens, tmp_path: Path
) -> None:
    async with duet.connect(ann, tmp_path / "a") as a, duet.connect(bob, tmp_path / "b"):
        for text in ("first", "second"):
            await (await a.send(bob.username, text)).acknowledged()
    async with duet.connect(bob, tmp_path / "b") as b:
        seen = []
        async with asyncio.timeout(10):
            async for event in b.events():
                if isinstance(event, NewMessage):
                    seen.append(event.text)
                    if event.text == "second":
                        break
        assert seen == ["first", "second"]
        assert (await expect(b, NewMessage)).text == "second"
    async with duet.connect(ann, tmp_path / "a") as a, duet.connect(bob, tmp_path / "b") as b:
        await (await a.send(bob.username, "third")).acknowledged()
        assert (await expect(b, NewMessage)).text == "third"


async def test_own_message_comes_to_other_devices_and_not_to_the_one_that_sent_it(
    duet: Duet, ann: Tokens, bob: Tokens, tmp_path: Path
) -> None:
    async with duet.connect(ann, tmp_path / "a") as a, duet.connect(ann, tmp_path / "a2") as other:
        outgoing = await a.send(bob.username, "hi")
        await outgoing.acknowledged()
        echo = await expect(other, NewMessage)
        assert (echo.id, echo.sender) == (outgoing.id, ann.user_id)
    async with duet.connect(bob, tmp_path / "b") as b, duet.connect(ann, tmp_path / "a") as a:
        await (await b.send(ann.username, "hi too")).acknowledged()
        assert (await expect(a, NewMessage)).text == "hi too"


async def test_state_file_is_one_client_and_one_users(
    duet: Duet, ann: Tokens, bob: Tokens, tmp_path: Path
) -> None:
    async with duet.connect(ann, tmp_path / "a"):
        with pytest.raises(duet_client.StateInUse):
            async with duet.connect(ann, tmp_path / "a"):
                pass
    with pytest.raises(duet_client.WrongState):
        async with duet.connect(bob, tmp_path / "a"):
            pass
    (tmp_path / "rubbish").write_bytes(b"rubbish" * 1000)
    with pytest.raises(duet_client.StateError):
        async with duet.connect(bob, tmp_path / "rubbish"):
            pass


async def test_account_changes_its_profile_password_and_devices(duet: Duet) -> None:
    tokens = await duet.sign_up("carl")
    with pytest.raises(duet_client.ValuesRefused, match="password"):
        await duet_client.sign_up(duet.profile_url, "dora", "short", trust_env=False)
    with pytest.raises(duet_client.UsernameTaken):
        await duet_client.sign_up(duet.profile_url, tokens.username, PASSWORD, trust_env=False)
    with pytest.raises(duet_client.InvalidCredentials):
        await duet_client.log_in(duet.profile_url, tokens.username, "wrong", trust_env=False)
    async with duet_client.Account(duet.profile_url, tokens, trust_env=False) as me:
        profile, revision = await me.profile_with_revision()
        assert profile.username == tokens.username
        changed = await me.update_profile(display_name="Carl", if_revision=revision)
        assert changed.display_name == "Carl"
        with pytest.raises(duet_client.ProfileChanged):
            await me.update_profile(display_name="Karl", if_revision=revision)
        found = [user.username async for user in me.find_users(tokens.username[:8])]
        assert tokens.username in found
        other = await duet_client.log_in(
            duet.profile_url, tokens.username, PASSWORD, device_name="other", trust_env=False
        )
        devices = await me.devices()
        assert [d.current for d in devices] == [True, False]
        await me.log_out_device(other.session_id)
        with pytest.raises(duet_client.SessionNotFound):
            await me.log_out_device(other.session_id)
        with pytest.raises(duet_client.WrongPassword):
            await me.change_password("wrong", "another horse battery")
        await me.change_password(PASSWORD, "another horse battery")
        assert len(await me.devices()) == 1
        await me.delete_account("another horse battery")
        with pytest.raises(duet_client.LoginRequired):
            await me.profile()


async def test_client_of_a_session_that_was_logged_out_everywhere_stops_and_says_so(
    duet: Duet, ann: Tokens, tmp_path: Path
) -> None:
    async with duet.connect(ann, tmp_path / "a") as a:
        async with duet_client.Account(duet.profile_url, ann, trust_env=False) as account:
            await account.log_out_everywhere()
        with pytest.raises(duet_client.LoginRequired):
            await expect(a, NewMessage)
        with pytest.raises(duet_client.LoginRequired):
            await a.conversations()
        outgoing = await a.send("bob", "kept for later")
        assert [row.id for row in a.queued] == [outgoing.id]
        with pytest.raises(duet_client.LoginRequired):
            async with asyncio.timeout(10):
                await outgoing.acknowledged()
    with pytest.raises(duet_client.LoginRequired):
        async with duet.connect(ann, tmp_path / "a"):
            pass


async def test_closed_client_ends_its_reader_and_says_that_it_is_closed(
    duet: Duet, ann: Tokens, bob: Tokens, tmp_path: Path
) -> None:
    taken, closed = asyncio.Event(), asyncio.Event()

    async def read(client: duet_client.Client) -> None:
        async for event in client.events():
            if isinstance(event, NewMessage):
                taken.set()
                await closed.wait()

    async with duet.connect(bob, tmp_path / "b") as b:
        async with duet.connect(ann, tmp_path / "a") as a:
            reader = asyncio.create_task(read(a))
            await b.send(ann.username, "hi")
            await taken.wait()
        closed.set()
        await reader
    with pytest.raises(duet_client.ClientClosed):
        await a.send(bob.username, "hi")
    with pytest.raises(duet_client.ClientClosed):
        await a.history(bob.username)


async def test_clients_close_within_a_second_and_leave_no_task(
    duet: Duet, ann: Tokens, tmp_path: Path
) -> None:
    before = asyncio.all_tasks()
    async with duet.connect(ann, tmp_path / "a") as a:
        await a.send("nobody-yet", "hi")
        with contextlib.suppress(TimeoutError, duet_client.UserNotFound):
            async with asyncio.timeout(0.01):
                await a.history("nobody-yet")
        started = asyncio.get_running_loop().time()
    assert asyncio.get_running_loop().time() - started < 1
    assert asyncio.all_tasks() == before


async def test_nobody_there_is_said_in_time_and_what_was_sent_stays_queued(
    duet: Duet, ann: Tokens, tmp_path: Path
) -> None:
    nowhere = "ws://127.0.0.1:1/v1/ws"
    with pytest.raises(duet_client.ServiceUnreachable, match="cannot connect"):
        async with duet.connect(ann, tmp_path / "a", gateway_url=nowhere, connect_timeout_s=0.2):
            pass
    async with duet.connect(ann, tmp_path / "a", gateway_url=nowhere, connect_timeout_s=0) as a:
        outgoing = await a.send("bob", "hi")
    async with duet.connect(
        ann, tmp_path / "a", gateway_url=nowhere, connect_timeout_s=0, answer_timeout_s=0.05
    ) as a:
        assert [row.id for row in a.queued] == [outgoing.id]
        with pytest.raises(duet_client.NoAnswer):
            await a.conversations()
