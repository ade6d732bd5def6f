"""An installation outgrows SQLite: everything is in PostgreSQL afterwards, and nobody notices."""

import asyncio
import contextlib
import random
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from shared.database import DatabaseUnavailable
from shared.ids import UserId
from shared.relocation import RelocationRefused
from tests.support.client import Client
from tests.support.fake_profile import FakeProfile
from tests.support.gateway import running_gateway
from tests.support.gateway_stores import PostgresEngine
from tests.support.postgres import Databases
from tests.support.talk import delete, edit, erase, every_event, mark, say
from ws_gateway.__main__ import main
from ws_gateway.adapters.postgres_stores import MIGRATIONS, SCHEMA, open_postgres_stores
from ws_gateway.adapters.relocation import move_to_postgres
from ws_gateway.adapters.sqlite_stores import SqliteStores, open_sqlite_stores
from ws_gateway.conversations import Appended, Draft, Event, Message
from ws_gateway.ports import Stores, Trace

USERS = [UserId(f"u_{n}") for n in range(6)]


@pytest.fixture
def url(postgres_databases: Databases) -> str:
    return postgres_databases.migrated(MIGRATIONS, SCHEMA)


def ignore(_table: str, _rows: int) -> None:
    """A report that nobody reads."""


async def live(stores: SqliteStores) -> None:
    """Let people do all that they can do."""
    choice = random.Random(5)
    messages: list[Message] = []
    for n in range(400):
        one, other = choice.sample(USERS[:5], 2)
        action = choice.random()
        if action < 0.6 or not messages:
            messages += await say(stores.messages, one, other, f"word{n % 7} No {n} 👋", at_ms=n)
            stores.messages.note_deliveries([(messages[-1].position, 1)], n)
        elif action < 0.75:
            await edit(stores.messages, choice.choice(messages), f"mended {n}", at_ms=n)
        elif action < 0.85:
            await delete(stores.messages, choice.choice(messages), at_ms=n)
        else:
            about = choice.choice(messages)
            people = (about.recipient, about.sender)
            await mark(stores.messages, *people, about.seq, read=n % 2 > 0, at_ms=n)
    await erase(stores.messages, USERS[4])
    await stores.people.set_preferences(USERS[1], shares_reads=False)
    await stores.people.set_last_seen(USERS[2], 777)
    await stores.people.block(USERS[0], USERS[5], 1)
    await stores.people.follow_feed("17", [USERS[3]])


Everything = dict[str, object]


async def everything(stores: Stores) -> Everything:
    """All that the ports tell, but for what names a message within its store."""
    told: Everything = {"epoch": stores.messages.epoch, "feed": await stores.people.feed_event_id()}
    told["erasures"] = await stores.people.users_to_erase()
    told["users"] = await stores.people.known_users(None, 100)
    for user in USERS:
        told[f"{user} preferences"] = await stores.people.preferences(user)
        told[f"{user} blocks"] = await stores.people.blocks(user)
        told[f"{user} position"] = await stores.messages.position_of(user)
        told[f"{user} list"] = [
            (s.peer, s.unread, s.received, s.read, s.peer_received, s.peer_read, s.last_message.seq)
            for s in await stores.archive.conversations(user, None, 100)
        ]
        told[f"{user} peers"] = (await stores.people.circle(user, 100)).peers
        events = await every_event(stores.messages, user, limit=50)
        told[f"{user} events"] = [(e.position_for(user), *shown(e)) for e in events]
        told[f"{user} receipts"] = sorted(await stores.messages.receipts_after(user, 0))
        page = await stores.archive.search(user, "word3", None, upto=None, offset=0, limit=200)
        told[f"{user} search"] = sorted(hit.message.text for hit in page.hits)
        for peer in USERS:
            history = await stores.archive.history(user, peer, before=None, after=0, limit=500)
            told[f"{user} {peer}"] = [fields(message) for message in history.messages]
            traces = [
                await stores.archive.trace(user, m.conversation, m.seq) for m in history.messages
            ]
            told[f"{user} {peer} traces"] = [steps(trace) for trace in traces]
    return told


def fields(message: Message) -> tuple[object, ...]:
    m = message
    return (
        m.conversation,
        m.seq,
        m.sender,
        m.client_id,
        m.text,
        m.sent_at_ms,
        m.revision,
        m.deleted,
    )


def shown(event: Event) -> tuple[object, ...]:
    return (event.kind, event.message.recipient, *fields(event.message))


def steps(trace: Trace | None) -> tuple[object, ...] | None:
    if trace is None:
        return None
    return (trace.delivered_at_ms, trace.received_at_ms, trace.read_at_ms)


@contextlib.asynccontextmanager
async def moved(data: Path, url: str) -> AsyncIterator[Stores]:
    await move_to_postgres(data, url, ignore)
    async with open_postgres_stores(url) as stores:
        yield stores


async def test_all_that_was_told_is_told_after_the_move(tmp_path: Path, url: str) -> None:
    async with open_sqlite_stores(tmp_path / "messages.db") as stores:
        await live(stores)
        before = await everything(stores)
        events = [e for user in USERS for e in await every_event(stores.messages, user)]
    async with moved(tmp_path, url) as there:
        assert await everything(there) == before
        assert PostgresEngine(url).search_is_sound()
        said = [e.message for e in events if e.message.client_id]
        for message in said[:50]:
            draft = Draft(message.sender, message.recipient, message.client_id, message.text)
            (again,) = await there.messages.append_batch([draft], 1)
            assert isinstance(again, Appended)
            assert again.duplicate
            assert fields(again.event.message) == fields(message)


