"""A gateway among others: it says that it lives, and does what follows from what it hears."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from pathlib import Path

import pytest

from shared.ids import ConnectionId, UserId
from tests.support.fake_logs import FakeBus, FakeLogs
from tests.support.talk import ANN, BOB, CID, say
from tests.support.waiting import until
from tests.support.wire import Seat
from ws_gateway import presence
from ws_gateway.adapters.sqlite_stores import SqliteStores, open_sqlite_stores
from ws_gateway.conversations import Evicted, PresenceNotice
from ws_gateway.delivery.connection_map import ConnectionMap
from ws_gateway.delivery.following import Following
from ws_gateway.delivery.rendering import Rendering
from ws_gateway.heartbeat import Heartbeat
from ws_gateway.metrics import Metrics
from ws_gateway.ports import Arrival, Pulse, StoreUnavailable
from ws_gateway.presence import Presence
from ws_gateway.protocol.cursor import Cursors


class FakeAttendance:
    """An `Attendance` that says what a test wants, and keeps what it is told."""

    def __init__(self) -> None:
        self.available = True
        self.arrival = Arrival()
        self.pulse = Pulse()
        self.is_nowhere = True
        self.others: set[UserId] = set()
        self.said: list[tuple[object, ...]] = []
        self.refused: list[tuple[object, ...]] = []
        self.rows: set[ConnectionId] = set()
        self.before_restoring: Callable[[], Awaitable[None]] | None = None

    async def arrive(self, user_id: UserId, connection_id: ConnectionId) -> Arrival:
        self._say("arrive", user_id)
        self.rows.add(connection_id)
        return self.arrival

    async def leave(self, connection_id: ConnectionId, *, may_return: bool) -> None:
        self._say("leave", may_return)
        self.rows.discard(connection_id)

    async def depart(self, user_id: UserId) -> bool:
        self._say("depart", user_id)
        return self.is_nowhere

    async def elsewhere(self, user_ids: Collection[UserId], viewer: UserId) -> set[UserId]:
        if not self.available:
            raise StoreUnavailable("it is switched off")
        return self.others.intersection(user_ids)

    async def beat(self, *, hears: bool) -> Pulse:
        self._say("beat", hears)
        return self.pulse

    async def restore(self, connections: Sequence[tuple[UserId, ConnectionId]]) -> None:
        self._say("restore", *(user_id for user_id, _ in connections))
        if self.before_restoring is not None:
            await self.before_restoring()
        self.rows = {connection_id for _, connection_id in connections}

    def _say(self, *what: object) -> None:
        if not self.available:
            self.refused.append(what)
            raise StoreUnavailable("it is switched off")
        self.said.append(what)


class World:
    """A gateway's parts that know of others."""

    def __init__(self, stores: SqliteStores, *, hears_others: bool = True) -> None:
        rendering = Rendering(Cursors("e"))
        self.attendance = FakeAttendance()
        self.bus = FakeBus()
        self.connections = ConnectionMap(rendering, lambda deliveries: None)
        self.presence = Presence(
            self.connections,
            stores.people,
            self.attendance,
            self.bus,
            rendering,
            offline_after_s=0,
            workers=3,
        )
        self.following = Following(
            FakeLogs(),
            self.bus,
            self.connections,
            deliver=self.connections.deliver,
            settled=self._settled,
            metrics=Metrics(),
        )
        self.heartbeat = Heartbeat(
            self.attendance,
            self.bus,
            self.connections,
            self.presence,
            self.following,
            hears_others=hears_others,
        )

    async def _settled(self) -> None: ...

    def come(self, user_id: UserId) -> Seat:
        """Connect."""
        seat = Seat(user_id)
        self.connections.add(seat)
        self.presence.joined(user_id, seat.connection_id)
        return seat

    def go(self, seat: Seat) -> None:
        """Disconnect."""
        was_last = self.connections.remove(seat)
        self.presence.left(seat.identity.user_id, seat.connection_id, was_last=was_last)

    def told(self) -> list[tuple[UserId, bool]]:
        """Who was said to have come, or gone."""
        notices = [n for n in self.bus.published if isinstance(n, PresenceNotice)]
        return [(notice.user, notice.online) for notice in notices]


@pytest.fixture
async def stores(tmp_path: Path) -> AsyncIterator[SqliteStores]:
    """Ann has talked with Bob and Cid."""
    async with open_sqlite_stores(tmp_path / "messages.db") as stores:
        await say(stores.messages, ANN, BOB, "hi")
        await say(stores.messages, ANN, CID, "hi")
        yield stores


@contextlib.asynccontextmanager
async def at_work(world: World) -> AsyncIterator[World]:
    """Let the presence do its work."""
    task = asyncio.create_task(world.presence.run())
    try:
        yield world
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
async def world(stores: SqliteStores) -> AsyncIterator[World]:
    async with at_work(World(stores)) as world:
        yield world


