"""What a stored database holds, made through the stores, and how one finds it again."""

from collections.abc import Awaitable, Callable
from pathlib import Path

from shared.ids import conversation_id
from tests.support.profile_service import PASSWORD, fast_settings, running_service
from tests.support.talk import ANN, BOB, CID, delete, edit, every_event, mark, say
from ws_gateway.adapters.sqlite_stores import open_sqlite_stores
from ws_gateway.conversations import Appended, Draft, EventKind

__all__ = ["CHECKED", "MADE"]

_PASSWORDS = {"Ann": PASSWORD, "bob": PASSWORD}


async def _make_messages(path: Path) -> None:
    async with open_sqlite_stores(path) as stores:
        log = stores.messages
        first, second, third = await say(log, ANN, BOB, "hello", "secret", "old text")
        await say(log, BOB, ANN, "an answer", at_ms=2)
        await say(log, CID, ANN, "somebody else", at_ms=3)
        await stores.search.catch_up()
        await edit(log, third, "new text", request_id="edit")
        await delete(log, second, request_id="delete")
        await mark(log, BOB, ANN, 1, read=True)
        log.note_deliveries([(first.position, 2)], 5)
        await stores.search.catch_up()
        await stores.people.block(ANN, CID, 6)
        await stores.people.follow_feed("12")


async def _check_messages(path: Path) -> None:
    async with open_sqlite_stores(path) as stores:
        log, archive = stores.messages, stores.archive
        page = await archive.history(ANN, BOB, before=None, after=None, limit=10)
        assert [(m.seq, m.sender, m.text, m.deleted, m.revision) for m in page.messages] == [
            (1, ANN, "hello", False, 0),
            (2, ANN, "", True, 1),
            (3, ANN, "new text", False, 1),
            (4, BOB, "an answer", False, 0),
        ]
        assert [event.kind for event in await every_event(log, ANN)] == (
            [EventKind.SENT] * 5 + [EventKind.EDITED, EventKind.DELETED]
        )
        listed = await archive.conversations(ANN, None, 10)
        assert {one.last_message.text for one in listed} == {"an answer", "somebody else"}
        for word, texts in {
            "new": ["new text"],
            "old": [],
            "secret": [],
            "answer": ["an answer"],
        }.items():
            found = await archive.search(BOB, word, ANN, upto=None, offset=0, limit=10)
            assert [hit.message.text for hit in found.hits] == texts, word
        trace = await archive.trace(ANN, conversation_id(ANN, BOB), 1)
        assert trace is not None
        assert (trace.delivered_connections, trace.read_at_ms) == (2, 3)
        assert await stores.people.blocks(ANN) == [CID]
        assert await stores.people.feed_event_id() == "12"
        (repeated,) = await log.append_batch(
            [Draft(ANN, BOB, page.messages[0].client_id, "hello")], 9
        )
        assert isinstance(repeated, Appended)
        assert repeated.duplicate
        (message,) = await say(log, BOB, ANN, "goes on", at_ms=9)
        assert message.seq == 5
        assert await delete(log, message)
        await stores.tidy_up(lambda: False)


async def _make_users(path: Path) -> None:
    async with running_service(fast_settings(path.parent)) as service:
        for username, password in _PASSWORDS.items():
            await service.sign_up(username, password=password)
        granted = await service.log_in("ann", device_name="phone")
        await service.client.patch(
            "/v1/users/me",
            json={"bio": "here since then"},
            headers={
                "Authorization": f"Bearer {granted['access_token']}",
                "Content-Type": "application/merge-patch+json",
            },
        )


async def _check_users(path: Path) -> None:
    async with running_service(fast_settings(path.parent)) as service:
        for username, password in _PASSWORDS.items():
            granted = await service.log_in(username, password=password)
            assert granted["user"]["username"] == username
        headers = {"Authorization": f"Bearer {(await service.log_in('ann'))['access_token']}"}
        me = (await service.client.get("/v1/users/me", headers=headers)).json()
        assert me["bio"] == "here since then"
        sessions = (await service.client.get("/v1/sessions", headers=headers)).json()
        assert "phone" in {session["device_name"] for session in sessions["sessions"]}
        await service.sign_up("cid")


Step = Callable[[Path], Awaitable[None]]
MADE: dict[str, Step] = {"messages": _make_messages, "users": _make_users}
CHECKED: dict[str, Step] = {"messages": _check_messages, "users": _check_users}
