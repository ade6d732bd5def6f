"""The log on SQLite and what follows it stay right through faults, restarts and a small cache."""

import asyncio
import contextlib
import itertools
import os
import random
import shutil
import sqlite3
import sys
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from shared.ids import UserId, conversation_id
from shared.sqlite import Database, DatabaseTooNew, lock
from tests.support.gateway import database_locked
from tests.support.talk import (
    ANN,
    BOB,
    delete,
    edit,
    erase,
    every_event,
    mark,
    say,
    search_index_is_sound,
)
from ws_gateway.adapters import (
    sqlite_append,
    sqlite_index,
    sqlite_revise,
    sqlite_search,
    sqlite_store,
)
from ws_gateway.adapters.sqlite_archive import SqliteMessageArchive
from ws_gateway.adapters.sqlite_search import SqliteSearch
from ws_gateway.adapters.sqlite_store import SqliteMessageStore
from ws_gateway.adapters.sqlite_stores import open_sqlite_stores
from ws_gateway.conversations import (
    Appended,
    Draft,
    Erasure,
    Event,
    EventKind,
    Mark,
    Message,
    Unfinished,
)
from ws_gateway.ports import StoreUnavailable

USERS = [UserId(f"u_{n}") for n in range(5)]


class Log:
    """A store on a file, and what must be in it."""

    def __init__(
        self, path: Path, database: Database, store: SqliteMessageStore, search: SqliteSearch
    ) -> None:
        self.path = path
        self.database = database
        self.store = store
        self.search = search
        self.expected: list[Message] = []
        self._numbers = 0

    def drafts(self, choice: random.Random, text: str = "x") -> list[Draft]:
        """Some drafts between anybody."""
        drafts = []
        for _ in range(choice.randint(1, 6)):
            sender, to = choice.sample(USERS, 2)
            self._numbers += 1
            drafts.append(Draft(sender, to, f"{self._numbers}", text))
        return drafts

    async def append(self, drafts: list[Draft]) -> None:
        """Store drafts, which must succeed."""
        for outcome in await self.store.append_batch(drafts, 1):
            assert isinstance(outcome, Appended)
            assert not outcome.duplicate
            self.expected.append(outcome.event.message)

    async def append_in_vain(self, drafts: list[Draft]) -> None:
        """Try to store drafts, which must fail."""
        with pytest.raises(StoreUnavailable):
            await self.store.append_batch(drafts, 1)

    async def limit_pages(self, pages: int | None) -> None:
        """Let the disk be full (at its present size), or not any more."""

        def limit(connection: sqlite3.Connection) -> None:
            (count,) = connection.execute("PRAGMA page_count").fetchone()
            wanted = 2**30 if pages is None else count + pages
            connection.execute(f"PRAGMA max_page_count = {wanted}")

        await self.database.write(limit)

    async def check(self) -> None:
        """Compare all that is stored with what was acknowledged."""
        positions = [message.position for message in self.expected]
        assert positions == list(range(1, len(positions) + 1))
        seqs: Counter[str] = Counter()
        for message in self.expected:
            seqs[message.conversation] += 1
            assert message.seq == seqs[message.conversation]
        for user in USERS:
            own = [m for m in self.expected if user in (m.sender, m.recipient)]
            events = await every_event(self.store, user, limit=100)
            assert [event.message for event in events] == own
            archive = archive_of(self)
            for summary in await archive.conversations(user, None, 10):
                talk = [m for m in own if m.conversation == summary.conversation]
                assert summary.last_message == talk[-1]
                assert summary.unread == sum(m.sender != user for m in talk)


def search_parts(path: Path) -> int:
    """Return how many parts a search has to look into."""
    with contextlib.closing(sqlite3.connect(path.with_name("search.db"))) as connection:
        (parts,) = connection.execute("SELECT count(DISTINCT segid) FROM search_idx").fetchone()
    return int(parts)


def archive_of(log: Log) -> SqliteMessageArchive:
    store = log.store
    return SqliteMessageArchive(
        log.database, log.search, store.settle, store.unsettled, store.write_deliveries
    )


