"""The watch over sessions: the feed, its gaps, the poll, and news that overtakes a verdict."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from shared.ids import ConnectionId, UserId
from shared.introspection import TokenPair
from tests.support.fake_profile import FakeProfile, FakeSession
from tests.support.manual_clock import ManualClock
from tests.support.waiting import until
from ws_gateway.adapters.sqlite_stores import SqliteStores, open_sqlite_stores
from ws_gateway.delivery.connection_map import ConnectionMap, LiveConnection
from ws_gateway.delivery.rendering import Rendering
from ws_gateway.identity import Identity
from ws_gateway.metrics import Metrics
from ws_gateway.protocol.cursor import Cursors
from ws_gateway.revocations import RevocationWatch


class Connected:
    """A connection of a session."""

    def __init__(self, identity: Identity) -> None:
        self.connection_id = ConnectionId(f"n_{identity.session_id}")
        self.identity = identity

    def deliver(self, wire: bytes, position: int | None) -> None: ...
    def deliver_ephemeral(self, wire: bytes) -> None: ...


class World:
    """A watch between a fake feed and a map of connections."""

    def __init__(self, stores: SqliteStores) -> None:
        self.profile = FakeProfile()
        self.clock = ManualClock()
        self.connections = ConnectionMap(Rendering(Cursors("e")), lambda _deliveries: None)
        self.ended: list[LiveConnection] = []
        self.deleted: list[UserId] = []
        self.people = stores.people
        self.watch = self.new_watch()

    def new_watch(self, poll_interval_s: float = 0.01) -> RevocationWatch:
        return RevocationWatch(
            self.profile,
            self.connections,
            self.people,
            Metrics(),
            end_connection=self._end,
            user_deleted=self.deleted.append,
            poll_interval_s=poll_interval_s,
            remember_s=60,
            max_backoff_s=0.01,
            now=self.clock,
        )

    def _end(self, connection: LiveConnection) -> None:
        self.ended.append(connection)
        self.connections.remove(connection)

    async def connect(self, session: FakeSession) -> Connected:
        identity = await self.profile.verify(TokenPair(session.access_token))
        assert identity is not None
        connection = Connected(identity)
        self.connections.add(connection)
        return connection

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(self.watch.run()), asyncio.create_task(self.watch.poll())]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with open_sqlite_stores(tmp_path / "messages.db") as stores:
        yield World(stores)


async def test_revoked_connections_end_and_others_stay(world: World) -> None:
    ann, bob = world.profile.sign_up("ann"), world.profile.sign_up("bob")
    a, _ = await world.connect(ann), await world.connect(bob)
    async with world.listening():
        await until(world.watch.connected.is_set)
        world.profile.log_out(ann)
        await until(lambda: world.ended == [a])
    assert len(world.connections) == 1


async def test_first_connection_checks_every_session(world: World) -> None:
    ann = world.profile.sign_up("ann")
    a = await world.connect(ann)
    world.profile.log_out(ann)  # before anybody listened
    async with world.listening():
        await until(lambda: world.ended == [a])


async def test_feed_that_breaks_is_listened_to_again_from_where_it_was(world: World) -> None:
    ann = world.profile.sign_up("ann")
    a = await world.connect(ann)
    async with world.listening():
        await until(world.watch.connected.is_set)
        world.profile.feed_works = False
        world.profile.break_feed()
        await until(lambda: not world.watch.connected.is_set())
        world.profile.log_out(ann)
        world.profile.status_checks.close()  # so that the poll does not find it
        world.profile.feed_works = True
        await until(lambda: world.ended == [a])


async def test_restarted_watch_hears_what_happened_meanwhile(world: World) -> None:
    ann = world.profile.sign_up("ann")
    async with world.listening():
        await until(world.watch.connected.is_set)
    world.profile.delete_user(ann.user_id)
    world.watch = world.new_watch()
    async with world.listening():
        await until(lambda: world.deleted == [ann.user_id])
    assert await world.people.users_to_erase() == [ann.user_id]


async def test_poll_finds_what_a_broken_feed_does_not_tell(world: World) -> None:
    ann, bob = world.profile.sign_up("ann"), world.profile.sign_up("bob")
    a, _ = await world.connect(ann), await world.connect(bob)
    world.profile.feed_works = False
    async with world.listening():
        world.profile.log_out(ann)
        await until(lambda: world.ended == [a])


async def test_poll_stops_nothing_while_nobody_can_tell(world: World) -> None:
    ann = world.profile.sign_up("ann")
    await world.connect(ann)
    world.profile.available = False
    async with world.listening():
        await world.profile.status_checks.arrivals(3)
    assert world.ended == []


async def test_poll_asks_nothing_while_the_feed_is_connected(world: World) -> None:
    await world.connect(world.profile.sign_up("ann"))
    async with world.listening():
        await until(world.watch.connected.is_set)
        await world.profile.status_checks.arrivals(1)  # of the first connection
        world.profile.status_checks.close()
        ann = world.profile.sign_up("ann2")
        a = await world.connect(ann)
        world.profile.log_out(ann)
        await until(lambda: world.ended == [a])


async def test_forgotten_feed_checks_every_session(world: World) -> None:
    ann = world.profile.sign_up("ann")
    a = await world.connect(ann)
    async with world.listening():
        await until(world.watch.connected.is_set)
        world.profile.log_out_unheard(ann)
        world.profile.forget_feed()
        await until(lambda: world.ended == [a])


async def test_forgotten_feed_finds_the_deleted_among_the_known(world: World) -> None:
    ann, bob = world.profile.sign_up("ann"), world.profile.sign_up("bob")
    await world.people.block(ann.user_id, bob.user_id, 1)
    async with world.listening():
        await until(world.watch.connected.is_set)
        world.profile.delete_user(bob.user_id, heard=False)
        world.profile.forget_feed()
        await until(lambda: world.deleted == [bob.user_id])
    assert await world.people.users_to_erase() == [bob.user_id]


async def test_news_that_overtakes_a_verdict_is_remembered_for_a_minute(world: World) -> None:
    ann, bob = world.profile.sign_up("ann"), world.profile.sign_up("bob")
    verdicts = [await world.profile.verify(TokenPair(s.access_token)) for s in (ann, bob)]
    async with world.listening():
        await until(world.watch.connected.is_set)
        world.profile.log_out(ann)
        await until(lambda: world.watch.has_ended(verdicts[0]))  # type: ignore[arg-type]
    assert verdicts[1] is not None
    assert verdicts[0] is not None
    assert not world.watch.has_ended(verdicts[1])
    world.clock.advance(61)
    assert not world.watch.has_ended(verdicts[0])


async def test_attempts_go_on_while_the_profile_service_is_down(world: World) -> None:
    world.profile.available = False
    async with world.listening():
        await until(lambda: world.profile.feed_calls >= 5)
        world.profile.available = True
        await until(world.watch.connected.is_set)
