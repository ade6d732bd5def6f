"""Coming back after a break: everything once, in order, whatever happened meanwhile."""

import asyncio
import contextlib
import gc
import json
import socket
import time
import tracemalloc
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from websockets.frames import Opcode

from shared.ids import UserId, conversation_id
from tests.support.client import Client, Frame
from tests.support.fake_profile import FakeProfile, FakeSession
from tests.support.gateway import TestGateway, database_locked, running_gateway
from tests.support.raw_socket import RawSocket
from tests.support.talk import say
from tests.support.waiting import until


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[TestGateway]:
    async with running_gateway(tmp_path, database_busy_timeout_s=0.05) as gateway:
        yield gateway


@pytest.fixture
def ann(gateway: TestGateway) -> FakeSession:
    return gateway.profile.sign_up("ann")


@pytest.fixture
def bob(gateway: TestGateway) -> FakeSession:
    return gateway.profile.sign_up("bob")


def start_of(client: Client) -> str:
    """The cursor before everything."""
    epoch = str(client.connected["cursor"]).rpartition(".")[0]
    return f"{epoch}.0"


async def send_many(client: Client, to: UserId, start: int, count: int, text: str = "") -> None:
    """Send numbered messages without waiting for their acks."""
    for number in range(start, start + count):
        await client.send(type="send", id=f"n{number}", to=to, text=f"{number}{text}")


async def acks(client: Client, count: int) -> list[int]:
    """Read so many acks. Returns their seqs."""
    return [(await client.expect("ack"))["seq"] for _ in range(count)]


def texts(frames: list[Frame]) -> list[str]:
    return [frame["text"] for frame in frames if frame["type"] == "message"]


async def test_missed_messages_come_once_in_order_then_resumed(
    gateway: TestGateway, ann: FakeSession, bob: FakeSession
) -> None:
    async with gateway.talking(ann) as a:
        async with gateway.talking(bob) as b:
            await a.say(bob.user_id, "seen", "0")
            seen = await b.expect("message", text="seen")
        await send_many(a, bob.user_id, 1, 450)
        await acks(a, 450)
        async with gateway.resuming(bob, seen["cursor"]) as b:
            assert b.connected["cursor"] == seen["cursor"]
            missed = await b.collect("resumed")
            assert [m["seq"] for m in missed] == list(range(2, 452))
            await a.say(bob.user_id, "live", "live")
            assert (await b.expect("message", text="live"))["seq"] == 452


async def test_resumed_cursor_is_where_the_next_resume_goes_on(
    gateway: TestGateway, ann: FakeSession, bob: FakeSession
) -> None:
    async with gateway.talking(ann) as a, gateway.talking(bob) as b:
        await a.say(bob.user_id, "one", "1")
        async with gateway.resuming(bob, start_of(b)) as again:
            assert texts(await again.collect("resumed")) == ["one"]
        await b.expect("message")
        async with gateway.resuming(bob, start_of(b)) as again:
            await again.expect("message")
            cursor = (await again.expect("resumed"))["cursor"]
        await a.say(bob.user_id, "two", "2")
        async with gateway.resuming(bob, cursor) as again:
            assert texts(await again.collect("resumed")) == ["two"]


async def test_resume_with_nothing_missed_is_only_resumed(
    gateway: TestGateway, bob: FakeSession
) -> None:
    async with gateway.talking(bob) as b, gateway.resuming(bob, b.connected["cursor"]) as again:
        assert await again.expect("resumed", cursor=b.connected["cursor"])


