"""Every submitted draft gets exactly one answer; what is stored is published, in commit order."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable

import pytest

from shared.ids import ConnectionId, UserId, new_user_id
from tests.support.fake_profile import FakeProfile, FakeSession
from tests.support.fake_store import FakeMessageStore
from tests.support.manual_clock import ManualClock
from tests.support.waiting import until
from ws_gateway.conversations import Draft, Notice, Published
from ws_gateway.messenger import Messenger
from ws_gateway.metrics import Metrics
from ws_gateway.protocol import frames
from ws_gateway.recipients import Recipients


class Bus:
    """Keeps what is published."""

    def __init__(self, happened: list[str]) -> None:
        self.published: list[Published] = []
        self._happened = happened
        self.fails = False

    def publish(self, notices: Iterable[Notice]) -> None:
        if self.fails:
            raise RuntimeError("a fault of ours")
        for notice in notices:
            assert isinstance(notice, Published)
            self.published.append(notice)
            self._happened.append(f"published {notice.event.message.client_id}")

    def subscribe(self, receive: object) -> None:
        raise AssertionError("nobody listens here")


class Sender:
    """A connection that keeps its answers."""

    def __init__(self, happened: list[str]) -> None:
        self.connection_id = ConnectionId("n_1")
        self.answers: list[frames.Ack | frames.Error] = []
        self._happened = happened

    def answer(self, frame: frames.ServerFrame) -> None:
        assert isinstance(frame, frames.Ack | frames.Error)
        self.answers.append(frame)
        self._happened.append(f"answered {frame.id}")

    @property
    def codes(self) -> dict[str | None, str]:
        """What each request was answered."""
        return {a.id: a.code if isinstance(a, frames.Error) else "ack" for a in self.answers}


class Leaving(Sender):
    """Its answers leave at the end of the loop's turn, as an outbox's do."""

    def answer(self, frame: frames.ServerFrame) -> None:
        super().answer(frame)
        leave = f"left {self.answers[-1].id}"
        asyncio.get_running_loop().call_soon(self._happened.append, leave)


class World:
    """A messenger at work between fakes."""

    def __init__(self, max_waiting: int = 5) -> None:
        self.happened: list[str] = []
        self.profile = FakeProfile()
        self.store = FakeMessageStore()
        self.clock = ManualClock()
        self.bus, self.sender = Bus(self.happened), Sender(self.happened)
        self.metrics = Metrics()
        self.departed: Callable[[], None] = lambda: None
        self.messenger = Messenger(
            self.store,
            Recipients(self.profile),
            self.bus,
            self.metrics,
            now=self.clock,
            depart=self._depart,
            begin_anew=lambda: self.happened.append("began anew"),
            max_waiting=max_waiting,
        )
        self.ann: FakeSession = self.profile.sign_up("ann")
        self.bob: FakeSession = self.profile.sign_up("bob")

    def submit(self, client_id: str, text: str = "hi", to: UserId | None = None) -> None:
        self.messenger.submit(
            Draft(self.ann.user_id, to or self.bob.user_id, client_id, text), self.sender
        )

    async def hold(self) -> None:
        """Hold the committer at a message, so that what is submitted next shares a batch."""
        arrived = len(self.store.batches)
        self.store.commits.close()
        self.submit("first")
        await self.store.commits.arrivals(arrived + 1)

    def _depart(self) -> None:
        self.departed()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run the committer; at the end everything that was taken has its answer."""
        run = asyncio.create_task(self.messenger.run())
        yield
        self.store.commits.open()
        self.profile.let_everybody_through()
        async with asyncio.timeout(5):
            await self.messenger.drain()
            await run


@pytest.fixture
async def world() -> World:
    return World()


async def test_message_is_acknowledged_then_published(world: World) -> None:
    async with world.running():
        world.submit("1")
    (ack,) = world.sender.answers
    assert isinstance(ack, frames.Ack)
    assert (ack.id, ack.seq, ack.duplicate, ack.sent_at) == (
        "1",
        1,
        False,
        "2027-01-15T08:00:00.000Z",
    )
    assert world.happened == ["answered 1", "published 1"]
    assert world.bus.published[0].origin == "n_1"


async def test_acks_leave_before_their_messages_are_published(world: World) -> None:
    world.departed = lambda: world.happened.append("left")
    async with world.running():
        world.submit("1")
        world.submit("2")
    assert world.happened == [
        *("answered 1", "answered 2", "left"),
        *("published 1", "published 2", "left"),
    ]


async def test_acks_of_a_large_batch_leave_first_though_more_waits() -> None:
    world = World(max_waiting=100)
    world.sender = Leaving(world.happened)
    numbers = [str(number) for number in range(50)]
    async with world.running():
        world.submit("bob is known")
        await until(lambda: len(world.bus.published) == 1)
        world.store.commits.close()
        world.submit("first")  # holds the committer, so that the others share a batch
        await world.store.commits.arrivals(2)
        for number in numbers:
            world.submit(number)
        world.store.commits.open()
        world.store.commits.close()
        await world.store.commits.arrivals(3)
        world.submit("last")
        world.store.commits.open()
        world.store.commits.close()  # the last one's commit takes a turn of the loop, as a real one
        await until(lambda: len(world.bus.published) == 52)
    assert world.happened[world.happened.index("answered 0") :] == [
        *(f"answered {number}" for number in numbers),
        *(f"left {number}" for number in numbers),
        *(f"published {number}" for number in numbers),
        *("answered last", "published last", "left last"),
    ]