@contextlib.asynccontextmanager
async def opened(path: Path) -> AsyncIterator[Log]:
    database = await Database.open(
        path, "ws_gateway.adapters.migrations.sqlite", busy_timeout_s=0.01
    )
    try:
        store = await SqliteMessageStore.over(database)
        async with SqliteSearch(
            path.with_name("search.db"),
            database,
            path,
            lambda: store.position,
            busy_timeout_s=0.01,
            clock=lambda: 0.0,
        ) as search:
            yield Log(path, database, store, search)
    finally:
        await database.close()


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[Log]:
    async with opened(tmp_path / "messages.db") as log:
        yield log


@pytest.mark.parametrize(
    ("max_unsettled", "settle_above"), [(0, 0), (4, 2), (1000, 0), (1000, 1000)]
)
@pytest.mark.parametrize("max_cached", [0, 2, 100_000])
async def test_failed_transactions_skip_and_reuse_nothing(
    log: Log,
    monkeypatch: pytest.MonkeyPatch,
    max_unsettled: int,
    settle_above: int,
    max_cached: int,
) -> None:
    monkeypatch.setattr(sqlite_store, "_MAX_UNSETTLED", max_unsettled)
    monkeypatch.setattr(sqlite_store, "_SETTLE_ABOVE", settle_above)
    monkeypatch.setattr(sqlite_store, "_SETTLE_ALONG", 3)
    monkeypatch.setattr(sqlite_store, "_SLICE", 3)
    monkeypatch.setattr(sqlite_append, "_MAX_CACHED", max_cached)
    choice = random.Random(f"{max_unsettled} {settle_above} {max_cached}")
    for _ in range(40):
        fault = choice.choice(["none", "none", "locked", "full"])
        drafts = log.drafts(choice)
        if fault == "locked":
            with database_locked(log.path):
                await log.append_in_vain(drafts)
        elif fault == "full":
            await log.limit_pages(0)
            await log.append_in_vain([*drafts, *log.drafts(choice, "x" * 4000)] * 20)
            await log.limit_pages(None)
        if choice.random() < 0.7 or fault == "none":
            await log.append(drafts)
        if choice.random() < 0.1:
            await log.check()
    await log.check()