@pytest.mark.parametrize("text", ["", "x" * 2000], ids=["short", "overflowing"])
async def test_messages_that_arrive_during_the_replay_leave_no_gap_and_no_double(
    gateway: TestGateway, ann: FakeSession, bob: FakeSession, text: str
) -> None:
    """Several hundred more arrive while the log is replayed: more than may be held."""
    async with gateway.talking(ann) as a, gateway.talking(bob) as b:
        await send_many(a, bob.user_id, 0, 1000, text)
        await acks(a, 1000)
        sending = asyncio.create_task(send_many(a, bob.user_id, 1000, 800, text))
        async with contextlib.AsyncExitStack() as stack:
            devices = [
                await stack.enter_async_context(gateway.resuming(bob, start_of(b)))
                for _ in range(3)
            ]
            await sending
            acked = asyncio.create_task(acks(a, 800))
            for device in devices:
                seqs: list[int] = []
                while not seqs or seqs[-1] < 1800:
                    frame = json.loads(await device.socket.recv())
                    seqs += [frame["seq"]] if frame["type"] == "message" else []
                assert seqs == list(range(1, 1801))
            assert await acked == list(range(1001, 1801))


async def test_own_messages_sent_during_the_replay_are_acknowledged(
    gateway: TestGateway, ann: FakeSession, bob: FakeSession
) -> None:
    async with gateway.talking(ann) as a, gateway.talking(bob) as b:
        await send_many(a, bob.user_id, 0, 600)
        await acks(a, 600)
        async with gateway.resuming(bob, start_of(b)) as again:
            await again.send(type="send", id="own", to=ann.user_id, text="own")
            frames: list[Frame] = []
            async with asyncio.timeout(10):
                while not {"ack", "resumed"} <= {frame["type"] for frame in frames}:
                    frames.append(json.loads(await again.socket.recv()))
            assert [f["id"] for f in frames if f["type"] == "ack"] == ["own"]
            seqs = [f["seq"] for f in frames if f["type"] == "message" and "id" not in f]
            assert seqs == list(range(1, 601))


async def test_edits_and_deletions_while_away_are_replayed(
    gateway: TestGateway, ann: FakeSession, bob: FakeSession
) -> None:
    conversation = conversation_id(ann.user_id, bob.user_id)
    async with gateway.talking(ann) as a, gateway.talking(bob) as b:
        await a.say(bob.user_id, "one", "1")
        await a.say(bob.user_id, "two", "2")
        await b.expect("message")
        seen = await b.expect("message", seq=2)
        await a.send(type="edit", id="e", conversation=conversation, seq=1, text="mended")
        await a.expect("ack", id="e", revision=1)
        await a.send(type="delete", id="d", conversation=conversation, seq=2)
        await a.expect("ack", id="d", revision=1)
        async with gateway.resuming(bob, seen["cursor"]) as again:
            edited, deleted = await again.collect("resumed")
        assert edited == await b.expect("edited", seq=1, text="mended", revision=1)
        assert deleted == await b.expect("deleted", seq=2, revision=1)
        async with gateway.resuming(bob, start_of(b)) as again:
            first, second, *changes = await again.collect("resumed")
        assert (first["text"], first["revision"], "edited_at" in first) == ("mended", 1, True)
        assert (second["text"], second["deleted"]) == ("", True)
        assert changes == [edited, deleted]


async def test_receipts_that_moved_while_away_are_sent(
    gateway: TestGateway, ann: FakeSession, bob: FakeSession
) -> None:
    conversation = conversation_id(ann.user_id, bob.user_id)
    phone = gateway.profile.log_in(ann.user_id)
    async with gateway.talking(bob) as b, gateway.talking(phone) as p:
        async with gateway.talking(ann) as a:
            await a.say(bob.user_id, "one", "1")
            cursor = (await p.expect("message"))["cursor"]
        await b.expect("message", seq=1)
        await b.say(ann.user_id, "two", "2")
        await b.send(type="received", conversation=conversation, seq=2)
        await b.send(type="read", conversation=conversation, seq=1)
        await b.expect("receipt", received=2, read=0)
        await b.expect("receipt", received=2, read=1)
        await p.expect("message", seq=2)
        await p.send(type="received", conversation=conversation, seq=2)
        await p.expect("receipt", user=bob.user_id, received=2, read=0)
        await p.expect("receipt", user=bob.user_id, received=2, read=1)
        await p.expect("receipt", user=ann.user_id)
        async with gateway.resuming(ann, cursor) as a:
            message, *receipts = await a.collect("resumed")
            assert message["seq"] == 2
            shown = {r["user"]: (r["received"], r.get("read")) for r in receipts}
            assert shown == {bob.user_id: (2, 1), ann.user_id: (2, 0)}
            assert len(receipts) == 2