@pytest.mark.parametrize("count", [1, 50], ids=["at once", "in the next turn of the loop"])
async def test_connections_begin_anew_when_what_is_stored_cannot_be_told(
    count: int, caplog: pytest.LogCaptureFixture
) -> None:
    world = World(max_waiting=100)
    async with world.running():
        world.submit("bob is known")
        await until(lambda: len(world.bus.published) == 1)
        await world.hold()
        for number in range(count):
            world.submit(str(number))
        world.store.commits.open()
        world.store.commits.close()
        await world.store.commits.arrivals(3)
        world.bus.fails = True
        world.submit("more waits, so that a large batch is told of later")
        world.store.commits.open()
        await until(lambda: "began anew" in world.happened)
        world.bus.fails = False
    assert "a fault of ours" in caplog.text
    caplog.clear()


async def test_ack_does_not_overtake_an_earlier_message_of_the_conversation(world: World) -> None:
    async with world.running():
        world.messenger.submit(
            Draft(world.bob.user_id, world.ann.user_id, "ann is known", "hi"), world.sender
        )
        world.submit("bob is known")
        await until(lambda: len(world.sender.answers) == 2)
        await world.hold()
        world.submit("a")
        reply = Draft(world.bob.user_id, world.ann.user_id, "b", "hi")
        world.messenger.submit(reply, Sender(world.happened))
        world.submit("c")
    assert world.store.batches[-1] == 3
    order = [happened for happened in world.happened if happened.split()[-1] in "abc"]
    assert order == [
        "answered a",
        "published a",
        "answered b",
        "published b",
        "answered c",
        "published c",
    ]


async def test_ack_of_one_device_does_not_overtake_a_message_of_another(world: World) -> None:
    async with world.running():
        world.submit("bob is known")
        await until(lambda: len(world.sender.answers) == 1)
        await world.hold()
        world.submit("a")
        world.sender = Sender(world.happened)
        world.submit("b")
        world.submit("c")
    order = [happened for happened in world.happened if happened.split()[-1] in "abc"]
    assert order == ["answered a", "published a", "answered b", "answered c"] + [
        f"published {name}" for name in "bc"
    ]


async def test_order_holds_while_the_recipient_is_looked_up(world: World) -> None:
    world.profile.lookups.close()
    async with world.running():
        for number in range(3):
            world.submit(str(number))
        await world.profile.lookups.arrivals(1)
        world.profile.lookups.open()
    assert [message.client_id for message in world.store.messages] == ["0", "1", "2"]
    assert list(world.sender.codes.items()) == [("0", "ack"), ("1", "ack"), ("2", "ack")]


async def test_retry_is_acknowledged_and_published_once(world: World) -> None:
    async with world.running():
        world.submit("1")
        world.submit("1")
    duplicates = [a.duplicate for a in world.sender.answers if isinstance(a, frames.Ack)]
    assert duplicates == [False, True]
    assert len(world.bus.published) == 1


async def test_each_failure_has_its_code(world: World) -> None:
    world.store.poison = "poison"
    async with world.running():
        world.submit("unknown", to=new_user_id())
        world.submit("first")
        world.submit("first", text="other")
        world.submit("poisoned", text="poison")
    codes = sorted(
        (a.id or "", a.code if isinstance(a, frames.Error) else "ack") for a in world.sender.answers
    )
    assert codes == [
        ("first", "ack"),
        ("first", "conflict"),
        ("poisoned", "internal"),
        ("unknown", "recipient_not_found"),
    ]
    assert [p.event.message.client_id for p in world.bus.published] == ["first"]


async def test_store_that_is_unavailable_is_a_retryable_error(world: World) -> None:
    world.store.available = False
    async with world.running():
        world.submit("1")
    (error,) = world.sender.answers
    assert isinstance(error, frames.Error)
    assert (error.code, error.retryable) == ("store_unavailable", True)
    assert error.retry_after_ms
    assert world.bus.published == []


async def test_directory_that_is_unavailable_is_a_retryable_error(world: World) -> None:
    world.profile.available = False
    async with world.running():
        world.submit("1")
    assert world.sender.codes == {"1": "verification_unavailable"}
    assert world.store.batches == []


async def test_directory_that_fails_otherwise_is_an_internal_error(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fails(_user_id: UserId) -> str | None:
        raise RuntimeError("broken")

    monkeypatch.setattr(world.profile, "username", fails)
    async with world.running():
        world.submit("1")
    assert world.sender.codes == {"1": "internal"}
    assert "looking up a recipient failed" in caplog.text


async def test_full_queue_refuses_what_it_cannot_take(world: World) -> None:
    async with world.running():
        world.submit("known")
        await world.store.commits.arrivals(1)
        world.store.commits.close()
        world.submit("first")
        await world.store.commits.arrivals(2)
        for number in range(6):
            world.submit(str(number))
        assert world.messenger.waiting == 5
        assert world.sender.codes["5"] == "overloaded"
    assert [code for code in world.sender.codes.values() if code != "ack"] == ["overloaded"]


async def test_later_message_never_looks_older(world: World) -> None:
    async with world.running():
        world.submit("1")
        await world.store.commits.arrivals(1)
        world.clock.advance(-3600)
        world.submit("2")
    times = [message.sent_at_ms for message in world.store.messages]
    assert times[0] == times[1]