async def test_batch_that_one_change_spoils_leaves_the_store_right(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    choice = random.Random(1)
    await log.append(log.drafts(choice))
    poisoned = log.drafts(choice)
    with monkeypatch.context() as patch:
        patch.setattr(sqlite_append.Append, "_flush", lambda append: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            await log.store.append_batch(poisoned, 1)
    await log.append(poisoned)
    await log.check()


async def test_log_goes_on_after_reopening_wherever_it_stood(tmp_path: Path) -> None:
    choice = random.Random(3)
    expected: list[Message] = []
    for life in range(6):
        async with opened(tmp_path / "messages.db") as log:
            log.expected, log._numbers = expected, 1000 * life
            for _ in range(4):
                await log.append(log.drafts(choice))
            if life % 2:
                await log.check()
    async with opened(tmp_path / "messages.db") as log:
        log.expected = expected
        await log.check()


async def test_noted_deliveries_survive_a_failed_transaction(log: Log) -> None:
    choice = random.Random(5)
    await log.append(log.drafts(choice))
    log.store.note_deliveries([(1, 2)], 77)
    with database_locked(log.path):
        await log.append_in_vain(log.drafts(choice))
        with pytest.raises(StoreUnavailable):
            await log.store.write_deliveries()
    await log.append(log.drafts(choice))
    await log.store.write_deliveries()
    assert await deliveries(log) == [(1, 2, 77, 1)]


async def test_deliveries_that_went_out_together_are_one_row(log: Log) -> None:
    await log.append([Draft(USERS[0], USERS[1], str(number), "x") for number in range(9)])
    log.store.note_deliveries([(1, 2), (2, 2)], 77)
    log.store.note_deliveries([(3, 2), (4, 1)], 77)
    log.store.note_deliveries([(5, 1), (7, 1)], 78)
    await log.store.write_deliveries(2)
    log.store.note_deliveries([(8, 1)], 78)
    await log.store.write_deliveries()
    log.store.note_deliveries([(9, 1)], 78)

    delivered = []
    for seq in range(1, 10):
        trace = await archive_of(log).trace(USERS[0], conversation_id(USERS[0], USERS[1]), seq)
        assert trace is not None
        delivered.append((trace.delivered_connections, trace.delivered_at_ms))

    assert await deliveries(log) == [
        (1, 2, 77, 3),
        (4, 1, 77, 1),
        (5, 1, 78, 1),
        (7, 1, 78, 2),
        (9, 1, 78, 1),
    ]
    assert delivered == [(2, 77)] * 3 + [(1, 77), (1, 78), (0, None)] + [(1, 78)] * 3


async def test_message_that_went_out_before_takes_no_delivery_from_those_beside_it(
    log: Log,
) -> None:
    """A telephone had some of the messages when they were sent, a laptop gets them all later."""
    await log.append([Draft(USERS[0], USERS[1], str(number), "x") for number in range(9)])
    log.store.note_deliveries([(2, 1), (5, 1), (6, 1)], 77)
    await log.store.write_deliveries()
    log.store.note_deliveries([(9, 1)], 78)
    log.store.note_deliveries([(position, 1) for position in range(2, 10)], 79)
    log.store.note_deliveries([(position, 1) for position in range(1, 10)], 80)

    delivered_at = []
    for seq in range(1, 10):
        trace = await archive_of(log).trace(USERS[0], conversation_id(USERS[0], USERS[1]), seq)
        assert trace is not None
        delivered_at.append(trace.delivered_at_ms)

    assert delivered_at == [80, 77, 79, 79, 77, 77, 79, 79, 78]


async def test_marks_are_brought_to_their_place_by_conversation(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_store, "_RECENT_MARKS", 9)
    monkeypatch.setattr(sqlite_store, "_MARKS", 4)
    for seq in range(1, 11):
        for peer in USERS[1:4]:
            await log.append([Draft(USERS[0], peer, f"{peer}-{seq}", "x")])
            await log.store.append_batch(
                [Mark(peer, None, conversation_id(USERS[0], peer), seq, read=seq % 2 == 0)],
                100 + seq,
            )
            await log.store.tidy_up()
            waiting, placed = await marks(log)
            assert waiting <= 9 + 4
    assert waiting + placed == 3 * (10 + 5)

    for peer in USERS[1:4]:
        for seq in range(1, 11):
            trace = await archive_of(log).trace(USERS[0], conversation_id(USERS[0], peer), seq)
            assert trace is not None
            assert (trace.received_at_ms, trace.read_at_ms) == (100 + seq, 100 + seq + seq % 2)


async def test_marks_that_waited_are_found_again(tmp_path: Path) -> None:
    path = tmp_path / "messages.db"
    async with opened(path) as log:
        await log.append([Draft(ANN, BOB, str(number), "x") for number in range(20)])
        for seq in range(1, 21):
            await log.store.append_batch(
                [Mark(BOB, None, conversation_id(ANN, BOB), seq, read=False)], 7
            )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sqlite_store, "_RECENT_MARKS", 0)
        async with opened(path) as log:
            await log.store.tidy_up()
            assert await marks(log) == (0, 20)


async def marks(log: Log) -> tuple[int, int]:
    """How many wait for their place, and how many are there."""
    return await log.database.read(
        lambda c: c.execute(
            "SELECT (SELECT count(*) FROM recent_marks), (SELECT count(*) FROM marks)"
        ).fetchone()
    )


async def deliveries(log: Log) -> list[tuple[int, int, int, int]]:
    """What is written down of them: position, connections, moment, messages."""
    return await log.database.read(
        lambda c: c.execute(
            "SELECT position, connections, at_ms, messages FROM deliveries ORDER BY position"
        ).fetchall()
    )


async def test_random_changes_of_every_kind_leave_everything_in_agreement(log: Log) -> None:
    """Seq dense, places and inboxes complete, revisions in order, the index sound."""
    choice = random.Random(9)
    for _ in range(150):
        action = choice.random()
        if action < 0.5 or not log.expected:
            await log.append(log.drafts(choice, f"word{choice.randint(0, 9)}"))
            continue
        message = choice.choice(log.expected)
        if action < 0.65:
            await edit(log.store, message, f"word{choice.randint(0, 9)}")
        elif action < 0.8:
            await delete(log.store, message)
        elif action < 0.9:
            reader = choice.choice([message.sender, message.recipient])
            peer = message.recipient if reader == message.sender else message.sender
            await mark(log.store, reader, peer, message.seq, read=choice.random() < 0.5)
        elif action < 0.95:
            await log.search.catch_up()
        elif action < 0.97:
            await erase(log.store, message.sender)
    await log.store.settle_all()
    while not await log.search.catch_up():
        pass
    assert search_index_is_sound(log.path)
    seqs: dict[str, list[int]] = {}
    events: dict[int, Event] = {}
    for user in USERS:
        own = await every_event(log.store, user, limit=50)
        assert [e.position for e in own] == sorted({e.position for e in own})
        events |= {event.position: event for event in own}
    assert sorted(events) == list(range(1, log.store.position + 1))
    for message in log.expected:
        seqs.setdefault(message.conversation, []).append(message.seq)
    for conversation, dense in seqs.items():
        assert dense == list(range(1, len(dense) + 1)), conversation


async def test_parts_of_the_search_index_are_merged_but_not_by_what_adds_to_it(log: Log) -> None:
    choice = random.Random(7)
    most_parts = 0
    await log.search.catch_up()
    for _ in range(40):
        await log.append(log.drafts(choice, "the same words"))
        before = search_parts(log.path)
        await log.search.go_on(log.store.position)
        assert search_parts(log.path) == before + 1
        while not await log.search.go_on(log.store.position):
            pass
        most_parts = max(most_parts, search_parts(log.path))

    assert most_parts < 10
    assert search_index_is_sound(log.path)


async def test_messages_are_settled_while_search_has_much_to_catch_up_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_store, "_SETTLE_AFTER_S", 0.0)
    monkeypatch.setattr(sqlite_search, "_CHUNK", 1)
    steps, sending = itertools.count(1), set[asyncio.Task[list[Message]]]()
    async with open_sqlite_stores(tmp_path / "messages.db") as stores:

        def is_busy() -> bool:
            step = next(steps)
            if step == 3:
                sending.add(asyncio.create_task(say(stores.messages, ANN, BOB, "one more")))
            return step == 30

        await say(stores.messages, ANN, BOB, *["word"] * 100)
        await stores.tidy_up(is_busy)
        with contextlib.closing(sqlite3.connect(tmp_path / "messages.db")) as connection:
            assert connection.execute("SELECT count(*) FROM places").fetchone() == (101,)