async def test_presence_is_told_after_the_replay(
    gateway: TestGateway, ann: FakeSession, bob: FakeSession
) -> None:
    async with gateway.talking(ann) as a, gateway.talking(bob) as b:
        await send_many(a, bob.user_id, 0, 500)
        await acks(a, 500)
        async with gateway.resuming(bob, start_of(b)) as again:
            await again.collect("resumed")
            await again.expect("presence", user=ann.user_id, online=True)


async def test_resume_works_across_a_restart_of_the_gateway(tmp_path: Path) -> None:
    profile = FakeProfile()
    ann, bob = profile.sign_up("ann"), profile.sign_up("bob")
    async with running_gateway(tmp_path, profile=profile) as gateway:
        async with gateway.talking(ann) as a, gateway.talking(bob) as b:
            await a.say(bob.user_id, "seen", "1")
            cursor = (await b.expect("message"))["cursor"]
        async with gateway.talking(ann) as a:
            await a.say(bob.user_id, "missed", "2")
    async with running_gateway(tmp_path, profile=profile) as gateway:
        async with gateway.talking(ann) as a:
            await a.say(bob.user_id, "after the restart", "3")
        async with gateway.resuming(bob, cursor) as b:
            assert texts(await b.collect("resumed")) == ["missed", "after the restart"]


@pytest.mark.parametrize(
    "cursor",
    [
        "beyond",
        "0123456789ab.1",
        "nonsense",
        ".",
        "x.-1",
        "epoch.",
        "epoch.-1",
        "epoch.1.5",
        "epoch.99999999999999999999999999999",
        "epoch.1e3",
        "epoch.\u0661",
    ],
)
async def test_cursor_that_cannot_be_continued_is_answered_with_one_that_can(
    gateway: TestGateway, ann: FakeSession, bob: FakeSession, cursor: str
) -> None:
    async with gateway.talking(ann) as a, gateway.talking(bob) as first:
        await a.say(bob.user_id, "before", "1")
        epoch = start_of(first).rpartition(".")[0]
        cursor = f"{epoch}.2" if cursor == "beyond" else cursor.replace("epoch", epoch)
        async with gateway.resuming(bob, cursor) as b:
            usable = (await b.expect("resync"))["cursor"]
            assert b.connected["cursor"] == usable
            await a.say(bob.user_id, "live", "2")
            await b.expect("message", text="live")
        async with gateway.resuming(bob, usable) as b:
            assert texts(await b.collect("resumed")) == ["live"]


async def test_resync_loses_nothing_that_is_committed_in_that_moment(
    gateway: TestGateway, ann: FakeSession, bob: FakeSession
) -> None:
    """What history shows and what arrives live overlap or touch: there is no hole in between."""
    async with gateway.talking(ann) as a:
        sending = asyncio.create_task(send_many(a, bob.user_id, 0, 400))
        for _ in range(10):
            async with gateway.resuming(bob, "of another life.7") as b:
                await b.expect("resync")
                await b.send(type="history", id="h", limit=200, **{"with": ann.user_id})
                known: set[int] = set()
                while (frame := json.loads(await b.socket.recv()))["type"] != "history":
                    known |= {frame["seq"]} if frame["type"] == "message" else set()
                known |= {message["seq"] for message in frame["messages"]}
                known |= {f["seq"] for f in await b.arrived() if f["type"] == "message"}
                if known:
                    assert max(known) - min(known) == len(known) - 1
        await sending
        await acks(a, 400)


