"""Who is told that somebody is here, gone, or typing."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from shared.ids import UserId
from tests.support.client import Frame
from tests.support.manual_clock import ManualClock
from tests.support.talk import ANN, BOB, CID, say
from tests.support.waiting import until
from tests.support.wire import Seat
from ws_gateway.adapters.local_attendance import LocalAttendance
from ws_gateway.adapters.local_bus import LocalBus
from ws_gateway.adapters.sqlite_stores import SqliteStores, open_sqlite_stores
from ws_gateway.conversations import Appended, Draft, Notice, PresenceNotice, Published
from ws_gateway.delivery.connection_map import ConnectionMap
from ws_gateway.delivery.rendering import Rendering
from ws_gateway.ports import Circle, StoreUnavailable
from ws_gateway.presence import Presence
from ws_gateway.protocol.cursor import Cursors


class Scene:
    """A presence at work on real stores, and people who come and go."""

    def __init__(self, stores: SqliteStores, *, offline_after_s: float) -> None:
        self.stores = stores
        self.clock = ManualClock()
        self.bus = LocalBus()
        self.told: list[Notice] = []
        rendering = Rendering(Cursors("e"))
        self.connections = ConnectionMap(rendering, lambda deliveries: None)
        self.presence = Presence(
            self.connections,
            stores.people,
            LocalAttendance(),
            self.bus,
            rendering,
            offline_after_s=offline_after_s,
            now=self.clock,
        )
        self.bus.subscribe(self.connections.deliver)
        self.bus.subscribe(self.presence.observe)
        self.bus.subscribe(lambda notices, viewer=None: self.told.extend(notices))

    async def come(self, user_id: UserId) -> Seat:
        """Connect; returns when everybody has been told."""
        seat = Seat(user_id)
        self.connections.add(seat)
        self.presence.joined(user_id, seat.connection_id)
        self.presence.greet(seat)
        await self.settled()
        return seat

    async def go(self, seat: Seat) -> None:
        """Disconnect."""
        was_last = self.connections.remove(seat)
        self.presence.left(seat.identity.user_id, seat.connection_id, was_last=was_last)
        await self.settled()

    async def settled(self) -> None:
        """Wait until the presence has done what it was asked so far."""
        done = asyncio.Event()

        async def job() -> None:
            done.set()

        self.presence._jobs[0].put_nowait(job)
        async with asyncio.timeout(10):
            await done.wait()

    async def reconsidered(self, *user_ids: UserId) -> None:
        """Tell the presence that something changed, and wait for what comes of it."""
        self.presence.reconsider(*user_ids)
        await self.settled()


@contextlib.asynccontextmanager
async def at_work(path: Path, *, offline_after_s: float) -> AsyncIterator[Scene]:
    async with open_sqlite_stores(path) as stores:
        await say(stores.messages, ANN, BOB, "hi")
        scene = Scene(stores, offline_after_s=offline_after_s)
        task = asyncio.create_task(scene.presence.run())
        try:
            yield scene
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    """Ann and Bob have talked; nobody is gone before an hour has passed."""
    async with at_work(tmp_path / "messages.db", offline_after_s=3600) as scene:
        yield scene


@pytest.fixture
async def hasty(tmp_path: Path) -> AsyncIterator[Scene]:
    """The same without a debounce."""
    async with at_work(tmp_path / "messages.db", offline_after_s=0) as scene:
        yield scene


def presence_frames(seat: Seat) -> list[tuple[str, bool]]:
    """Whom a seat was told of."""
    return [(f["user"], f["online"]) for f in seat.ephemeral if f["type"] == "presence"]


def typing_frames(seat: Seat) -> list[Frame]:
    """The typing that a seat was told of."""
    return [frame for frame in seat.ephemeral if frame["type"] == "typing"]


async def test_peers_are_told_of_each_other_and_strangers_of_nobody(scene: Scene) -> None:
    ann, cid = await scene.come(ANN), await scene.come(CID)
    bob = await scene.come(BOB)
    assert presence_frames(ann) == [(BOB, True)]
    assert presence_frames(bob) == [(ANN, True)]
    assert presence_frames(cid) == []
    assert await scene.presence.online([ANN], BOB) == {ANN}
    assert not await scene.presence.online([ANN], CID)


async def test_second_device_is_told_and_tells_nobody(scene: Scene) -> None:
    ann, bob = await scene.come(ANN), await scene.come(BOB)
    phone = await scene.come(BOB)
    assert presence_frames(ann) == [(BOB, True)]
    assert presence_frames(bob) == presence_frames(phone) == [(ANN, True)]
    await scene.go(bob)
    await scene.go(phone)
    assert await scene.presence.online([BOB], ANN)


async def test_who_returns_in_time_was_never_gone(scene: Scene) -> None:
    ann, bob = await scene.come(ANN), await scene.come(BOB)
    await scene.go(bob)
    assert await scene.presence.online([BOB], ANN)
    await scene.come(BOB)
    assert presence_frames(ann) == [(BOB, True)]


async def test_who_stays_away_is_gone_with_when_they_were_last_seen(hasty: Scene) -> None:
    ann, bob = await hasty.come(ANN), await hasty.come(BOB)
    left_at_ms = int(hasty.clock() * 1000)
    await hasty.go(bob)
    await until(lambda: len(ann.ephemeral) == 2)
    gone = ann.ephemeral[-1]
    assert (gone["user"], gone["online"]) == (BOB, False)
    assert gone["last_seen"] == "2027-01-15T08:00:00.000Z"
    await hasty.settled()
    (summary,) = await hasty.stores.archive.conversations(ANN, None, 1)
    assert summary.peer_last_seen_ms == left_at_ms
    assert not await hasty.presence.online([BOB], ANN)


async def test_old_departure_in_the_queue_does_not_cut_a_new_debounce_short(
    scene: Scene,
) -> None:
    ann, bob = await scene.come(ANN), await scene.come(BOB)
    scene.connections.remove(bob)
    scene.presence.left(BOB, bob.connection_id, was_last=True)
    scene.presence._leaving[BOB].cancel()
    scene.presence._stayed_away(BOB, 1)  # the debounce is over, its job waits
    seat = Seat(BOB)
    scene.connections.add(seat)
    scene.presence.joined(BOB, seat.connection_id)
    scene.connections.remove(seat)
    scene.presence.left(BOB, seat.connection_id, was_last=True)
    await scene.settled()
    assert presence_frames(ann) == [(BOB, True)]
    assert await scene.presence.online([BOB], ANN)


async def test_first_message_introduces_two_people_to_each_other(scene: Scene) -> None:
    ann, cid = await scene.come(ANN), await scene.come(CID)
    (outcome,) = await scene.stores.messages.append_batch([Draft(CID, ANN, "1", "hi")], 1)
    assert isinstance(outcome, Appended)
    scene.bus.publish([Published(outcome.event, None)])
    await scene.settled()
    assert presence_frames(ann) == [(CID, True)]
    assert presence_frames(cid) == [(ANN, True)]


async def test_first_message_during_the_arrival_introduces_as_well(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The peers were looked up just before the message was stored."""
    ann = await scene.come(ANN)
    look_up = scene.stores.people.circle
    looked_up, stored = asyncio.Event(), asyncio.Event()

    async def circle(user_id: UserId, limit: int) -> Circle:
        found = await look_up(user_id, limit)
        if not stored.is_set():
            looked_up.set()
            await stored.wait()
        return found

    monkeypatch.setattr(scene.stores.people, "circle", circle)
    seat = Seat(CID)
    scene.connections.add(seat)
    scene.presence.joined(CID, seat.connection_id)
    scene.presence.greet(seat)
    await looked_up.wait()
    (outcome,) = await scene.stores.messages.append_batch([Draft(CID, ANN, "1", "hi")], 1)
    assert isinstance(outcome, Appended)
    scene.bus.publish([Published(outcome.event, None)])
    stored.set()
    await scene.settled()
    assert presence_frames(ann) == [(CID, True)]
    assert presence_frames(seat) == [(ANN, True)]