async def test_who_was_on_another_gateway_before_is_told_of_by_nobody(world: World) -> None:
    world.attendance.arrival = Arrival(is_first=False)
    world.come(ANN)
    await until(lambda: ANN in world.presence._online)
    world.attendance.arrival = Arrival(is_first=True)
    world.come(BOB)
    await until(lambda: world.told() == [(BOB, True)])


async def test_connections_that_are_too_many_are_evicted_by_notice(world: World) -> None:
    world.attendance.arrival = Arrival(evicted=[ConnectionId("n_1")])
    world.come(ANN)
    await until(lambda: Evicted(ANN, ConnectionId("n_1")) in world.bus.published)


async def test_who_is_still_elsewhere_is_not_told_offline(world: World) -> None:
    world.attendance.is_nowhere = False
    seat = world.come(ANN)
    await until(lambda: world.told() == [(ANN, True)])
    world.go(seat)
    await until(lambda: ANN not in world.presence._online)
    assert world.told() == [(ANN, True)]


async def test_peers_elsewhere_are_seen_and_greeted_with(world: World) -> None:
    world.attendance.others = {BOB}
    seat = world.come(ANN)
    world.presence.greet(seat)
    await until(lambda: bool(seat.ephemeral))
    assert [(f["user"], f["online"]) for f in seat.ephemeral] == [(BOB, True)]
    assert await world.presence.online([BOB, CID], ANN) == {BOB}
    world.attendance.available = False
    assert await world.presence.online([BOB, CID], ANN) == set()


async def test_departure_that_could_not_be_kept_is_tried_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(presence, "_RETRY_S", 0.01)
    seat = world.come(ANN)
    await until(lambda: world.told() == [(ANN, True)])
    world.attendance.available = False
    world.go(seat)
    await until(lambda: ("depart", ANN) in world.attendance.refused)
    world.attendance.available = True
    await until(lambda: world.told() == [(ANN, True), (ANN, False)])


async def test_attendance_that_missed_something_is_restored(world: World) -> None:
    world.attendance.available = False
    world.come(ANN)
    await until(lambda: world.presence.attendance_is_wrong)
    with pytest.raises(StoreUnavailable):
        await world.heartbeat.beat()
    world.attendance.available = True
    await world.heartbeat.beat()
    await world.heartbeat.beat()
    assert world.attendance.said == [("beat", True), ("restore", ANN), ("beat", True)]


async def test_who_comes_or_goes_during_a_restore_is_kept_as_they_are(world: World) -> None:
    ann, attendance = world.come(ANN), world.attendance
    await until(lambda: attendance.rows == {ann.connection_id})
    bob: list[Seat] = []

    async def come_and_go() -> None:
        world.go(ann)
        bob.append(world.come(BOB))
        await until(lambda: attendance.rows == {bob[0].connection_id})

    attendance.before_restoring = come_and_go
    world.presence.attendance_is_wrong = True
    await world.heartbeat.beat()
    assert attendance.rows == {ann.connection_id}
    await until(lambda: attendance.rows == {bob[0].connection_id})
    assert not world.presence.attendance_is_wrong


async def test_gateway_that_was_taken_for_dead_tells_of_its_people_again(world: World) -> None:
    world.come(ANN)
    await until(lambda: world.told() == [(ANN, True)])
    world.attendance.pulse = Pulse(was_forgotten=True)
    await world.heartbeat.beat()
    assert ("restore", ANN) in world.attendance.said
    assert world.told() == [(ANN, True), (ANN, True)]


async def test_people_of_dead_gateways_are_told_offline_unless_they_are_back(world: World) -> None:
    world.come(CID)
    world.attendance.pulse = Pulse(departed=[(ANN, 1000), (BOB, 1000), (CID, 1000)])
    world.attendance.others = {BOB}
    await world.heartbeat.beat()
    await until(lambda: (ANN, False) in world.told())
    assert {user for user, online in world.told() if not online} == {ANN}


@pytest.mark.parametrize(
    ("hears_others", "connected", "pulse", "often"),
    [
        (True, True, Pulse(others=2), False),
        (True, True, Pulse(others=2, others_are_deaf=True), True),
        (True, False, Pulse(others=2), True),
        (False, True, Pulse(others=2), True),
        (False, True, Pulse(), False),
    ],
)
async def test_store_is_looked_at_often_while_a_gateway_may_not_be_heard(
    stores: SqliteStores, hears_others: bool, connected: bool, pulse: Pulse, often: bool
) -> None:
    world = World(stores, hears_others=hears_others)
    world.bus.is_connected = connected
    world.attendance.pulse = pulse
    await world.heartbeat.beat()
    assert world.following._looks_often is often
    assert world.attendance.said == [("beat", hears_others and connected)]
