"""Many gateways on one PostgreSQL: whoever commits when, every log is dense and hides nothing."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Sequence
from typing import Any

import asyncpg
import pytest

from shared.ids import UserId, conversation_id
from tests.support.postgres import Databases, somebody_waits
from tests.support.talk import ANN, BOB, CID, every_event, say
from ws_gateway.adapters.postgres_chats import Chats
from ws_gateway.adapters.postgres_stores import (
    MIGRATIONS,
    SCHEMA,
    PostgresStores,
    open_postgres_stores,
)
from ws_gateway.adapters.postgres_transaction import make_changes
from ws_gateway.conversations import (
    Appended,
    Blocked,
    Change,
    Deletion,
    Draft,
    Edit,
    Erasure,
    Event,
    Mark,
    Marked,
    Message,
    NotFound,
    Outcome,
)
from ws_gateway.ports import MessageStore, StoreUnavailable

USERS = [UserId(f"u_{n}") for n in range(5)]


class Cluster:
    """One database, gateways' stores on it, and a look at it from outside."""

    def __init__(self, url: str, stores: list[PostgresStores], outside: asyncpg.Connection) -> None:
        self.url = url
        self.stores = stores
        self.outside = outside
        self.messages = [one.messages for one in stores]
        self.choice = random.Random(7)

    @contextlib.asynccontextmanager
    async def holding(self, *users: UserId) -> AsyncIterator[None]:
        """Hold the rows of users, as a gateway that stopped within a transaction would."""
        async with self.connected() as connection, connection.transaction():
            await connection.execute(
                "SELECT FROM users WHERE id = ANY ($1) ORDER BY key FOR UPDATE", users
            )
            yield

    @contextlib.asynccontextmanager
    async def connected(self) -> AsyncIterator[asyncpg.Connection]:
        """A connection of the test's own."""
        connection = await asyncpg.connect(self.url, server_settings={"search_path": SCHEMA})
        try:
            yield connection
        finally:
            await connection.close()