async def test_hidden_presence_is_seen_by_nobody_and_sees_others(scene: Scene) -> None:
    await scene.stores.people.set_preferences(BOB, shares_presence=False)
    ann, bob = await scene.come(ANN), await scene.come(BOB)
    assert presence_frames(ann) == []
    assert presence_frames(bob) == [(ANN, True)]
    await scene.stores.people.set_preferences(BOB, shares_presence=True)
    await scene.reconsidered(BOB)
    await scene.stores.people.set_preferences(BOB, shares_presence=False)
    await scene.reconsidered(BOB)
    assert presence_frames(ann) == [(BOB, True), (BOB, False)]


async def test_going_while_hidden_tells_nothing(hasty: Scene) -> None:
    await hasty.stores.people.set_preferences(BOB, shares_presence=False)
    ann, bob = await hasty.come(ANN), await hasty.come(BOB)
    await hasty.go(bob)
    await until(lambda: BOB not in hasty.presence._online)
    await hasty.settled()
    assert presence_frames(ann) == []


@pytest.mark.parametrize(("blocker", "blocked"), [(ANN, BOB), (BOB, ANN)])
async def test_a_block_hides_both_from_each_other(
    scene: Scene, blocker: UserId, blocked: UserId
) -> None:
    ann, bob = await scene.come(ANN), await scene.come(BOB)
    await scene.stores.people.block(blocker, blocked, 1)
    await scene.reconsidered(blocker, blocked)
    assert presence_frames(ann) == [(BOB, True), (BOB, False)]
    assert presence_frames(bob) == [(ANN, True), (ANN, False)]
    scene.presence.typing(ANN, BOB, active=True)
    scene.presence.typing(BOB, ANN, active=True)
    assert typing_frames(ann) == typing_frames(bob) == []
    await scene.stores.people.unblock(blocker, blocked)
    await scene.reconsidered(blocker, blocked)
    assert presence_frames(ann)[-1] == (BOB, True)
    assert presence_frames(bob)[-1] == (ANN, True)


