"""Every bus: told here at once and in order, told to other gateways soon, and never a fault."""

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Callable, Iterator, Sequence

import msgspec
import pytest

from shared.ids import ConnectionId, ConversationId, UserId, new_user_id
from tests.support.nats_server import NATS_SERVER_MISSING, NatsServer, nats_server
from tests.support.waiting import until
from ws_gateway.adapters.local_bus import LocalBus
from ws_gateway.adapters.nats_bus import NatsBus
from ws_gateway.adapters.notice_codec import decode, encode, payloads
from ws_gateway.conversations import (
    Event,
    EventKind,
    Evicted,
    Look,
    Message,
    Notice,
    PeersChanged,
    PresenceNotice,
    Published,
    Receipt,
    SettingChanged,
    TypingNotice,
)
from ws_gateway.metrics import Metrics
from ws_gateway.ports import UserBus

Told = list[tuple[Notice, UserId | None]]


@pytest.fixture(scope="module")
def server() -> Iterator[NatsServer]:
    """A server of these tests' own: one of them stops it."""
    if not NatsServer.is_installed():
        pytest.skip(NATS_SERVER_MISSING)
    with nats_server() as server:
        yield server


@pytest.fixture
def ann() -> UserId:
    return new_user_id()


@pytest.fixture
def bob() -> UserId:
    return new_user_id()


@pytest.fixture(params=["local", "nats"])
async def bus(request: pytest.FixtureRequest) -> AsyncIterator[UserBus]:
    if request.param == "local":
        yield LocalBus()
        return
    async with on_nats(request.getfixturevalue("server").url) as bus:
        yield bus


@contextlib.asynccontextmanager
async def running(bus: NatsBus) -> AsyncIterator[NatsBus]:
    """Let it do its work while the context lasts."""
    work = asyncio.create_task(bus.run())
    try:
        yield bus
    finally:
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)


@contextlib.asynccontextmanager
async def on_nats(*servers: str) -> AsyncIterator[NatsBus]:
    """A gateway's bus that is connected."""
    async with running(NatsBus(servers, Metrics(), keepalive_s=0.05, timeout_s=1)) as bus:
        await until(lambda: bus.is_connected)
        yield bus


def told_by(bus: UserBus) -> Told:
    """What a receiver is told, as it grows."""
    told: Told = []

    def receive(notices: Sequence[Notice], viewer: UserId | None = None) -> None:
        told.extend((notice, viewer) for notice in notices)

    bus.subscribe(receive)
    return told


def has_told(told: Told, count: int) -> bool:
    return len(told) >= count


def published(sender: UserId, recipient: UserId, seq: int = 1, text: str = "hi") -> Published:
    conversation = ConversationId("c")
    message = Message(conversation, seq, 7, sender, recipient, f"id-{seq}", text, 1)
    return Published(Event(EventKind.SENT, seq, message, seq + 10), ConnectionId("n_1"))


def receipt(user: UserId, peer: UserId, received: int, *, private: bool = False) -> Receipt:
    return Receipt(ConversationId("c"), user, peer, received, 0, True, None, private)


async def test_what_is_published_is_told_here_before_it_returns(
    bus: UserBus, ann: UserId, bob: UserId
) -> None:
    told = told_by(bus)
    await bus.listen(ann)
    notices: list[Notice] = [
        published(ann, bob, 1),
        TypingNotice(ann, bob, True),
        published(ann, bob, 2),
    ]
    bus.publish(notices)
    assert told == [(notice, None) for notice in notices]


async def test_every_receiver_is_told(bus: UserBus, ann: UserId, bob: UserId) -> None:
    first, second = told_by(bus), told_by(bus)
    bus.publish([TypingNotice(ann, bob, True)])
    assert first == second == [(TypingNotice(ann, bob, True), None)]


async def test_nothing_comes_back_to_who_published(bus: UserBus, ann: UserId, bob: UserId) -> None:
    told = told_by(bus)
    await bus.listen(bob)
    bus.publish([TypingNotice(ann, bob, True)])
    if isinstance(bus, NatsBus):
        await bus.flush()
    bus.ignore(bob)
    bus.ignore(ann)
    assert len(told) == 1