async def test_logs_go_on_where_the_one_log_ended(tmp_path: Path, url: str) -> None:
    """For whoever was known there, and for whoever was not: both may hold its cursors."""
    async with open_sqlite_stores(tmp_path / "messages.db") as stores:
        await live(stores)
        end = stores.messages.position
    newcomer = UserId("u_new")
    async with moved(tmp_path, url) as there:
        assert await there.messages.position_of(newcomer) == end
        (message,) = await say(there.messages, USERS[0], newcomer, "after the move")
        for user in (USERS[0], newcomer):
            page = await there.messages.events_after(user, end, 10)
            assert [event.message for event in page.events] == [message]
            assert page.upto == end + 1
        assert await there.messages.position_of(USERS[1]) == end


async def test_what_a_crash_left_unsettled_is_moved(tmp_path: Path, url: str) -> None:
    (tmp_path / "live").mkdir()
    (tmp_path / "crashed").mkdir()
    async with open_sqlite_stores(tmp_path / "live" / "messages.db") as stores:
        await say(stores.messages, *USERS[:2], *"abc")
        for file in (tmp_path / "live").iterdir():
            shutil.copy(file, tmp_path / "crashed")
    async with moved(tmp_path / "crashed", url) as there:
        events = await every_event(there.messages, USERS[1])
        assert [(e.message.text, e.message.seq) for e in events] == [("a", 1), ("b", 2), ("c", 3)]
        (summary,) = await there.archive.conversations(USERS[1], None, 10)
        assert (summary.unread, summary.last_message.text) == (3, "c")
        (following,) = await say(there.messages, *USERS[:2], "d")
        assert following.seq == 4


async def test_move_that_was_interrupted_is_refused_to_serve_and_goes_on(
    tmp_path: Path, url: str
) -> None:
    async with open_sqlite_stores(tmp_path / "messages.db") as stores:
        await live(stores)
        before = await everything(stores)

    def interrupt(table: str, _rows: int) -> None:
        if table == "messages":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await move_to_postgres(tmp_path, url, interrupt)
    with pytest.raises(DatabaseUnavailable, match="unfinished move"):
        async with open_postgres_stores(url):
            pass
    async with moved(tmp_path, url) as there:
        assert await everything(there) == before


async def test_move_to_a_database_in_use_is_refused(tmp_path: Path, url: str) -> None:
    async with open_sqlite_stores(tmp_path / "messages.db") as stores:
        await say(stores.messages, *USERS[:2], "here")
    async with open_postgres_stores(url) as there:
        await say(there.messages, *USERS[:2], "there")
    with pytest.raises(RelocationRefused, match="users is not empty"):
        await move_to_postgres(tmp_path, url, ignore)


async def test_client_goes_on_from_its_cursor_after_the_move(tmp_path: Path, url: str) -> None:
    profile = FakeProfile()
    ann, bob, cid = (profile.sign_up(name) for name in ("ann", "bob", "cid"))
    async with (
        running_gateway(tmp_path, profile=profile, database_url=None, bus_url=None) as gateway,
        gateway.talking(ann) as a,
        gateway.talking(bob) as b,
        gateway.talking(cid) as c,
    ):
        await a.say(bob.user_id, "seen", "1")
        cursor = (await b.expect("message", text="seen"))["cursor"]
        unused = c.connected["cursor"]
        await a.say(bob.user_id, "missed", "2")
    await move_to_postgres(tmp_path, url, ignore)
    async with (
        running_gateway(tmp_path / "elsewhere", profile=profile, database_url=url) as gateway,
        gateway.talking(ann) as a,
        Client.open(gateway.url) as b,
        Client.open(gateway.url) as c,
    ):
        await b.connect(bob.access_token, resume=cursor)
        await b.expect("message", text="missed", seq=2)
        await b.expect("resumed")
        await c.connect(cid.access_token, resume=unused)
        await c.expect("resumed")
        await a.say(bob.user_id, "after", "3")
        await a.say(cid.user_id, "the first", "4")
        await b.expect("message", text="after", seq=3)
        await c.expect("message", text="the first", seq=1)


def test_command_moves_and_says_what(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def fill() -> None:
        async with open_sqlite_stores(tmp_path / "messages.db") as stores:
            await say(stores.messages, *USERS[:2], "a", "b")

    monkeypatch.setenv("DUET_DATA_DIR", str(tmp_path))
    assert main(["move-to-postgresql"]) == 1
    assert "DUET_DATABASE_URL is not set" in capsys.readouterr().err
    monkeypatch.setenv("DUET_DATABASE_URL", url)
    assert main(["move-to-postgresql"]) == 1
    assert "does not exist" in capsys.readouterr().err
    asyncio.run(fill())
    assert main(["move-to-postgresql"]) == 0
    assert "messages: 2 rows, checksum " in capsys.readouterr().out
    assert main(["backup", str(tmp_path / "backup")]) == 1
    assert "pg_dump" in capsys.readouterr().err


def test_life_of_a_restored_database_is_another(
    url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def epoch() -> str:
        with contextlib.closing(PostgresEngine(url).connect()) as connection:
            ((epoch,),) = connection.execute("SELECT epoch FROM life").fetchall()
        return str(epoch)

    before = epoch()
    monkeypatch.setenv("DUET_DATABASE_URL", url)
    assert main(["after-restore"]) == 0
    assert epoch() != before
