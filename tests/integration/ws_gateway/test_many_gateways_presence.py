"""Who is where, over several gateways: presence, evictions, blocks, ended sessions, erasure."""

import asyncio

import pytest

from shared.postgres import Connection
from tests.support.client import Client
from tests.support.fake_profile import FakeSession
from tests.support.gateway import TestGateway
from tests.support.gateways import Gateways
from tests.support.waiting import until
from ws_gateway.adapters.postgres_stores import PostgresStores


@pytest.fixture
def ann(gateways: Gateways) -> FakeSession:
    return gateways.profile.sign_up("ann")


@pytest.fixture
def bob(gateways: Gateways) -> FakeSession:
    return gateways.profile.sign_up("bob")


async def introduce(a: Client, b: Client, ann: FakeSession, bob: FakeSession) -> None:
    """Let two talk, and know that the other one is here."""
    await a.say(bob.user_id, "hi", "1")
    await b.expect("message")
    await a.expect("presence", user=bob.user_id, online=True)
    await b.expect("presence", user=ann.user_id, online=True)


async def is_online(asking: Client, *, past: tuple[str, ...] = ()) -> bool:
    """Whether the list of conversations shows its only peer as online."""
    await asking.send(type="conversations", id="list")
    answer = await asking.expect("conversations", id="list", past=past)
    return bool(answer["items"][0]["peer"].get("online", False))


async def test_people_see_each_other_come_and_go_across_gateways(
    gateways: Gateways, ann: FakeSession, bob: FakeSession
) -> None:
    async with gateways.running(offline_after_s=0.05) as (here, there), here.talking(ann) as a:
        async with there.talking(bob) as b:
            await introduce(a, b, ann, bob)
            assert await is_online(a)
            assert await is_online(b)
        gone = await a.expect("presence", user=bob.user_id, online=False)
        assert gone["last_seen"].endswith("Z")
        assert not await is_online(a)
        async with there.talking(bob) as b:
            await b.expect("presence", user=ann.user_id, online=True)
            await a.expect("presence", user=bob.user_id, online=True)


async def test_device_on_another_gateway_keeps_a_person_online(
    gateways: Gateways, ann: FakeSession, bob: FakeSession
) -> None:
    async with (
        gateways.running(3, offline_after_s=0.05) as (one, two, three),
        one.talking(ann) as a,
        two.talking(bob) as b,
    ):
        await introduce(a, b, ann, bob)
        async with three.talking(bob) as phone:
            await phone.expect("presence", user=ann.user_id, online=True)
            await b.socket.close()
            await until(lambda: bob.user_id not in two.gateway.presence._online)
            assert await is_online(a)
            assert [f["type"] for f in await a.arrived()] == []
        await a.expect("presence", user=bob.user_id, online=False)


async def test_hidden_presence_is_hidden_on_every_gateway(
    gateways: Gateways, ann: FakeSession, bob: FakeSession
) -> None:
    async with (
        gateways.running(3) as (one, two, three),
        one.talking(ann) as a,
        two.talking(bob) as b,
        three.talking(bob) as phone,
    ):
        await introduce(a, b, ann, bob)
        await phone.expect("message")
        await phone.ask("preferences", share_presence=False)
        while (await a.expect("presence", user=bob.user_id))["online"]:
            pass  # both gateways where Bob is may have introduced him
        assert not await is_online(a)
        await b.ask("preferences", share_presence=True)
        while not (await a.expect("presence", user=bob.user_id))["online"]:
            pass  # the second of them may have hidden him only now
        assert await is_online(a)


async def test_block_on_one_gateway_holds_on_the_others(
    gateways: Gateways, ann: FakeSession, bob: FakeSession
) -> None:
    async with (
        gateways.running() as (here, there),
        here.talking(ann) as a,
        there.talking(bob) as b,
    ):
        await introduce(a, b, ann, bob)
        await a.send(type="block", id="block", user=bob.user_id)
        await a.expect("done", id="block")
        await a.expect("presence", user=bob.user_id, online=False)
        await b.expect("presence", user=ann.user_id, online=False)
        await b.send(type="typing", to=ann.user_id, active=True)
        await b.send(type="send", id="2", to=ann.user_id, text="still there?")
        await b.expect_error("blocked", id="2")
        assert await a.arrived() == []


async def test_device_on_another_gateway_is_told_what_was_set(
    gateways: Gateways, ann: FakeSession, bob: FakeSession
) -> None:
    async with (
        gateways.running() as (here, there),
        here.talking(ann) as a,
        here.talking(ann) as tablet,
        there.talking(ann) as phone,
        there.talking(bob) as b,
    ):
        await a.send(type="block", id="block", user=bob.user_id)
        await a.expect("done", id="block")
        for other in (tablet, phone):
            await other.expect("changed", what="blocks")
            assert (await other.ask("blocks"))["users"] == [bob.user_id]
        held = await phone.ask("preferences", share_reads=False)
        for other in (a, tablet):
            await other.expect("changed", what="preferences")
            assert await other.ask("preferences") == held
        for client in (a, tablet, phone, b):
            assert await client.arrived() == []