_KILL = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND application_name = 'duet_gateway'
"""


@contextlib.asynccontextmanager
async def running(url: str, gateways: int, **options: Any) -> AsyncIterator[Cluster]:
    async with contextlib.AsyncExitStack() as stack:
        stores = [
            await stack.enter_async_context(open_postgres_stores(url, max_connections=3, **options))
            for _ in range(gateways)
        ]
        outside = await asyncpg.connect(url, server_settings={"search_path": SCHEMA})
        stack.push_async_callback(outside.close)
        yield Cluster(url, stores, outside)


@pytest.fixture
def url(postgres_databases: Databases) -> str:
    return postgres_databases.migrated(MIGRATIONS, SCHEMA)


@pytest.fixture
async def cluster(url: str) -> AsyncIterator[Cluster]:
    async with running(url, 2) as cluster:
        yield cluster


def drafts(count: int, sender: UserId = ANN, to: UserId = BOB, name: str = "n") -> list[Draft]:
    return [Draft(sender, to, f"{name}-{n}", "hi") for n in range(count)]


def events_of(outcomes: Sequence[Outcome]) -> list[Event]:
    assert all(isinstance(outcome, Appended) for outcome in outcomes), outcomes
    return [outcome.event for outcome in outcomes if isinstance(outcome, Appended)]


async def test_what_commits_late_lies_behind_no_cursor(cluster: Cluster) -> None:
    """A transaction has its positions and is held up; the next for the same person must wait."""
    one, other = cluster.messages
    await say(one, ANN, BOB, "first")
    await say(one, CID, BOB, "first")
    chats = Chats(one._database)
    held, late = drafts(2, name="held"), drafts(2, CID, BOB, name="late")
    await chats.learn(held)
    async with cluster.connected() as connection:
        transaction = connection.transaction()
        await transaction.start()
        earlier = events_of(await make_changes(connection, chats, held, 1))
        appending = asyncio.create_task(other.append_batch(late, 1))
        await somebody_waits(cluster.outside)
        page = await one.events_after(BOB, 0, 10)
        assert (len(page.events), page.upto, page.complete) == (2, 2, True)
        assert not appending.done()
        await transaction.commit()
    later = events_of(await appending)
    assert [event.position_for(BOB) for event in earlier + later] == [3, 4, 5, 6]
    rest = await other.events_after(BOB, page.upto, 10)
    assert [event.message for event in rest.events] == [e.message for e in earlier + later]


async def test_transaction_that_is_held_up_and_rolls_back_leaves_no_hole(cluster: Cluster) -> None:
    one, other = cluster.messages
    chats = Chats(one._database)
    held = drafts(3, name="held")
    await chats.learn(held)
    async with cluster.connected() as connection:
        transaction = connection.transaction()
        await transaction.start()
        await make_changes(connection, chats, held, 1)
        appending = asyncio.create_task(other.append_batch(drafts(2, BOB, ANN), 1))
        await somebody_waits(cluster.outside)
        await transaction.rollback()
    events = events_of(await appending)
    assert [(e.position, e.recipient_position, e.message.seq) for e in events] == [
        (1, 1, 1),
        (2, 2, 2),
    ]


async def test_others_are_not_held_up(cluster: Cluster) -> None:
    one, other = cluster.messages
    await say(one, ANN, BOB, "first")
    async with cluster.holding(ANN):
        appending = asyncio.create_task(one.append_batch(drafts(1), 1))
        await somebody_waits(cluster.outside)
        await say(other, CID, BOB, "not held up")
        assert not appending.done()
    await appending


@pytest.mark.parametrize("seed", range(3))
async def test_readers_skip_nothing_while_four_gateways_write(url: str, seed: int) -> None:
    """Every page continues where the last one ended, without a hole; afterwards all is there."""
    choice = random.Random(seed)
    stored: list[Event] = []
    done = asyncio.Event()

    async def write(store: MessageStore, name: str, choice: random.Random) -> None:
        own: list[Message] = []
        for n in range(40):
            changes = [_change(choice, own, f"{name}-{n}-{i}") for i in range(choice.randint(1, 9))]
            outcomes = await store.append_batch(changes, n)
            events = [o.event for o in outcomes if isinstance(o, Appended) and not o.duplicate]
            stored.extend(events)
            own += [event.message for event in events if event.message.seq]

    async def read(store: MessageStore, user: UserId, limit: int) -> list[int]:
        seen: list[int] = []
        while True:
            finished = done.is_set()
            page = await store.events_after(user, len(seen), limit)
            positions = [event.position_for(user) for event in page.events]
            assert positions == list(range(len(seen) + 1, len(seen) + 1 + len(positions)))
            assert page.upto == len(seen) + len(positions)
            seen += positions
            if finished and page.complete:
                return seen

    async def hold_up(cluster: Cluster) -> None:
        while not done.is_set():
            async with cluster.holding(*choice.sample(USERS, choice.randint(1, 2))):
                await cluster.outside.fetchval("SELECT 1")

    async with running(url, 4) as cluster:
        readers = [
            asyncio.create_task(read(cluster.messages[n % 4], user, 1 + n * 3))
            for n, user in enumerate(USERS)
        ]
        holding = asyncio.create_task(hold_up(cluster))
        async with asyncio.TaskGroup() as group:
            for n, store in enumerate(cluster.messages):
                group.create_task(write(store, f"{n}", random.Random(f"{seed} {n}")))
        done.set()
        await holding
        for user, reading in zip(USERS, readers, strict=True):
            own = [e.position_for(user) for e in stored if user in _people(e)]
            assert sorted(own) == await reading
        seqs: dict[str, list[int]] = {}
        for event in stored:
            if event.kind == 0:
                seqs.setdefault(event.message.conversation, []).append(event.message.seq)
        assert all(sorted(s) == list(range(1, len(s) + 1)) for s in seqs.values())
        assert len(seqs) == 10
        assert await cluster.outside.fetchval(_DEADLOCKS) == 0


_DEADLOCKS = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"


def _people(event: Event) -> tuple[UserId, UserId]:
    return event.message.sender, event.message.recipient


def _change(choice: random.Random, own: Sequence[Message], name: str) -> Change:
    """Mostly drafts, between anybody in both directions."""
    action, (sender, to) = choice.random(), choice.sample(USERS, 2)
    if action < 0.7 or not own:
        return Draft(sender, to, name, "hi")
    message = choice.choice(own)
    if action < 0.8:
        return Edit(message.sender, name, message.conversation, message.seq, name)
    if action < 0.85:
        return Deletion(message.sender, name, message.conversation, message.seq)
    if action < 0.87:
        return Erasure(message.sender, message.conversation)
    return Mark(message.recipient, None, message.conversation, message.seq, choice.random() < 0.5)


async def test_batches_in_both_directions_leave_seq_dense_without_deadlock(url: str) -> None:
    async with running(url, 4) as cluster:

        async def write(n: int, store: MessageStore) -> list[Event]:
            events: list[Event] = []
            for batch in range(10):
                hers = drafts(10, ANN, BOB, f"a{n}-{batch}")
                his = drafts(10, BOB, ANN, f"b{n}-{batch}")
                both = hers + his if n % 2 else his + hers
                events += events_of(await store.append_batch(both, 1))
            return events

        written = await asyncio.gather(*(write(n, s) for n, s in enumerate(cluster.messages)))
        events = [event for own in written for event in own]
        assert sorted(event.message.seq for event in events) == list(range(1, 801))
        assert sorted(event.position for event in events) == list(range(1, 801))
        assert await cluster.outside.fetchval(_DEADLOCKS) == 0
        for own in written:
            assert [e.message.seq for e in own] == sorted(e.message.seq for e in own)
        in_order = await every_event(cluster.messages[0], BOB, limit=100)
        assert [event.message.seq for event in in_order] == list(range(1, 801))


async def test_same_draft_at_once_on_two_gateways_is_one_message(cluster: Cluster) -> None:
    one, other = cluster.messages
    for n in range(20):
        draft = Draft(ANN, BOB, f"{n}", "hi")
        outcomes = await asyncio.gather(
            one.append_batch([draft], 1), other.append_batch([draft, *drafts(1, name=f"m{n}")], 2)
        )
        first, second = outcomes[0][0], outcomes[1][0]
        assert isinstance(first, Appended)
        assert isinstance(second, Appended)
        assert first.event == second.event
        assert sorted([first.duplicate, second.duplicate]) == [False, True]
    assert await cluster.outside.fetchval(_COUNT, [f"{n}" for n in range(20)]) == 20
    assert await one.position_of(ANN) == 40


async def test_first_message_of_two_people_at_once_on_two_gateways(cluster: Cluster) -> None:
    one, other = cluster.messages
    for n in range(10):
        ann, bob = UserId(f"u_ann{n}"), UserId(f"u_bob{n}")
        outcomes = await asyncio.gather(
            one.append_batch(drafts(1, ann, bob, "x"), 1),
            other.append_batch(drafts(1, bob, ann, "y"), 1),
        )
        events = events_of([*outcomes[0], *outcomes[1]])
        assert {event.message.seq for event in events} == {1, 2}


async def test_block_on_one_gateway_holds_on_the_other_from_when_it_is_confirmed(
    cluster: Cluster,
) -> None:
    one, other = cluster.stores
    await say(other.messages, ANN, BOB, "known there")
    for n in range(10):
        await one.people.block(BOB, ANN, 1)
        (refused,) = await other.messages.append_batch(drafts(1, name=f"b{n}"), 1)
        await one.people.unblock(BOB, ANN)
        (taken,) = await other.messages.append_batch(drafts(1, name=f"b{n}"), 1)
        assert (refused, type(taken)) == (Blocked(), Appended)


async def test_batch_whose_connection_is_killed_changed_nothing(cluster: Cluster) -> None:
    one, other = cluster.messages
    await say(one, ANN, BOB, "first")
    batch = [*drafts(100), *drafts(100, BOB, ANN, "m")]
    async with cluster.holding(BOB):
        appending = asyncio.create_task(one.append_batch(batch, 1))
        await somebody_waits(cluster.outside)
        await cluster.outside.execute(_KILL + " AND wait_event_type = 'Lock'")
        with pytest.raises(StoreUnavailable):
            await appending
    assert await cluster.outside.fetchval(_COUNT, [draft.client_id for draft in batch]) == 0
    outcomes = await one.append_batch(batch, 1)
    assert [e.message.seq for e in events_of(outcomes)] == list(range(2, 202))
    again = await other.append_batch(batch, 2)
    assert again == [Appended(event, duplicate=True) for event in events_of(outcomes)]


async def test_killed_connections_double_nothing_and_halve_no_batch(cluster: Cluster) -> None:
    """Wherever it strikes, before the commit or after it: a retry finds out."""
    seqs: list[int] = []
    failures = 0

    async def write(store: MessageStore, sender: UserId, to: UserId) -> None:
        nonlocal failures
        async with cluster.connected() as connection:
            for n in range(15):
                batch = drafts(50, sender, to, f"{sender}-{n}")
                while True:
                    try:
                        outcomes = await store.append_batch(batch, 1)
                        break
                    except StoreUnavailable:
                        failures += 1
                        count = await connection.fetchval(_COUNT, [d.client_id for d in batch])
                        assert count in (0, 50)
                seqs.extend(event.message.seq for event in events_of(outcomes))

    async def kill() -> None:
        for _ in range(25):
            await cluster.outside.execute(_KILL)
            for _ in range(cluster.choice.randint(1, 30)):
                await cluster.outside.fetchval("SELECT 1")

    killing = asyncio.create_task(kill())
    async with asyncio.TaskGroup() as group:
        for store, people in zip(cluster.messages, [(ANN, BOB), (BOB, ANN)], strict=True):
            group.create_task(write(store, *people))
    await killing
    assert failures
    assert sorted(seqs) == list(range(1, 1501))
    assert [e.position for e in await every_event(cluster.messages[0], ANN, limit=500)] == [
        *range(1, 1501)
    ]


async def test_lock_that_is_held_too_long_makes_the_store_unavailable(url: str) -> None:
    async with running(url, 1, command_timeout_s=0.5) as cluster:
        (store,) = cluster.messages
        await say(store, ANN, BOB, "first")
        async with cluster.holding(ANN):
            for change in (drafts(1)[0], Deletion(ANN, "1", conversation_id(ANN, BOB), 1)):
                with pytest.raises(StoreUnavailable):
                    await store.append_batch([change], 1)
            assert len((await store.events_after(BOB, 0, 10)).events) == 1
        (event,) = events_of(await store.append_batch(drafts(1), 1))
        assert event.message.seq == 2


async def test_those_who_ask_keep_nobody_from_sending(cluster: Cluster) -> None:
    """As after a restart, when everybody comes at once, or when something slows reading down."""
    here = cluster.stores[0]
    (message,) = await say(here.messages, ANN, BOB, "hi")
    async with cluster.connected() as connection, connection.transaction():
        await connection.execute("LOCK TABLE deliveries")
        asking = [
            asyncio.create_task(here.archive.trace(ANN, message.conversation, message.seq))
            for _ in range(20)
        ]
        await somebody_waits(cluster.outside, 2)
        async with asyncio.timeout(3):
            await say(here.messages, ANN, CID, "hi")
    assert all(await asyncio.gather(*asking))


async def test_mark_waits_for_no_message_and_no_message_for_a_mark(cluster: Cluster) -> None:
    one, _ = cluster.messages
    await say(one, ANN, BOB, "first")
    async with cluster.holding(ANN, BOB):
        (marked,) = await one.append_batch([Mark(BOB, None, conversation_id(ANN, BOB), 1, True)], 1)
    assert marked == Marked(ANN, 1, 1, True, True, shows_read=True)


async def test_marks_of_one_person_at_once_on_two_gateways_move_once(cluster: Cluster) -> None:
    one, other = cluster.messages
    await say(one, ANN, BOB, *"abcdefghij")
    for seq in range(1, 11):
        mark = Mark(BOB, None, conversation_id(ANN, BOB), seq, read=True)
        outcomes = await asyncio.gather(one.append_batch([mark], 1), other.append_batch([mark], 1))
        moved = [o.moved_read for (o,) in outcomes if isinstance(o, Marked)]
        assert sorted(moved) == [False, True]


async def test_erasure_on_two_gateways_is_told_once(cluster: Cluster) -> None:
    one, other = cluster.messages
    await say(one, ANN, BOB, "a", "b")
    erasure = Erasure(ANN, conversation_id(ANN, BOB))
    first, second = await asyncio.gather(
        one.append_batch([erasure], 1), other.append_batch([erasure], 1)
    )
    assert events_of(first) == events_of(second)
    assert sorted(o.duplicate for o in [*first, *second] if isinstance(o, Appended)) == [
        False,
        True,
    ]


async def test_search_on_one_gateway_finds_what_another_stored(cluster: Cluster) -> None:
    one, other = cluster.stores
    (message,) = await say(one.messages, ANN, BOB, "needle")
    page = await other.archive.search(BOB, "needle", None, upto=None, offset=0, limit=5)
    assert ([hit.message for hit in page.hits], page.complete) == ([message], True)


async def test_text_that_is_revised_while_it_is_indexed_is_found_as_it_is(cluster: Cluster) -> None:
    one, other = cluster.stores
    for n in range(20):
        (message,) = await say(one.messages, ANN, BOB, f"old{n}")
        revise = Edit(ANN, f"e{n}", message.conversation, message.seq, f"new{n}")
        await asyncio.gather(one.archive.index_search(), other.messages.append_batch([revise], 1))
        for word, count in ((f"old{n}", 0), (f"new{n}", 1)):
            page = await one.archive.search(BOB, word, None, upto=None, offset=0, limit=5)
            assert len(page.hits) == count


async def test_long_conversation_is_indexed_to_its_end_and_no_other_waits_for_it(
    cluster: Cluster,
) -> None:
    one, _ = cluster.stores
    await say(one.messages, ANN, BOB, *(f"a{n}" for n in range(450)))
    await say(one.messages, ANN, CID, "b")
    await one.tidy_up(lambda: False)
    assert await cluster.outside.fetchval("SELECT count(*) FROM search") == 451


async def test_deliveries_that_could_not_be_written_are_kept(url: str) -> None:
    async with running(url, 1, command_timeout_s=0.2) as cluster:
        (stores,) = cluster.stores
        (message,) = await say(stores.messages, ANN, BOB, "a")
        stores.messages.note_deliveries([(message.position, 1)], 77)
        async with cluster.connected() as connection, connection.transaction():
            await connection.execute("LOCK TABLE deliveries IN EXCLUSIVE MODE")
            with pytest.raises(StoreUnavailable):
                await stores.messages.write_deliveries()
        trace = await stores.archive.trace(ANN, message.conversation, message.seq)
        assert trace is not None
        assert trace.delivered_at_ms == 77


@pytest.mark.parametrize("kind", ["draft", "mark", "edit"])
async def test_keys_of_a_database_that_was_put_back_are_forgotten(
    cluster: Cluster, kind: str
) -> None:
    """A gateway that was not stopped meanwhile must not write into others' conversations."""
    one, other = cluster.messages
    (message,) = await say(one, ANN, BOB, "lost")
    changes: dict[str, Change] = {
        "draft": Draft(ANN, BOB, "new", "hi"),
        "mark": Mark(BOB, None, message.conversation, 1, read=True),
        "edit": Edit(ANN, "new", message.conversation, 1, "mended"),
    }
    change = changes[kind]
    tables = "users, conversations, members, indexed, messages, search"
    await cluster.outside.execute(f"TRUNCATE {tables} RESTART IDENTITY")
    (others,) = await say(other, ANN, CID, "has the same key now")
    assert others.position == message.position
    with pytest.raises((asyncpg.RaiseError, LookupError), match="another life"):
        await one.append_batch([change], 1)
    (outcome,) = await one.append_batch([change], 1)
    if kind == "draft":
        assert stored_as(outcome) == (conversation_id(ANN, BOB), 1)
    else:
        assert outcome == NotFound()
    assert [e.message for e in await every_event(other, CID)] == [others]