async def test_typing_reaches_every_device_of_the_peer_and_nobody_else(scene: Scene) -> None:
    ann, cid = await scene.come(ANN), await scene.come(CID)
    bob, phone = await scene.come(BOB), await scene.come(BOB)
    scene.presence.typing(ANN, BOB, active=True)
    shown = {"type": "typing", "from": ANN, "active": True, "expires_in_ms": 6000}
    assert typing_frames(bob) == typing_frames(phone) == [shown]
    scene.presence.typing(ANN, CID, active=True)
    scene.presence.typing(CID, ANN, active=True)
    assert typing_frames(ann) == typing_frames(cid) == []


async def test_typing_is_told_once_a_second_and_its_end_once(scene: Scene) -> None:
    bob = await scene.come(BOB)
    await scene.come(ANN)

    def type_and_count(*active: bool) -> int:
        before = len(typing_frames(bob))
        for each in active:
            scene.presence.typing(ANN, BOB, active=each)
        return len(typing_frames(bob)) - before

    assert type_and_count(False) == 0
    assert type_and_count(True, True, True) == 1
    assert type_and_count(False, False) == 1
    assert type_and_count(True, False, True, False) == 0
    scene.clock.advance(1)
    assert type_and_count(True, True) == 1
    scene.clock.advance(0.9)
    assert type_and_count(True) == 0
    scene.clock.advance(-3600)
    assert type_and_count(True) == 1


async def test_who_is_gone_leaves_nothing_behind(hasty: Scene) -> None:
    bob, ann = await hasty.come(BOB), await hasty.come(ANN)
    hasty.presence.typing(ANN, BOB, active=True)
    await hasty.go(ann)
    await hasty.go(bob)
    await until(lambda: not hasty.presence._online)
    assert hasty.presence._typed_at == {}
    assert hasty.presence._leaving == {}


async def test_whoever_goes_is_looked_for_among_nobody_else_who_typed(hasty: Scene) -> None:
    """When twenty thousand went together, each cost a walk through all who had typed."""

    class NeverWalked(dict[object, object]):
        def __iter__(self) -> Iterator[object]:
            pytest.fail("somebody walks through all who typed")

    hasty.presence._typed_at = NeverWalked()  # type: ignore[assignment]
    bob, ann = await hasty.come(BOB), await hasty.come(ANN)
    hasty.presence.typing(ANN, BOB, active=True)
    await hasty.go(ann)
    await until(lambda: len(hasty.presence._online) == 1)
    await hasty.go(bob)


async def test_store_that_fails_costs_a_notice_and_not_the_presence(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann = await scene.come(ANN)

    async def fail(*_: object) -> None:
        raise StoreUnavailable("locked")

    with monkeypatch.context() as patch:
        patch.setattr(scene.stores.people, "circle", fail)
        await scene.come(BOB)
    assert presence_frames(ann) == []
    await scene.come(BOB)
    assert presence_frames(ann) == [(BOB, True)]


async def test_everything_told_is_told_to_peers_alone(scene: Scene) -> None:
    for user in (ANN, BOB, CID):
        await scene.come(user)
    notices = [notice for notice in scene.told if isinstance(notice, PresenceNotice)]
    assert {(n.user, to) for n in notices for to in n.to} == {(ANN, BOB), (BOB, ANN)}