async def test_log_that_cannot_be_read_ends_the_connection_with_when_to_return(
    gateway: TestGateway, ann: FakeSession, bob: FakeSession
) -> None:
    async with gateway.talking(ann) as a, gateway.talking(bob) as b:
        await a.say(bob.user_id, "one", "1")
        await b.expect("message")
        with database_locked(gateway.database):
            async with gateway.resuming(bob, start_of(b)) as again:
                error = await again.expect_error("store_unavailable", retryable=True)
                assert error["retry_after_ms"] > 0
                assert (await again.closed())[0] == 1013
        async with gateway.resuming(bob, start_of(b)) as again:
            assert texts(await again.collect("resumed")) == ["one"]


async def fill(gateway: TestGateway, sender: FakeSession, to: FakeSession, count: int) -> None:
    """Store messages of the usual length, past the sockets."""
    for start in range(0, count, 500):
        numbers = range(start, min(start + 500, count))
        await gateway.fill(sender.user_id, to.user_id, *(f"{n:053}" for n in numbers))


async def test_replay_of_ten_thousand_events_is_quick_and_keeps_memory_flat(
    gateway: TestGateway, ann: FakeSession, bob: FakeSession, record_property: Any
) -> None:
    await fill(gateway, ann, bob, 10_000)
    async with gateway.talking(bob) as b:
        start = start_of(b)
    began = time.perf_counter()
    async with RawReader.resuming(gateway, bob, start) as reader:
        seconds_by_bytes, size = await reader.read_until(b'"type":"resumed"'), reader.size
    took_s = time.perf_counter() - began
    assert seconds_by_bytes
    gc.collect()
    tracemalloc.start()
    try:
        async with RawReader.resuming(gateway, bob, start) as reader:
            tracemalloc.reset_peak()
            before, _ = tracemalloc.get_traced_memory()
            await reader.read_until(b'"type":"resumed"')
            _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    record_property("replay_s", round(took_s, 3))
    record_property("replay_peak_kib", (peak - before) // 1024)
    assert size > 10_000 * 200
    assert took_s < 5  # the target is 0.5 on a quiet machine; this is no benchmark
    assert peak - before < 4 * 1024 * 1024


class RawReader:
    """Reads what the gateway sends as bytes: quick, or as slow as a test likes."""

    def __init__(self, socket: RawSocket) -> None:
        self._socket = socket
        self.size = 0

    @classmethod
    @contextlib.asynccontextmanager
    async def resuming(
        cls, gateway: TestGateway, session: FakeSession, cursor: str, receive_buffer: int = 0
    ) -> AsyncIterator["RawReader"]:
        """Connect and resume."""
        connected = socket.socket()
        if receive_buffer:
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        host, _, port = gateway.http_url.removeprefix("http://").partition(":")
        connected.setblocking(False)
        await asyncio.get_running_loop().sock_connect(connected, (host, int(port)))
        async with RawSocket.open(gateway.url, connected) as raw:
            frame = {"type": "connect", "access_token": session.access_token, "resume": cursor}
            await raw.send_text(json.dumps(frame))
            yield cls(raw)

    async def read_until(self, end: bytes) -> bool:
        """Read until these bytes have come."""
        tail = b""
        async with asyncio.timeout(30):
            while end not in tail:
                data = await self._socket._reader.read(65536)
                assert data, "the connection ended"
                self.size += len(data)
                tail = tail[-len(end) :] + data
        return True

    async def close_code(self) -> int:
        """Say that one wants to close, and read until the answer."""
        await self._socket.send_frame(Opcode.CLOSE, (1000).to_bytes(2))
        return await self._socket.close_code()

    async def read(self, size: int) -> bytes:
        """Read some."""
        data = await self._socket._reader.read(size)
        self.size += len(data)
        return data


async def test_slow_reader_is_paced_and_not_killed(tmp_path: Path) -> None:
    """It stays behind for several times the grace."""
    async with running_gateway(tmp_path, outbox_max_bytes=4096, outbox_grace_s=0.5) as gateway:
        ann, bob = gateway.profile.sign_up("ann"), gateway.profile.sign_up("bob")
        store = gateway.gateway.stores.messages
        await say(store, ann.user_id, bob.user_id, *("x" * 4000 for _ in range(750)))
        async with gateway.talking(bob) as b:
            start = start_of(b)
        loop = asyncio.get_running_loop()
        async with RawReader.resuming(gateway, bob, start, receive_buffer=65536) as reader:
            while reader.size < 2_500_000:
                go_on_at = loop.time() + 0.05
                assert await reader.read(80_000), "the connection ended"
                await until(lambda at=go_on_at: loop.time() >= at)  # type: ignore[misc]
            await reader.read_until(b'"type":"resumed"')
        assert reader.size > 750 * 4000
        assert gateway.sample("duet_gateway_outbox_aborts_total") == 0


async def test_reader_that_is_stuck_in_its_replay_is_let_go(tmp_path: Path) -> None:
    async with running_gateway(tmp_path, outbox_max_bytes=4096, outbox_grace_s=0.1) as gateway:
        ann, bob = gateway.profile.sign_up("ann"), gateway.profile.sign_up("bob")
        store = gateway.gateway.stores.messages
        for _ in range(4):
            await say(store, ann.user_id, bob.user_id, *("x" * 4000 for _ in range(1000)))
        async with gateway.talking(bob) as b:
            start = start_of(b)
        async with RawReader.resuming(gateway, bob, start, receive_buffer=8192):
            await until(lambda: gateway.sample("duet_gateway_outbox_aborts_total") == 1)
            await until(lambda: gateway.connections_of(bob.user_id) == 0)


@pytest.mark.parametrize("read_first", [0, 300_000])
async def test_client_that_vanishes_in_its_replay_leaves_nothing_behind(
    gateway: TestGateway, ann: FakeSession, bob: FakeSession, read_first: int
) -> None:
    store = gateway.gateway.stores.messages
    for _ in range(6):
        await say(store, ann.user_id, bob.user_id, *("x" * 4000 for _ in range(1000)))
    async with gateway.talking(bob) as b:
        start = start_of(b)
    await until(lambda: gateway.connections_of(bob.user_id) == 0)
    tasks_before = asyncio.all_tasks()
    async with RawReader.resuming(gateway, bob, start, receive_buffer=8192) as reader:
        while reader.size <= read_first:
            await reader.read(65536)
        assert gateway.connections_of(bob.user_id) == 1
    await until(lambda: gateway.connections_of(bob.user_id) == 0)
    await until(lambda: asyncio.all_tasks() <= tasks_before)
    gc.collect()  # an exception that nobody retrieved is logged now, and fails the test


async def test_close_in_the_middle_of_a_replay_is_answered(
    gateway: TestGateway, ann: FakeSession, bob: FakeSession
) -> None:
    await fill(gateway, ann, bob, 5000)
    async with gateway.talking(bob) as b:
        start = start_of(b)
    async with RawReader.resuming(gateway, bob, start, receive_buffer=8192) as reader:
        assert await reader.close_code() == 1000
    await until(lambda: gateway.connections_of(bob.user_id) == 0)
    gc.collect()


async def test_megabytes_in_a_row_are_taken_in_without_a_stall(
    gateway: TestGateway, ann: FakeSession, bob: FakeSession
) -> None:
    """A receive buffer below a segment made each one wait for a timer of TCP, until keep-alive."""
    async with gateway.talking(ann) as a:
        async with asyncio.timeout(8):
            await send_many(a, bob.user_id, 0, 1000, "x" * 2000)
            assert await acks(a, 1000) == list(range(1, 1001))
