"""A gateway among others: its people see their logs in order and once, whatever the bus loses."""

import asyncio
from collections.abc import Awaitable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.ids import ConnectionId, ConversationId, UserId
from tests.support.fake_logs import FakeBus, FakeLogs
from tests.support.manual_clock import ManualTimers
from tests.support.talk import ANN, BOB, CID
from tests.support.waiting import until
from tests.support.wire import Seat
from ws_gateway.conversations import Event, Look, Notice, Published, Receipt, TypingNotice
from ws_gateway.delivery.connection_map import ConnectionMap
from ws_gateway.delivery.following import Following
from ws_gateway.delivery.rendering import Rendering
from ws_gateway.metrics import Metrics
from ws_gateway.ports import StoreUnavailable
from ws_gateway.protocol.cursor import Cursors


class Gateway:
    """What follows, with people in their seats."""

    def __init__(self, logs: FakeLogs | None = None) -> None:
        self.logs = logs or FakeLogs()
        self.bus = FakeBus()
        self.timers = ManualTimers()
        self.metrics = Metrics()
        self.connections = ConnectionMap(Rendering(Cursors("e")), lambda deliveries: None)
        self.settling: asyncio.Event | None = None
        """While it is there, a commit is under way until it is set."""
        self.following = Following(
            self.logs,
            self.bus,
            self.connections,
            deliver=self.connections.deliver,
            settled=self.settled,
            metrics=self.metrics,
            linger_s=15,
            call_later=self.timers.call_later,
        )

    async def settled(self) -> None:
        """What `Messenger.settled` does."""
        if self.settling is not None:
            await self.settling.wait()

    async def come(self, user_id: UserId) -> Seat:
        """Connect."""
        await self.following.follow(user_id)
        seat = Seat(user_id)
        self.connections.add(seat)
        return seat

    def go(self, seat: Seat) -> None:
        """Disconnect."""
        self.connections.remove(seat)
        self.following.unfollow(seat.identity.user_id)

    def told(self, viewer: UserId, *events: Event) -> None:
        """The bus brings what another gateway published."""
        self.bus.arrive(viewer, *(Published(event, None) for event in events))

    async def idle(self) -> None:
        """Wait until no log is being read."""
        await until(lambda: all(log.healing is None for log in self.following._logs.values()))


def positions(seat: Seat) -> list[int | None]:
    """Where in the log of the seat's owner what it was given was."""
    return [position for frame, position in seat.delivered if frame["type"] == "message"]