async def test_history_is_read_while_the_database_is_locked(log: Log) -> None:
    """What was acknowledged a moment ago is not settled yet, and cannot be now."""
    choice = random.Random(3)
    for _ in range(5):
        await log.append(log.drafts(choice))
    first = log.expected[0]
    talk = [m for m in log.expected if m.conversation == first.conversation]
    archive = archive_of(log)
    with database_locked(log.path):
        with pytest.raises(StoreUnavailable):
            await archive.conversations(first.sender, None, 10)
        newest = await archive.history(
            first.sender, first.recipient, before=None, after=None, limit=200
        )
        page = await archive.history(first.sender, first.recipient, before=None, after=1, limit=2)
        last = await archive.history(
            first.sender, first.recipient, before=talk[-1].seq, after=None, limit=1
        )
    assert (newest.messages, newest.more) == (talk, False)
    assert page.messages == talk[1:3]
    assert last.messages == talk[-2:-1]
    assert (await archive.conversations(first.sender, None, 10))[0].position > 0


async def test_removed_text_is_not_found_while_the_index_cannot_follow(log: Log) -> None:
    one, two, three = await say(log.store, ANN, BOB, "alpha one", "alpha two", "alpha three")
    assert len(await found(log, "alpha")) == 3
    with database_locked(log.path.with_name("search.db")):
        await edit(log.store, one, "beta one")
        await edit(log.store, one, "gamma one")
        await delete(log.store, two)
        assert await found(log, "alpha") == [three.text]
    assert await found(log, "alpha") == [three.text]
    assert await found(log, "beta") == []
    assert await found(log, "gamma") == ["gamma one"]
    assert search_index_is_sound(log.path)


