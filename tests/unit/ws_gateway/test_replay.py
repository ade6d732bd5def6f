"""Resuming step by step: whatever is committed or published in between, no gap and no double."""

import random
from collections.abc import Awaitable, Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.ids import UserId
from tests.support.client import Frame
from tests.support.fake_store import FakeMessageStore
from tests.support.talk import ANN, BOB, CID, delete, edit, mark, say
from tests.support.wire import frame_of
from ws_gateway.conversations import Event, Receipt
from ws_gateway.delivery import replay as replay_module
from ws_gateway.delivery.rendering import Rendering
from ws_gateway.delivery.replay import Replay
from ws_gateway.ports import EventPage, StoreUnavailable
from ws_gateway.protocol.cursor import Cursors

RENDERING = Rendering(Cursors("fake"))


class Store(FakeMessageStore):
    """A store that lets a test act around each page that is read."""

    def __init__(self) -> None:
        super().__init__()
        self.pages: list[tuple[int, int]] = []
        """Position and limit of each page that was asked for."""
        self.before_page: Callable[[], Awaitable[None]] = _nothing
        self.after_page: Callable[[], Awaitable[None]] = _nothing

    async def events_after(self, user_id: UserId, position: int, limit: int) -> EventPage:
        self.pages.append((position, limit))
        await self.before_page()
        page = await super().events_after(user_id, position, limit)
        await self.after_page()
        return page


class Resuming:
    """Bob's connection while it resumes."""

    def __init__(self, store: Store, user: UserId = BOB) -> None:
        self.store = store
        self.replay = Replay(store, RENDERING, user)
        self.frames: list[Frame] = []
        self.undrained_bytes = 0
        self.most_undrained_bytes = 0
        self.on_drained: Callable[[], Awaitable[None]] = _nothing
        self._user = user
        self._published = 0

    async def run(self, after: int = 0) -> int:
        """Replay after a position."""
        return await self.replay.run(after, self._write, self._drained, lambda: 99)

    def publish(self, upto: int | None = None) -> None:
        """Have what is in the log by now arrive live, as the ConnectionMap does."""
        for event in self.store.log[self._published : upto]:
            if self._user in (event.message.sender, event.message.recipient):
                self.replay.hold(RENDERING.event(event, self._user), event.position)
        self._published = len(self.store.log) if upto is None else upto

    @property
    def positions(self) -> list[int]:
        """The positions of the events that were written."""
        cursors = [frame["cursor"] for frame in self.frames if "cursor" in frame]
        return [Cursors("fake").decode(cursor) for cursor in cursors]

    def _write(self, wire: bytes) -> None:
        self.frames.append(frame_of(wire))
        self.undrained_bytes += len(wire)
        self.most_undrained_bytes = max(self.most_undrained_bytes, self.undrained_bytes)

    async def _drained(self) -> None:
        self.undrained_bytes = 0
        await self.on_drained()


async def _nothing() -> None:
    pass


async def test_everything_after_the_cursor_comes_in_order() -> None:
    store = Store()
    messages = await say(store, ANN, BOB, *(f"{n}" for n in range(450)))
    resuming = Resuming(store)
    assert await resuming.run(after=messages[9].position) == 450
    assert [frame["text"] for frame in resuming.frames] == [f"{n}" for n in range(10, 450)]
    assert len(store.pages) == 3


async def test_nothing_after_the_cursor_is_one_page() -> None:
    store = Store()
    await say(store, ANN, BOB, "a", "b")
    resuming = Resuming(store)
    assert await resuming.run(after=2) == 2
    assert resuming.frames == []
    assert len(store.pages) == 1


async def test_position_passes_over_what_concerns_others() -> None:
    store = Store()
    await say(store, ANN, CID, *"abc")
    assert await Resuming(store).run() == 3


async def test_what_is_committed_after_the_page_arrives_once() -> None:
    store, resuming = Store(), None
    await say(store, ANN, BOB, "before")
    resuming = Resuming(store)

    async def arrive() -> None:
        await say(store, ANN, BOB, "meanwhile")
        resuming.publish()

    store.after_page = arrive
    assert await resuming.run() == 2
    assert resuming.positions == [1, 2]


async def test_what_is_committed_before_the_page_and_published_after_it_arrives_once() -> None:
    store = Store()
    await say(store, ANN, BOB, "before")
    resuming = Resuming(store)
    resuming.publish()

    async def commit() -> None:
        await say(store, ANN, BOB, "meanwhile")

    async def publish() -> None:
        resuming.publish()

    store.before_page, store.after_page = commit, publish
    assert await resuming.run() == 2
    assert resuming.positions == [1, 2]