async def drained() -> None:
    """Let everything go on that can."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_what_others_and_we_commit_arrives_in_the_order_of_the_log() -> None:
    gateway = Gateway()
    gateway.logs.commit(ANN, BOB)
    bob = await gateway.come(BOB)
    assert gateway.following.position_of(BOB) == 1
    theirs = gateway.logs.commit(ANN, BOB)
    ours = gateway.logs.commit(CID, BOB)
    gateway.bus.publish([Published(ours, None)])
    assert positions(bob) == []
    gateway.told(BOB, theirs)
    assert positions(bob) == [2, 3]
    gateway.told(BOB, theirs, ours)
    assert positions(bob) == [2, 3]


async def test_gap_that_stays_is_read_from_the_store() -> None:
    gateway = Gateway()
    bob = await gateway.come(BOB)
    events = [gateway.logs.commit(ANN, BOB) for _ in range(500)]
    gateway.told(BOB, events[-1])
    gateway.timers.advance(0.04)
    await drained()
    assert positions(bob) == []
    gateway.timers.advance(0.02)
    await until(lambda: len(bob.delivered) == 500)
    assert positions(bob) == list(range(1, 501))
    value = gateway.metrics.registry.get_sample_value("duet_gateway_healed_events_total")
    assert value == 499


async def test_check_finds_what_the_bus_never_brought() -> None:
    gateway = Gateway()
    ann, bob = await gateway.come(ANN), await gateway.come(BOB)
    gateway.logs.commit(CID, BOB)
    await gateway.following.check()
    await gateway.idle()
    assert positions(bob) == [1]
    assert positions(ann) == []
    gateway.logs.commit(CID, BOB)
    gateway.bus.arrive(BOB, Look(BOB))
    await gateway.idle()
    assert positions(bob) == [1, 2]


async def test_what_arrives_while_a_log_is_opened_is_kept() -> None:
    gateway = Gateway()
    gateway.logs.reads.close()
    first = asyncio.create_task(gateway.come(BOB))
    await gateway.logs.reads.arrivals(1)
    event = gateway.logs.commit(ANN, BOB)
    second = asyncio.create_task(gateway.come(BOB))
    gateway.told(BOB, event)
    gateway.logs.reads.open()
    await first
    await second
    assert gateway.following.position_of(BOB) == 1
    assert gateway.bus.listened == [BOB]


async def test_own_message_is_no_news_to_the_connection_that_sent_it() -> None:
    """The store shows it before the gateway knows of its commit."""
    gateway = Gateway()
    ann, phone, bob = await gateway.come(ANN), await gateway.come(ANN), await gateway.come(BOB)
    gateway.settling = asyncio.Event()
    event = gateway.logs.commit(ANN, BOB)
    gateway.bus.arrive(ANN, Look(ANN))
    gateway.bus.arrive(BOB, Look(BOB))
    await drained()
    assert positions(ann) == positions(phone) == positions(bob) == []
    gateway.bus.publish([Published(event, ann.connection_id)])
    gateway.settling.set()
    await gateway.idle()
    assert positions(ann) == []
    assert positions(phone) == positions(bob) == [1]


async def test_check_waits_for_a_commit_and_then_reads_nothing() -> None:
    gateway = Gateway()
    ann = await gateway.come(ANN)
    gateway.settling = asyncio.Event()
    event = gateway.logs.commit(ANN, BOB)
    check = asyncio.create_task(gateway.following.check())
    await drained()
    gateway.bus.publish([Published(event, ann.connection_id)])
    gateway.settling.set()
    await check
    assert gateway.following._logs[ANN].healing is None
    assert ann.delivered == []


async def test_everything_but_events_passes_straight_through() -> None:
    gateway = Gateway()
    bob = await gateway.come(BOB)
    late, later = gateway.logs.commit(ANN, BOB), gateway.logs.commit(ANN, BOB)
    notices: list[Notice] = [
        TypingNotice(ANN, BOB, True),
        Published(later, None),
        Receipt(ConversationId("c"), ANN, BOB, 1, 0, True, None),
        Published(late, None),
    ]
    gateway.bus.arrive(BOB, *notices)
    assert [frame["type"] for frame in bob.ephemeral] == ["typing"]
    assert [frame["type"] for frame, _ in bob.delivered] == ["receipt", "message", "message"]


async def test_log_is_followed_a_little_longer_than_anybody_is_there() -> None:
    gateway = Gateway()
    bob = await gateway.come(BOB)
    gateway.go(bob)
    gateway.timers.advance(14)
    gateway.told(BOB, gateway.logs.commit(ANN, BOB))
    bob = await gateway.come(BOB)
    assert gateway.following.position_of(BOB) == 1
    gateway.timers.advance(20)
    assert gateway.bus.listened == [BOB]
    gateway.go(bob)
    gateway.timers.advance(15)
    assert gateway.bus.listened == []
    gateway.told(BOB, gateway.logs.commit(ANN, BOB))
    await gateway.come(BOB)
    assert gateway.following.position_of(BOB) == 2


async def test_gap_that_opened_while_nobody_was_there_is_closed_for_who_comes() -> None:
    gateway = Gateway()
    gateway.go(await gateway.come(BOB))
    gateway.logs.commit(ANN, BOB)
    gateway.told(BOB, gateway.logs.commit(ANN, BOB))
    bob = await gateway.come(BOB)
    gateway.timers.advance(0.05)
    await gateway.idle()
    assert positions(bob) == [1, 2]


async def test_store_that_is_away_refuses_who_comes_and_leaves_nothing() -> None:
    gateway = Gateway()
    gateway.logs.available = False
    with pytest.raises(StoreUnavailable):
        await gateway.come(BOB)
    gateway.timers.advance(0)
    assert gateway.bus.listened == []
    assert gateway.timers.pending == 0
    gateway.logs.available = True
    await gateway.come(BOB)
    assert gateway.bus.listened == [BOB]


async def test_who_gives_up_coming_leaves_nothing() -> None:
    gateway = Gateway()
    gateway.logs.reads.close()
    coming = asyncio.create_task(gateway.come(BOB))
    await gateway.logs.reads.arrivals(1)
    coming.cancel()
    with pytest.raises(asyncio.CancelledError):
        await coming
    gateway.timers.advance(0)
    gateway.logs.reads.open()
    await drained()
    assert gateway.following._logs == {}
    assert gateway.bus.listened == []


async def test_log_that_cannot_be_read_is_read_a_moment_later() -> None:
    gateway = Gateway()
    bob = await gateway.come(BOB)
    gateway.logs.commit(ANN, BOB)
    gateway.told(BOB, gateway.logs.commit(ANN, BOB))
    gateway.logs.available = False
    gateway.timers.advance(0.05)
    await gateway.idle()
    gateway.logs.available = True
    gateway.timers.advance(1)
    await gateway.idle()
    assert positions(bob) == [1, 2]


async def test_event_that_is_nowhere_is_not_waited_for() -> None:
    gateway = Gateway()
    bob = await gateway.come(BOB)
    elsewhere = FakeLogs()
    for _ in range(5):
        foreign = elsewhere.commit(ANN, BOB)
    gateway.told(BOB, foreign)
    gateway.timers.advance(0.05)
    await gateway.idle()
    gateway.told(BOB, gateway.logs.commit(ANN, BOB))
    assert positions(bob) == [1]


async def test_receipts_that_were_not_heard_are_told_when_the_bus_is_back() -> None:
    gateway = Gateway()
    gateway.logs.commit(ANN, BOB)
    ann = await gateway.come(ANN)
    running = asyncio.create_task(gateway.following.run())
    gateway.bus.is_connected = False
    cid = await gateway.come(CID)
    gateway.bus.publish([Published(gateway.logs.commit(ANN, BOB), ann.connection_id)])
    conversation = gateway.logs.logs[ANN][0].message.conversation
    gateway.logs.receipts[ANN] = [(conversation, BOB, 2, 1), (conversation, ANN, 1, 1)]
    await drained()
    assert ann.delivered == []
    gateway.bus.is_connected = True
    await until(lambda: len(ann.delivered) == 2)
    assert gateway.logs.asked_receipts == [(ANN, 1), (CID, 0)]
    assert [(f["user"], f["received"], f["read"]) for f, _ in ann.delivered] == [
        (BOB, 2, 1),
        (ANN, 1, 1),
    ]
    assert cid.delivered == []
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_bus_that_is_back_makes_us_look_at_once() -> None:
    gateway = Gateway()
    bob = await gateway.come(BOB)
    running = asyncio.create_task(gateway.following.run())
    gateway.bus.is_connected = False
    await drained()
    gateway.logs.commit(ANN, BOB)
    gateway.bus.is_connected = True
    await until(lambda: positions(bob) == [1])
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


class Storm:
    """Two gateways' commits, a network that loses, doubles and mixes up, and slow reads."""

    def __init__(self) -> None:
        self.gateway = Gateway()
        self.network: list[tuple[UserId, Published]] = []
        self.unpublished: list[Published] = []
        self.seats: dict[UserId, Seat] = {}
        self.own: set[tuple[UserId, int]] = set()
        """Where in whose logs is what their connection here has sent."""
        self.tasks: list[asyncio.Future[None]] = []

    async def begin(self) -> None:
        for user in (ANN, BOB):
            self.seats[user] = await self.gateway.come(user)

    def do(self, what: str, number: int) -> None:
        gateway, logs = self.gateway, self.gateway.logs
        sender, recipient = ((ANN, BOB), (BOB, ANN), (CID, ANN))[number % 3]
        match what:
            case "commit there":
                event = logs.commit(sender, recipient)
                self.network += [
                    (u, Published(event, ConnectionId("n"))) for u in (sender, recipient)
                ]
            case "commit here":
                event = logs.commit(sender, recipient)
                seat = self.seats.get(sender)
                self.unpublished.append(Published(event, seat.connection_id if seat else None))
                self.own.add((sender, event.position))
                gateway.settling = gateway.settling or asyncio.Event()
            case "publish":
                notices, self.unpublished = self.unpublished, []
                gateway.bus.publish(notices)
                if gateway.settling is not None:
                    gateway.settling.set()
                    gateway.settling = None
            case "bring" | "bring and keep" | "lose":
                self.bring(what, number)
            case "look":
                gateway.bus.arrive(sender, Look(sender))
            case "tick":
                gateway.timers.advance(0.05)
            case "check":
                self.start(gateway.following.check())
            case "slow":
                logs.reads.close()
            case "fast":
                logs.reads.open()

    def bring(self, what: str, number: int) -> None:
        if self.network:
            viewer, published = self.network[number % len(self.network)]
            if what != "bring and keep":
                self.network.remove((viewer, published))
            if what != "lose":
                self.gateway.bus.arrive(viewer, published)

    def start(self, work: Awaitable[None]) -> None:
        self.tasks.append(asyncio.ensure_future(work))

    async def end(self) -> None:
        self.gateway.logs.reads.open()
        self.do("publish", 0)
        await asyncio.gather(*self.tasks)
        await self.gateway.following.check()
        await self.gateway.idle()


OPS = (
    *("commit there", "commit here", "publish", "bring", "bring", "bring and keep"),
    *("lose", "tick", "tick", "look", "check", "slow", "fast"),
)
Steps = list[tuple[str, int, bool]]


STEP = st.tuples(st.sampled_from(OPS), st.integers(0, 50), st.booleans())


@settings(max_examples=200, deadline=None)
@given(st.lists(STEP, min_size=20, max_size=80))
def test_each_sees_the_whole_log_in_order_and_once(steps: Steps) -> None:
    asyncio.run(ride_out(steps))


async def ride_out(steps: Sequence[tuple[str, int, bool]]) -> None:
    storm = Storm()
    await storm.begin()
    for what, number, pause in steps:
        storm.do(what, number)
        if pause:
            await drained()
    await storm.end()
    for user, seat in storm.seats.items():
        log = [event.position_for(user) for event in storm.gateway.logs.logs[user]]
        assert positions(seat) == [p for p in log if (user, p) not in storm.own]