async def test_oldest_connection_makes_room_for_one_on_another_gateway(
    gateways: Gateways, ann: FakeSession
) -> None:
    async with (
        gateways.running(3, max_connections_per_user=2) as (one, two, three),
        one.talking(ann) as oldest,
    ):
        await until_kept(one, connections=1)  # which is after `connected`
        async with two.talking(ann) as older, three.talking(ann) as newest:
            await oldest.expect_error("evicted")
            assert (await oldest.closed())[0] == 1008
            assert one.sample("duet_gateway_evictions_total") == 1
            for kept in (older, newest):
                assert await kept.arrived() == []


@pytest.mark.parametrize("how", ["everywhere", "one session", "unheard"])
async def test_ended_sessions_are_closed_on_every_gateway(
    gateways: Gateways, ann: FakeSession, how: str
) -> None:
    phone = gateways.profile.log_in(ann.user_id)
    async with (
        gateways.running(revocation_poll_interval_s=0.05) as (here, there),
        here.talking(ann) as a,
        there.talking(ann) as b,
        there.talking(phone) as c,
    ):
        match how:
            case "everywhere":
                gateways.profile.log_out_everywhere(ann.user_id)
            case "one session":
                gateways.profile.log_out(ann)
            case "unheard":
                gateways.profile.feed_works = False
                gateways.profile.break_feed()
                gateways.profile.log_out_unheard(ann)
        for connection in (a, b, c) if how == "everywhere" else (a, b):
            await connection.expect_error("session_ended")
            assert (await connection.closed())[0] == 3000
        if how != "everywhere":
            assert await c.arrived() == []


async def test_news_that_another_gateway_heard_first_is_heard_by_all(
    gateways: Gateways, ann: FakeSession
) -> None:
    """The place in the feed that the store knows is that of the gateway that is ahead."""
    async with gateways.running() as (here, there), there.talking(ann) as a:
        gateways.profile.feed_works = False
        gateways.profile.break_feed()
        await until(lambda: not there.gateway.revocations.connected.is_set())
        gateways.profile.log_out(ann)
        await here.gateway.stores.people.follow_feed("1.1")
        gateways.profile.feed_works = True
        await a.expect_error("session_ended")


async def test_deleted_account_is_erased_for_everybody_and_told_once(
    gateways: Gateways, ann: FakeSession, bob: FakeSession
) -> None:
    async with gateways.running(3) as (one, two, three), three.talking(bob) as b:
        async with one.talking(ann) as a, two.talking(ann) as phone:
            ack = await a.say(bob.user_id, "secret", "1")
            await phone.expect("message")
            await phone.say(bob.user_id, "another secret", "2")
            gateways.profile.delete_user(ann.user_id)
            for connection in (a, phone):
                await connection.expect("error", past=("message",), code="session_ended")
        for _ in range(2):
            await b.expect("message")
        await b.expect("erased", conversation=ack["conversation"])
        await until(lambda: not any(g.gateway.eraser._deleted for g in (one, two, three)))
        history = await b.ask("history", **{"with": ann.user_id, "limit": 10})
        assert [m["text"] for m in history["messages"]] == ["", ""]
        assert await b.arrived() == []


async def test_people_of_a_gateway_that_died_are_told_offline_and_back(
    gateways: Gateways, ann: FakeSession, bob: FakeSession
) -> None:
    async with (
        gateways.running() as (here, there),
        here.talking(ann) as a,
        there.talking(bob) as b,
    ):
        await introduce(a, b, ann, bob)
        await until_kept(there)
        await age(there)
        await beat(here)
        gone = await a.expect("presence", user=bob.user_id, online=False)
        assert gone["last_seen"].endswith("Z")
        assert not await is_online(a)
        await beat(there)
        await a.expect("presence", user=bob.user_id, online=True)
        assert await is_online(a)


async def test_attendance_that_was_lost_is_written_anew(
    gateways: Gateways, ann: FakeSession, bob: FakeSession
) -> None:
    """PostgreSQL empties both tables when it recovers from a crash."""
    async with (
        gateways.running() as (here, there),
        here.talking(ann) as a,
        there.talking(bob) as b,
    ):
        await introduce(a, b, ann, bob)
        await until_kept(there)
        await execute(there, "TRUNCATE gateways, attendance")
        assert not await is_online(a)
        await beat(there)
        assert await is_online(a)


async def execute(gateway: TestGateway, statement: str) -> object:
    """Run a statement in the gateways' database."""
    stores = gateway.gateway.stores
    assert isinstance(stores, PostgresStores)

    async def work(connection: Connection) -> object:
        return await connection.fetchval(statement)

    return await stores.database.autocommit(work)


async def until_kept(gateway: TestGateway, *, connections: int = 2) -> None:
    """Wait until the attendance has everybody."""
    async with asyncio.timeout(10):
        while await execute(gateway, "SELECT count(*) FROM attendance") != connections:
            pass


async def age(gateway: TestGateway) -> None:
    """Let a gateway's last beat be a minute ago."""
    assert gateway.gateway.heartbeat is not None
    name = gateway.gateway.heartbeat._attendance._gateway  # type: ignore[attr-defined]
    aged = "UPDATE gateways SET seen_at = seen_at - interval '1 minute'"
    await execute(gateway, f"{aged} WHERE id = '{name}'")


async def beat(gateway: TestGateway) -> None:
    """Let a gateway say that it lives."""
    assert gateway.gateway.heartbeat is not None
    await gateway.gateway.heartbeat.beat()