def stored_as(outcome: Outcome) -> tuple[str, int]:
    (event,) = events_of([outcome])
    return event.message.conversation, event.message.seq


async def test_gateways_that_start_at_once_make_one_schema(postgres_databases: Databases) -> None:
    url = postgres_databases.empty()

    async def start() -> str:
        async with open_postgres_stores(url) as stores:
            return stores.messages.epoch

    assert len(set(await asyncio.gather(*(start() for _ in range(4))))) == 1


_COUNT = "SELECT count(*) FROM messages WHERE client_id = ANY ($1)"


async def test_batches_planned_while_tables_were_empty_do_not_read_all_of_them(url: str) -> None:
    async with open_postgres_stores(url) as stores:
        for number in range(20):
            await say(stores.messages, ANN, BOB, *(f"{number}-{n}" for n in range(10)))
    connection = await asyncpg.connect(url)
    try:
        async with asyncio.timeout(20):
            while (row := await connection.fetchrow(_READ))["inserted"] < 200:
                await connection.execute("SELECT pg_sleep(0.01)")  # until its sessions have ended
    finally:
        await connection.close()
    assert row["read_in_sequence"] == 0


_READ = """
SELECT n_tup_ins AS inserted, seq_tup_read AS read_in_sequence
FROM pg_stat_user_tables WHERE relname = 'messages'
"""
