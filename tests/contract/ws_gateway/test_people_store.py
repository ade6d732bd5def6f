"""What every `PeopleStore` must do: peers, preferences, blocks, and people who are erased."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from shared.ids import UserId, conversation_id
from tests.support.gateway_stores import ENGINES, Engine, engine_of
from tests.support.talk import ANN, BOB, CID, delete, edit, erase, every_event, mark, say
from tests.support.waiting import until
from ws_gateway.conversations import (
    Appended,
    Blocked,
    Conflict,
    Draft,
    Erasure,
    Event,
    EventKind,
    Marked,
    Outcome,
    Unfinished,
)
from ws_gateway.ports import Preferences, Stores


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Engine:
    return engine_of(request.param, request, tmp_path)


@pytest.fixture
async def stores(engine: Engine) -> AsyncIterator[Stores]:
    async with engine.open() as stores:
        yield stores


async def send(stores: Stores, client_id: str, text: str = "hi") -> Outcome:
    """Have Ann send Bob something."""
    (outcome,) = await stores.messages.append_batch([Draft(ANN, BOB, client_id, text)], 1)
    return outcome


async def peers(stores: Stores, user_id: UserId, limit: int = 10) -> list[UserId]:
    """Return whom a user talks with."""
    return (await stores.people.circle(user_id, limit)).peers


async def test_peers_are_those_one_talked_with_newest_first(stores: Stores) -> None:
    assert await peers(stores, ANN, 10) == []
    await say(stores.messages, ANN, BOB, "a")
    await say(stores.messages, CID, ANN, "b")
    await stores.archive.conversations(ANN, None, 1)
    assert await peers(stores, ANN, 10) == [CID, BOB]
    assert await peers(stores, ANN, 1) == [CID]
    assert await peers(stores, BOB, 10) == [ANN]


async def test_first_message_makes_peers_at_once(stores: Stores) -> None:
    await say(stores.messages, ANN, BOB, "a")
    assert await peers(stores, ANN, 10) == [BOB]
    assert await peers(stores, BOB, 10) == [ANN]


@pytest.mark.parametrize(("blocker", "blocked"), [(ANN, BOB), (BOB, ANN)])
async def test_a_block_ends_being_peers_both_ways_until_it_is_lifted(
    stores: Stores, blocker: UserId, blocked: UserId
) -> None:
    await say(stores.messages, ANN, BOB, "a")
    await stores.people.block(blocker, blocked, 1)
    assert await peers(stores, ANN, 10) == []
    assert await peers(stores, BOB, 10) == []
    await stores.people.unblock(blocker, blocked)
    assert await peers(stores, ANN, 10) == [BOB]
    assert await peers(stores, BOB, 10) == [ANN]


async def test_everything_is_shared_until_somebody_says_otherwise(stores: Stores) -> None:
    assert await stores.people.preferences(ANN) == Preferences(True, True)
    await stores.people.set_preferences(ANN, shares_reads=False, shares_presence=True)
    assert await stores.people.preferences(ANN) == Preferences(False, True)
    await say(stores.messages, ANN, BOB, "a")
    await stores.people.set_preferences(BOB, shares_reads=True, shares_presence=False)
    assert await stores.people.preferences(ANN) == Preferences(False, True)
    assert await stores.people.preferences(BOB) == Preferences(True, False)
    assert (await stores.people.circle(BOB, 10)).preferences == Preferences(True, False)
    assert (await stores.people.circle(CID, 10)).preferences == Preferences(True, True)


async def test_two_who_change_a_preference_each_at_once_both_do(stores: Stores) -> None:
    """As two devices of one person, at whichever gateways."""
    await asyncio.gather(
        stores.people.set_preferences(ANN, shares_reads=False),
        stores.people.set_preferences(ANN, shares_presence=False),
    )
    assert await stores.people.preferences(ANN) == Preferences(False, False)
    now = await stores.people.set_preferences(ANN, shares_reads=True)
    assert now == await stores.people.preferences(ANN) == Preferences(True, False)


async def test_preferences_and_blocks_survive_reopening(engine: Engine) -> None:
    async with engine.open() as stores:
        await stores.people.set_preferences(ANN, shares_reads=False, shares_presence=False)
        await stores.people.block(ANN, BOB, 1)
        await stores.people.follow_feed("17")
    async with engine.open() as stores:
        assert await stores.people.preferences(ANN) == Preferences(False, False)
        assert await stores.people.blocks(ANN) == [BOB]
        assert await stores.people.feed_event_id() == "17"


async def test_last_seen_of_somebody_who_never_talked_is_not_kept(stores: Stores) -> None:
    await stores.people.set_last_seen(ANN, 5)
    await say(stores.messages, ANN, BOB, "a")
    (summary,) = await stores.archive.conversations(BOB, None, 1)
    assert summary.peer_last_seen_ms is None


async def test_blocks_are_listed_newest_first_and_once(stores: Stores) -> None:
    assert await stores.people.blocks(ANN) == []
    await stores.people.block(ANN, BOB, 1)
    await stores.people.block(ANN, CID, 2)
    await stores.people.block(ANN, BOB, 3)
    assert await stores.people.blocks(ANN) == [CID, BOB]
    assert await stores.people.blocks(BOB) == []
    await stores.people.unblock(ANN, CID)
    await stores.people.unblock(ANN, CID)
    assert await stores.people.blocks(ANN) == [BOB]


async def test_blocked_person_sends_nothing_and_the_blocker_still_may(
    stores: Stores,
) -> None:
    assert isinstance(await send(stores, "1"), Appended)
    await stores.people.block(BOB, ANN, 1)
    assert await send(stores, "2") == Blocked()
    (own,) = await say(stores.messages, BOB, ANN, "I may")
    assert own.seq == 2
    await stores.people.unblock(BOB, ANN)
    outcome = await send(stores, "2")
    assert isinstance(outcome, Appended)
    assert outcome.event.message.seq == 3


async def test_retry_of_what_was_stored_before_the_block_is_acknowledged(
    stores: Stores,
) -> None:
    first = await send(stores, "1")
    await stores.people.block(BOB, ANN, 1)
    again = await send(stores, "1")
    assert isinstance(first, Appended)
    assert again == Appended(first.event, duplicate=True)
    assert await send(stores, "1", "other") == Conflict()


async def test_refused_message_begins_no_conversation(stores: Stores) -> None:
    await stores.people.block(BOB, ANN, 1)
    assert await send(stores, "1") == Blocked()
    await stores.people.unblock(BOB, ANN)
    assert await peers(stores, ANN, 10) == []
    assert await stores.archive.conversations(BOB, None, 10) == []
    await say(stores.messages, ANN, BOB, "now")
    assert await peers(stores, ANN, 10) == [BOB]


async def test_blocked_person_may_take_words_back_and_put_none_in(stores: Stores) -> None:
    one, two = await say(stores.messages, ANN, BOB, "one", "two")
    done = await edit(stores.messages, one, "mended", request_id="before")
    await stores.people.block(BOB, ANN, 1)
    assert await edit(stores.messages, two, "abuse") == Blocked()
    again = await edit(stores.messages, one, "mended", request_id="before")
    assert isinstance(done, Appended)
    assert again == Appended(done.event, duplicate=True)
    assert isinstance(await delete(stores.messages, two), Appended)
    assert isinstance(await mark(stores.messages, ANN, BOB, 2, read=True), Marked)
    assert [e.message.text for e in await every_event(stores.messages, BOB)][:2] == ["mended", ""]


async def test_block_holds_from_the_moment_it_is_confirmed(stores: Stores) -> None:
    """Whatever batches are under way: what was sent after `block` returned is refused."""
    outcomes: list[tuple[int, int, Outcome]] = []
    epoch = 0  # odd while blocked for certain, even while free for certain
    changing = False
    done = asyncio.Event()

    async def keep_sending() -> None:
        number = 0
        while not done.is_set():
            number += 1
            began = -1 if changing else epoch
            outcome = await send(stores, f"{number}")
            ended = -1 if changing else epoch
            outcomes.append((began, ended, outcome))

    async def more_outcomes(count: int) -> None:
        wanted = len(outcomes) + count
        await until(lambda: len(outcomes) >= wanted)

    sending = asyncio.create_task(keep_sending())
    for _ in range(20):
        changing = True
        await stores.people.block(BOB, ANN, 1)
        changing, epoch = False, epoch + 1
        await more_outcomes(3)
        changing = True
        await stores.people.unblock(BOB, ANN)
        changing, epoch = False, epoch + 1
        await more_outcomes(3)
    done.set()
    await sending
    certain = [(began, o) for began, ended, o in outcomes if began == ended != -1]
    assert {epoch % 2 for epoch, _ in certain} == {0, 1}
    for epoch, outcome in certain:
        assert isinstance(outcome, Blocked if epoch % 2 else Appended)
    history = await stores.archive.history(ANN, BOB, before=None, after=None, limit=len(outcomes))
    stored = [outcome for _, _, outcome in outcomes if isinstance(outcome, Appended)]
    assert [m.seq for m in history.messages] == list(range(1, len(stored) + 1))


async def test_feed_is_followed_and_the_deleted_are_listed_until_they_are_erased(
    stores: Stores,
) -> None:
    assert await stores.people.feed_event_id() is None
    assert await stores.people.users_to_erase() == []
    await stores.people.follow_feed("1", [ANN])
    await stores.people.follow_feed("1", [ANN])
    await stores.people.follow_feed("2")
    assert await stores.people.feed_event_id() == "2"
    assert await stores.people.users_to_erase() == [ANN]
    await stores.people.finish_erasure(ANN)
    assert await stores.people.users_to_erase() == []


async def test_the_erased_leave_no_blocks_and_no_last_seen(stores: Stores) -> None:
    await say(stores.messages, ANN, BOB, "a")
    await stores.people.set_last_seen(ANN, 5)
    await stores.people.block(ANN, BOB, 1)
    await stores.people.block(CID, ANN, 1)
    await stores.people.follow_feed("1", [ANN])
    await stores.people.finish_erasure(ANN)
    assert await stores.people.blocks(ANN) == []
    assert await stores.people.blocks(CID) == [ANN]
    (summary,) = await stores.archive.conversations(BOB, None, 1)
    assert summary.peer_last_seen_ms is None


@pytest.mark.parametrize("count", [999, 1000, 1001, 2000, 2345])
async def test_erasure_in_parts_ends_with_exactly_one_event(stores: Stores, count: int) -> None:
    await say(stores.messages, ANN, BOB, *(f"secret {n}" for n in range(count)))
    await say(stores.messages, BOB, ANN, "his")
    assert (await stores.archive.search(BOB, "secret", None, upto=None, offset=0, limit=1)).hits
    told = [o for o in await erase(stores.messages, ANN) if isinstance(o, Appended)]
    assert [(o.event.kind, o.event.message.sender) for o in told] == [(EventKind.ERASED, ANN)]
    events = await every_event(stores.messages, BOB, limit=500)
    assert [e.message.text for e in events if e.message.text] == ["his"]
    assert len(events) == count + 2
    assert not (await stores.archive.search(BOB, "secret", None, upto=None, offset=0, limit=1)).hits


async def test_erasure_goes_on_where_it_has_come(stores: Stores) -> None:
    await say(stores.messages, ANN, BOB, "a", "b", "c")
    await say(stores.messages, ANN, CID, "d")
    first, second = await stores.messages.conversations_to_erase(ANN)
    assert await stores.messages.conversations_to_erase(ANN, first) == [second]
    assert await stores.messages.conversations_to_erase(ANN, second) == []
    rest = Erasure(ANN, conversation_id(ANN, BOB), after=2)
    (outcome,) = await stores.messages.append_batch([rest], 1)
    assert isinstance(outcome, Appended)
    events = await every_event(stores.messages, BOB)
    assert [e.message.text for e in events if e.kind is EventKind.SENT] == ["a", "b", ""]


async def test_erasure_goes_on_after_reopening(engine: Engine) -> None:
    async with engine.open() as stores:
        await stores.people.follow_feed("1", [ANN])
        await say(stores.messages, ANN, BOB, *("secret" for _ in range(1500)))
        await say(stores.messages, ANN, CID, "secret")
        part = Erasure(ANN, conversation_id(ANN, BOB))
        assert await stores.messages.append_batch([part], 1) == [Unfinished(upto=1000)]
    async with engine.open() as stores:
        assert await stores.people.users_to_erase() == [ANN]
        told = [o.event for o in await erase(stores.messages, ANN) if isinstance(o, Appended)]
        assert sorted(e.message.recipient for e in told) == [BOB, CID]
        for user in (BOB, CID):
            events: list[Event] = await every_event(stores.messages, user, limit=500)
            assert not any(event.message.text for event in events)


async def test_known_users_come_by_id_in_pages(stores: Stores) -> None:
    await stores.people.block(BOB, ANN, 1)
    first = await stores.people.known_users(None, 1)
    rest = await stores.people.known_users(first[0], 10)
    assert [*first, *rest] == sorted([ANN, BOB])
    assert await stores.people.known_users(rest[-1], 10) == []