async def test_removals_that_the_index_has_followed_are_purged_after_a_crash(log: Log) -> None:
    """It came to an end after the index had committed, and before the log did."""
    message, kept = await say(log.store, ANN, BOB, "alpha one", "alpha two")
    await log.search.catch_up()
    await delete(log.store, message)
    with database_locked(log.path):
        with pytest.raises(StoreUnavailable):
            await log.search.forget_removed()
        assert await found(log, "alpha") == [kept.text]
    assert not search_index_is_sound(log.path)
    await log.search.forget_removed()
    assert search_index_is_sound(log.path)


async def test_long_chain_of_removals_is_followed_in_pieces(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_index, "_REMOVALS_AT_ONCE", 3)
    first, second = await say(log.store, ANN, BOB, "word 0", "word 0")
    await log.search.catch_up()
    for number in range(1, 11):
        await edit(log.store, first, f"word {number}")
    (new,) = await say(log.store, ANN, BOB, "word 0")
    for message in (second, new):
        await edit(log.store, message, "word 11")
    await log.search.forget_removed()
    assert await found(log, "10") == ["word 10"]
    assert await found(log, "11") == ["word 11"] * 2
    assert search_index_is_sound(log.path)


HARMS = {
    "of another life": "epoch = 'x'",
    "ahead of the log": "indexed = 5",
    "ahead of the removals": "removed = 3",
    "behind the removals": "removed = 0",
}


@pytest.mark.parametrize("harm", ["deleted", "damaged", *HARMS])
async def test_index_that_does_not_belong_to_the_log_is_made_anew(
    tmp_path: Path, harm: str
) -> None:
    index = tmp_path / "search.db"
    async with opened(tmp_path / "messages.db") as log:
        first, _ = await say(log.store, ANN, BOB, "beta", "alpha")
        assert await found(log, "alpha") == ["alpha"]
        await edit(log.store, first, "gamma")
        await edit(log.store, first, "delta")
    match harm:
        case "deleted":
            index.unlink()
        case "damaged":
            index.write_bytes(b"not a database")
        case _:
            with contextlib.closing(sqlite3.connect(index)) as connection, connection:
                connection.execute("DELETE FROM search_docsize")
                connection.execute(f"UPDATE following SET {HARMS[harm]}")
    async with opened(tmp_path / "messages.db") as log:
        assert await found(log, "alpha") == ["alpha"]
        assert await following(log) == (4, 2)
        assert search_index_is_sound(log.path)


async def test_index_goes_on_where_it_was_after_a_crash(tmp_path: Path) -> None:
    async with opened(tmp_path / "alive" / "messages.db") as log:
        await say(log.store, ANN, BOB, "alpha")
        await log.search.catch_up()
        shutil.copytree(tmp_path / "alive", tmp_path / "crashed")
    async with opened(tmp_path / "crashed" / "messages.db") as log:
        assert await following(log) == (1, 0)
        assert await found(log, "alpha") == ["alpha"]
    assert search_index_is_sound(log.path)