async def test_other_gateway_is_told_of_those_it_listens_for(
    server: NatsServer, ann: UserId, bob: UserId
) -> None:
    async with on_nats(server.url) as here, on_nats(server.url) as there:
        told = told_by(there)
        await there.listen(bob)
        sent = [published(ann, bob, n) for n in range(1, 101)]
        here.publish(sent[:50])
        here.publish(sent[50:])
        await until(lambda: len(told) == 100)
        assert told == [(notice, bob) for notice in sent]
        await there.listen(ann)
        there.ignore(bob)
        await there.flush()
        here.publish([published(ann, bob, 101)])
        await until(lambda: len(told) == 101)
        assert told[-1] == (published(ann, bob, 101), ann)


async def test_each_notice_goes_to_whom_it_concerns(
    server: NatsServer, ann: UserId, bob: UserId
) -> None:
    cid = new_user_id()
    async with on_nats(server.url) as here, on_nats(server.url) as there:
        told = told_by(there)
        for user in (ann, bob, cid):
            await there.listen(user)
        expected: list[tuple[Notice, set[UserId]]] = [
            (published(ann, bob), {ann, bob}),
            (receipt(ann, bob, 1), {ann, bob}),
            (receipt(ann, bob, 1, private=True), {ann}),
            (TypingNotice(ann, cid, True), {cid}),
            (PeersChanged(ann), {ann}),
            (SettingChanged(ann, "blocks", ConnectionId("n_1")), {ann}),
            (Evicted(bob, ConnectionId("n_2")), {bob}),
            (Look(cid), {cid}),
        ]
        for notice, viewers in expected:
            told.clear()
            here.publish([notice])
            await until(functools.partial(has_told, told, len(viewers)))
            assert {viewer for _, viewer in told} == viewers
            assert {n for n, _ in told} == {notice}
        told.clear()
        here.publish([PresenceNotice(ann, (bob, cid), False, 12)])
        await until(lambda: len(told) == 2)
        assert told == [(PresenceNotice(ann, (), False, 12), user) for user in (bob, cid)]


async def test_long_batch_is_told_in_pieces(server: NatsServer, ann: UserId, bob: UserId) -> None:
    async with on_nats(server.url) as here, on_nats(server.url) as there:
        told = told_by(there)
        await there.listen(bob)
        sent = [published(ann, bob, n, "😀" * 4000) for n in range(1, 201)]
        here.publish(sent)
        await until(lambda: len(told) == 200)
        assert [notice for notice, _ in told] == sent


async def test_gateway_starts_without_nats_and_finds_it(ann: UserId, bob: UserId) -> None:
    if not NatsServer.is_installed():
        pytest.skip(NATS_SERVER_MISSING)
    with nats_server() as server:
        server.kill()
        changes: list[bool] = []
        async with running(NatsBus([server.url], Metrics(), timeout_s=1)) as bus:
            bus.watch(lambda: changes.append(bus.is_connected))
            told = told_by(bus)
            await bus.listen(bob)
            bus.publish([published(ann, bob)])
            assert [notice for notice, _ in told] == [published(ann, bob)]
            assert not bus.is_connected
            server.start()
            await until(lambda: bus.is_connected)
            async with on_nats(server.url) as other:
                other.publish([TypingNotice(ann, bob, True)])
                await until(lambda: told[-1] == (TypingNotice(ann, bob, True), bob))
            server.kill()
            await until(lambda: not bus.is_connected)
        assert changes == [True, False]


async def test_what_nats_missed_is_told_in_short_when_it_is_back(
    server: NatsServer, ann: UserId, bob: UserId
) -> None:
    async with on_nats(server.url) as here, on_nats(server.url) as there:
        told = told_by(there)
        await there.listen(bob)
        assert here._link is not None
        here._link.fail(OSError("the cable is cut"))
        await until(lambda: not here.is_connected)
        here.publish([published(ann, bob, n) for n in range(1, 51)])
        here.publish([receipt(ann, bob, n) for n in range(1, 51)])
        here.publish([SettingChanged(bob, "blocks", ConnectionId("n_1"))] * 50)
        here.publish([TypingNotice(ann, bob, True)])
        await until(lambda: here.is_connected)
        here.publish([TypingNotice(ann, bob, False)])
        await until(lambda: len(told) == 4)
        assert [notice for notice, _ in told] == [
            Look(bob),
            receipt(ann, bob, 50),
            SettingChanged(bob, "blocks", ConnectionId("n_1")),
            TypingNotice(ann, bob, False),
        ]