async def test_flood_while_replaying_is_let_go_and_read_from_the_log(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(replay_module, "_MAX_HELD_BYTES", 2000)
    store = Store()
    await say(store, ANN, BOB, "before")
    resuming = Resuming(store)
    resuming.publish()
    floods = iter([50, 1000, 3])

    async def flood() -> None:
        await say(store, ANN, BOB, *(f"{n}" for n in range(next(floods, 0))))
        resuming.publish()
        assert resuming.replay._held_bytes < 2000 + 500

    store.after_page = flood
    assert await resuming.run() == 1054
    assert resuming.positions == list(range(1, 1055))


async def test_events_and_receipts_held_while_more_pages_follow_are_read_again() -> None:
    store = Store()
    await say(store, ANN, BOB, *(f"{n}" for n in range(350)))
    resuming = Resuming(store)
    first = True

    async def receipt_and_message() -> None:
        nonlocal first
        if first:
            first = False
            await mark(store, ANN, BOB, 350, read=True)
            conversation = store.log[0].message.conversation
            receipt = Receipt(conversation, ANN, BOB, 350, 350, True, None)
            resuming.replay.hold(RENDERING.receipt(receipt, BOB), None)
            await say(store, ANN, BOB, "late")
            resuming.publish()

    store.after_page = receipt_and_message
    await resuming.run()
    assert resuming.positions == list(range(1, 352))
    receipts = [frame for frame in resuming.frames if frame["type"] == "receipt"]
    assert [(r["user"], r["received"], r["read"]) for r in receipts] == [(ANN, 350, 350)]


async def test_receipts_that_moved_while_away_come_after_the_messages() -> None:
    store = Store()
    (first,) = await say(store, BOB, ANN, "hi")
    await mark(store, ANN, BOB, 1, read=True)
    await mark(store, BOB, ANN, 1)
    resuming = Resuming(store)
    await resuming.run(after=first.position)
    assert [(f["type"], f["user"], f["received"], f.get("read")) for f in resuming.frames] == [
        ("receipt", ANN, 1, 1),
        ("receipt", BOB, 1, 0),
    ]


async def test_receipt_held_after_the_last_page_comes_last() -> None:
    store = Store()
    await say(store, BOB, ANN, "hi")
    resuming = Resuming(store)

    async def receipt() -> None:
        conversation = store.log[0].message.conversation
        notice = Receipt(conversation, ANN, BOB, 1, 0, True, None)
        resuming.replay.hold(RENDERING.receipt(notice, BOB), None)

    store.after_page = receipt
    await resuming.run()
    assert [frame["type"] for frame in resuming.frames] == ["message", "receipt"]


async def test_edits_and_deletions_while_away_come_as_events() -> None:
    store = Store()
    one, two = await say(store, ANN, BOB, "one", "two")
    await edit(store, one, "mended")
    await delete(store, two)
    resuming = Resuming(store)
    await resuming.run(after=two.position)
    assert [(f["type"], f["seq"], f["revision"]) for f in resuming.frames] == [
        ("edited", 1, 1),
        ("deleted", 2, 1),
    ]


async def test_replayed_messages_count_as_delivered_to_their_recipient() -> None:
    store = Store()
    await say(store, ANN, BOB, "to Bob")
    await say(store, BOB, ANN, "own")
    await Resuming(store).run()
    assert store.deliveries == [(1, 1, 99)]


async def test_reader_is_waited_for_after_every_stretch_however_long_the_texts() -> None:
    store = Store()
    await say(store, ANN, BOB, *("\x01" * 4000 for _ in range(120)))
    resuming = Resuming(store)
    await resuming.run()
    assert len(resuming.frames) == 120
    assert resuming.most_undrained_bytes < 64 * 1024 + 25_000
    assert resuming.undrained_bytes == 0


async def test_what_arrives_while_the_reader_is_slow_at_the_end_arrives_once() -> None:
    store = Store()
    await say(store, ANN, BOB, "before")
    resuming = Resuming(store)
    resuming.publish()
    remaining = 5

    async def slowly() -> None:
        nonlocal remaining
        if remaining:
            remaining -= 1
            await say(store, ANN, BOB, "meanwhile")
            resuming.publish()

    resuming.on_drained = slowly
    await resuming.run()
    assert resuming.positions == list(range(1, len(store.log) + 1))


async def test_log_that_cannot_be_read_ends_the_replay() -> None:
    store = Store()
    store.available = False
    with pytest.raises(StoreUnavailable):
        await Resuming(store).run()


@settings(deadline=None)
@given(seed=st.integers(0, 2**32), held_bytes=st.sampled_from([0, 500, 2000, 100_000]))
async def test_any_interleaving_of_commits_and_publications_loses_and_doubles_nothing(
    seed: int, held_bytes: int
) -> None:
    choice = random.Random(seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(replay_module, "_MAX_HELD_BYTES", held_bytes)
        patch.setattr(replay_module, "_PAGE_EVENTS", choice.randint(1, 4))
        patch.setattr(replay_module, "_MAX_UNDRAINED_BYTES", choice.choice([0, 300, 10_000]))
        store = Store()
        for _ in range(choice.randint(0, 6)):
            await _something(store, choice)
        after = choice.randint(0, store.position)
        resuming = Resuming(store)
        resuming.publish(choice.randint(0, store.position))
        left = choice.randint(0, 12)

        async def meanwhile() -> None:
            nonlocal left
            for _ in range(choice.randint(0, 3)):
                if left:
                    left -= 1
                    await _something(store, choice)
            if choice.random() < 0.6 and resuming._published < store.position:
                resuming.publish(choice.randint(resuming._published, store.position))

        store.before_page = store.after_page = resuming.on_drained = meanwhile
        stands_at = await resuming.run(after)
        rest = [event for event in store.log[resuming._published :] if event.position > stands_at]
    expected = [e.position for e in store.log if _concerns(e, BOB) and e.position > after]
    live = [event.position for event in rest if _concerns(event, BOB)]
    assert resuming.positions + live == expected


async def _something(store: Store, choice: random.Random) -> None:
    sender, to = choice.sample([ANN, BOB, CID], 2)
    (message,) = await say(store, sender, to, "x" * choice.randint(1, 300))
    if choice.random() < 0.3:
        await edit(store, message, "y")


def _concerns(event: Event, user: UserId) -> bool:
    return user in (event.message.sender, event.message.recipient)