async def test_index_is_right_however_often_its_writer_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "messages.db"
    for life in range(8):
        writer = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.support.restless_writer", str(path), str(life)),
            stdout=asyncio.subprocess.PIPE,
        )
        assert writer.stdout is not None
        for _ in range(random.Random(life).randrange(1, 12)):
            assert await writer.stdout.readline(), "the writer ended by itself"
        writer.kill()
        await writer.communicate()
    async with open_sqlite_stores(path) as stores:
        while not await stores.search.catch_up():
            pass
    assert search_index_is_sound(path)


async def test_index_that_turns_out_to_be_damaged_is_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "messages.db"
    async with opened(path) as log:
        first, _ = await say(log.store, ANN, BOB, "alpha", "alpha two")
        await log.search.catch_up()
    with contextlib.closing(sqlite3.connect(tmp_path / "search.db")) as connection, connection:
        connection.execute("UPDATE search_data SET block = x'00'")
    async with opened(path) as log:
        await delete(log.store, first)
        with capture_logs() as logs:
            await log.search.forget_removed()
        assert [entry["event"] for entry in logs] == ["the search index is damaged and made anew"]
        assert await found(log, "alpha") == ["alpha two"]
        assert search_index_is_sound(path)


async def test_index_that_a_newer_version_has_changed_is_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "messages.db"
    async with opened(path) as log:
        await say(log.store, ANN, BOB, "alpha")
        await log.search.catch_up()
    change_as_a_newer_version_does(tmp_path / "search.db")
    with capture_logs() as logs:
        async with opened(path) as log:
            assert await found(log, "alpha") == ["alpha"]
            assert search_index_is_sound(path)
    assert [entry["event"] for entry in logs] == [
        "the search index is of a newer version and made anew"
    ]


async def test_index_of_a_newer_version_that_is_open_elsewhere_is_left_alone(
    tmp_path: Path,
) -> None:
    path, index = tmp_path / "messages.db", tmp_path / "search.db"
    async with opened(path) as log:
        await log.search.catch_up()
    change_as_a_newer_version_does(index)
    before = index.stat().st_ino
    held = lock(index)
    try:
        async with opened(path) as log:
            with pytest.raises(StoreUnavailable, match="open in another process"):
                await found(log, "alpha")
    finally:
        os.close(held)
    assert index.stat().st_ino == before


async def test_log_that_a_newer_version_has_changed_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "messages.db"
    async with opened(path) as log:
        await say(log.store, ANN, BOB, "alpha")
    change_as_a_newer_version_does(path)
    with pytest.raises(DatabaseTooNew):
        async with opened(path):
            pass
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT text FROM messages").fetchall() == [("alpha",)]


def change_as_a_newer_version_does(database: Path) -> None:
    with contextlib.closing(sqlite3.connect(database)) as connection, connection:
        connection.execute(
            "INSERT INTO _yoyo_migration (migration_hash, migration_id) VALUES ('x', '9999.later')"
        )


async def test_index_is_not_made_anew_again_and_again(log: Log) -> None:
    """What it meets may be in the log."""
    await say(log.store, ANN, BOB, "alpha")
    await log.search.catch_up()
    await damage(log)
    assert await found(log, "alpha") == []
    await say(log.store, ANN, BOB, "alpha")
    assert await found(log, "alpha") == ["alpha", "alpha"]
    await damage(log)
    for _ in range(2):
        with pytest.raises(StoreUnavailable, match=r"search\.db cannot be used"):
            await found(log, "alpha")
    (conversation,) = await archive_of(log).conversations(ANN, None, 10)
    assert conversation.last_message.text == "alpha"


async def damage(log: Log) -> None:
    index = await log.search._opened()
    await index.write(lambda c: c.execute("DELETE FROM search_data WHERE id > 10"))