async def test_what_was_told_just_before_a_loss_is_told_again_in_short(
    server: NatsServer, ann: UserId, bob: UserId
) -> None:
    async with on_nats(server.url) as there, running(NatsBus([server.url], Metrics())) as here:
        told = told_by(there)
        await there.listen(bob)
        await until(lambda: here.is_connected)
        here.publish([published(ann, bob)])
        await until(lambda: len(told) == 1)
        assert here._link is not None
        here._link.fail(OSError("the cable is cut"))
        await until(lambda: len(told) == 2)
        assert told[-1] == (Look(bob), bob)


async def test_connection_that_says_nothing_is_given_up(
    server: NatsServer, ann: UserId, bob: UserId
) -> None:
    with nats_server() as frozen:
        bus = NatsBus([frozen.url], Metrics(), keepalive_s=0.05, timeout_s=0.2)
        async with running(bus):
            await until(lambda: bus.is_connected)
            frozen.freeze()
            bus.publish([published(ann, bob)])
            await until(lambda: not bus.is_connected)
            async with asyncio.timeout(3):
                await bus.listen(ann)
            frozen.thaw()
            await until(lambda: bus.is_connected)


async def test_flood_that_nats_does_not_take_is_dropped_and_counted(
    ann: UserId, bob: UserId
) -> None:
    metrics = Metrics()
    bus = NatsBus(["nats://127.0.0.1:1"], metrics)
    bus.publish([published(ann, bob, n) for n in range(1, 101)])
    assert metrics.registry.get_sample_value("duet_gateway_bus_dropped_total") == 200
    assert len(bus._untold) == 2


async def test_id_that_is_no_subject_harms_nobody(
    server: NatsServer, ann: UserId, bob: UserId
) -> None:
    async with on_nats(server.url) as here, on_nats(server.url) as there:
        told = told_by(there)
        await there.listen(bob)
        for invented in ("", "*", ">", "u x", "u\r\nPUB duet.user.u_ann 1\r\nx", "u.x", "ü"):
            here.publish(
                [PeersChanged(UserId(invented)), TypingNotice(ann, UserId(invented), True)]
            )
            await here.listen(UserId(invented))
            here.ignore(UserId(invented))
        here.publish([TypingNotice(ann, bob, True)])
        await until(lambda: len(told) == 1)
        assert here.is_connected
        assert len(here._untold) == 0


async def test_server_without_tls_is_refused_where_tls_is_wanted(
    server: NatsServer, caplog: pytest.LogCaptureFixture
) -> None:
    bus = NatsBus([server.url.replace("nats:", "tls:")], Metrics(), timeout_s=1)
    async with running(bus):
        await until(lambda: "does not speak TLS" in caplog.text)
        assert not bus.is_connected


async def test_log_says_why_nats_is_away(caplog: pytest.LogCaptureFixture) -> None:
    async with running(NatsBus(["nats://duet:secret@127.0.0.1:1"], Metrics(), timeout_s=1)):
        await until(lambda: "NATS is away" in caplog.text)
    assert "Connect" in caplog.text
    assert "secret" not in caplog.text


def test_notices_of_newer_gateways_are_passed_over(ann: UserId, bob: UserId) -> None:
    known = [encode(TypingNotice(ann, bob, True)), encode(published(ann, bob))]
    setting = msgspec.msgpack.decode(encode(SettingChanged(ann, "blocks", ConnectionId("n_1"))))
    unknown = [
        msgspec.msgpack.encode(each)
        for each in (
            ["new", 1, 2],
            {"a": 1},
            7,
            ["typing"],
            ["new" if field == "blocks" else field for field in setting],
        )
    ]
    longer = msgspec.msgpack.encode([*msgspec.msgpack.decode(known[0]), "new"])
    (payload,) = payloads([unknown[0], known[0], *unknown[1:], known[1], longer])
    typing = TypingNotice(ann, bob, True)
    assert list(decode(payload)) == [typing, published(ann, bob), typing]
    assert list(decode(b"rubbish")) == []


def test_pieces_hold_everything_in_order() -> None:
    encoded = [msgspec.msgpack.encode(f"{n}" * 60_000) for n in range(10)]
    decoder: Callable[[bytes], list[str]] = msgspec.msgpack.Decoder(list[str]).decode
    pieces = list(payloads(encoded))
    assert len(pieces) > 1
    assert all(len(piece) < 300_000 for piece in pieces)
    assert [text for piece in pieces for text in decoder(piece)] == [
        f"{n}" * 60_000 for n in range(10)
    ]