async def test_without_an_index_everything_but_search_goes_on(tmp_path: Path) -> None:
    (tmp_path / "search.db").mkdir()
    async with open_sqlite_stores(tmp_path / "messages.db") as stores:
        await say(stores.messages, ANN, BOB, "alpha")
        with pytest.raises(StoreUnavailable, match=r"search\.db"):
            await stores.tidy_up(lambda: False)
        with pytest.raises(StoreUnavailable, match=r"search\.db"):
            await stores.archive.search(ANN, "alpha", None, upto=None, offset=0, limit=9)
        (conversation,) = await stores.archive.conversations(ANN, None, 10)
        assert conversation.last_message.text == "alpha"
        (tmp_path / "search.db").rmdir()
        await stores.tidy_up(lambda: False)
        page = await stores.archive.search(ANN, "alpha", None, upto=None, offset=0, limit=9)
        assert [hit.message.text for hit in page.hits] == ["alpha"]


async def test_erasing_a_long_conversation_looks_at_each_message_a_few_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each piece began at the beginning: twice as long, four times the work."""
    monkeypatch.setattr(sqlite_revise, "_ERASE_CHUNK", 10)
    steps = 0

    def count() -> int:
        nonlocal steps
        steps += 1
        return 0

    async def steps_for(messages: int) -> int:
        async with opened(tmp_path / f"{messages}.db") as log:
            await say(log.store, ANN, BOB, *["x"] * messages)
            await say(log.store, BOB, ANN, "kept")
            for _ in range(2):  # readers
                await log.database.read(lambda c: c.set_progress_handler(count, 100))
            await log.database.write(lambda c: c.set_progress_handler(count, 100))
            before = steps
            outcomes = await erase(log.store, ANN)
            assert [type(outcome) for outcome in outcomes[-2:]] == [Unfinished, Appended]
            taken = steps - before
            *erased, kept, _ = await every_event(log.store, BOB)
            assert all(event.message.deleted for event in erased)
            assert kept.message.text == "kept"
            return taken

    assert await steps_for(2000) < 3 * await steps_for(1000)


async def test_erasure_that_was_rolled_back_in_between_is_finished_once(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_revise, "_ERASE_CHUNK", 2)
    drafts = [Draft(ANN, BOB, str(number), "x") for number in range(9)]
    await log.append(drafts)
    erasure = Erasure(ANN, conversation_id(ANN, BOB))
    await log.store.append_batch([erasure], 1)
    again = Draft(ANN, BOB, "0", "x")  # has the batch done twice
    filling = [Draft(BOB, ANN, f"more {number}", "x" * 4000) for number in range(99)]
    await log.limit_pages(0)
    with pytest.raises(StoreUnavailable):
        await log.store.append_batch([erasure, again, *filling], 1)
    await log.limit_pages(None)
    await erase(log.store, ANN)
    events = await every_event(log.store, BOB)
    assert not [e for e in events if e.message.sender == ANN and e.message.text]
    assert [e.kind for e in events].count(EventKind.ERASED) == 1


async def test_tidying_up_ends_although_messages_keep_coming(tmp_path: Path) -> None:
    async with open_sqlite_stores(tmp_path / "messages.db") as stores:
        await say(stores.messages, ANN, BOB, "word")
        looks = 0
        coming = set[asyncio.Task[list[Message]]]()

        def is_busy() -> bool:
            nonlocal looks
            looks += 1
            coming.add(asyncio.create_task(say(stores.messages, ANN, BOB, "word")))
            return False

        await stores.tidy_up(is_busy)
        await asyncio.gather(*coming)
        assert looks < 10


async def test_nothing_removed_is_left_in_the_log_after_a_stop(tmp_path: Path) -> None:
    async with open_sqlite_stores(tmp_path / "messages.db") as stores:
        (message,) = await say(stores.messages, ANN, BOB, "alpha")
        await stores.tidy_up(lambda: False)
        await delete(stores.messages, message)
    assert search_index_is_sound(tmp_path / "messages.db")


async def following(log: Log) -> tuple[int, int]:
    """How far the index has followed messages and removals."""
    index = await log.search._opened()
    return await index.read(sqlite_index.following)


async def found(log: Log, query: str) -> list[str]:
    """The texts that a search of Ann finds."""
    page = await log.search.find(ANN, query, None, upto=None, offset=0, limit=50)
    return [hit.message.text for hit in page.hits]
