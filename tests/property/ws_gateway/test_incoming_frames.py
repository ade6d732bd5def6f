"""However what a client sends is cut into pieces, the gateway reads what the library would read."""

import asyncio
import contextlib
import struct

import msgspec
from hypothesis import example, given, settings
from hypothesis import strategies as st
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode
from websockets.http11 import Request, Response
from websockets.protocol import OPEN
from websockets.server import ServerProtocol

from tests.support.raw_socket import RawSocket
from tests.support.turns import Turns
from ws_gateway.intake import Intake
from ws_gateway.websocket import GatewayWebSocket

_MAX_BYTES = 1000
_WITHIN_S = 15.0


def frame(opcode: Opcode, data: bytes = b"", *, fin: bool = True) -> bytes:
    return Frame(opcode, data, fin).serialize(mask=True)


def long_winded(data: bytes) -> bytes:
    """A text whose length takes more bytes than it needs; the mask changes nothing."""
    return struct.pack("!BBH", 0x81, 0xFE, len(data)) + bytes(4) + data


_SIZES = st.sampled_from([0, 1, 5, 124, 125, 126, 127, 128, 600, _MAX_BYTES])
_PAYLOADS = st.one_of(st.text(max_size=20).map(str.encode), _SIZES.map(lambda size: b"x" * size))
_SMALL = st.binary(max_size=10)
_TEXTS = _PAYLOADS.map(lambda data: frame(Opcode.TEXT, data))
_WIRE = st.one_of(
    _TEXTS,
    _TEXTS,
    st.lists(_TEXTS, max_size=40).map(b"".join),
    _PAYLOADS.map(long_winded),
    _SMALL.map(lambda data: frame(Opcode.PING, data)),
    _SMALL.map(lambda data: frame(Opcode.BINARY, data)),
    st.just(frame(Opcode.TEXT, b"be", fin=False) + frame(Opcode.CONT, b"gin")),
    st.just(frame(Opcode.TEXT, fin=False) + frame(Opcode.PING) + frame(Opcode.CONT)),
)
_FAULTS = st.one_of(
    st.just(frame(Opcode.TEXT, b"x" * (_MAX_BYTES + 1))),
    st.just(frame(Opcode.TEXT, b"no end", fin=False)),
    st.just(frame(Opcode.CONT, b"no beginning")),
    st.just(Frame(Opcode.TEXT, b"no mask").serialize(mask=False)),
    st.just(b"\xc1" + frame(Opcode.TEXT, b"a reserved bit")[1:]),
    st.just(frame(Opcode.CLOSE, struct.pack("!H", 1000))),
    st.binary(max_size=20),
)


class Library:
    """What the library by itself reads."""

    def __init__(self) -> None:
        self.protocol = ServerProtocol(state=OPEN, max_size=_MAX_BYTES)
        self.messages: list[bytes] = []
        self.pings = 0
        self._begun = b""

    def receive(self, data: bytes) -> None:
        self.protocol.receive_data(data)
        for event in self.protocol.events_received():
            assert isinstance(event, Frame)
            if event.opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
                self._begun += event.data
                if event.fin:
                    self.messages.append(self._begun)
                    self._begun = b""
            self.pings += event.opcode is Opcode.PING


class Sent(msgspec.Struct, frozen=True):
    """Bytes that a client sends, and how they arrive."""

    wire: bytes
    cut: int | None = None
    """Where they are cut in two."""
    joined: bool = False
    """Whether they come with what was sent before."""
    pause: bool = False
    """Whether everything before was read when they come."""


def pieces(stream: list[Sent]) -> list[tuple[bytes, bool]]:
    """What arrives at once, and whether what came before was read by then."""
    arriving: list[tuple[bytes, bool]] = []
    for sent in stream:
        cut = None if sent.cut is None else sent.cut % (len(sent.wire) + 1)
        first = sent.wire if cut is None else sent.wire[:cut]
        if sent.joined and arriving:
            before, pause = arriving[-1]
            arriving[-1] = (before + first, pause)
        else:
            arriving.append((first, sent.pause))
        if cut is not None:
            arriving.append((sent.wire[cut:], sent.pause))
    return [(data, pause) for data, pause in arriving if data]


def sent(wires: st.SearchStrategy[bytes]) -> st.SearchStrategy[Sent]:
    return st.builds(Sent, wires, st.none() | st.integers(0, 200), st.booleans(), st.booleans())


ONE = frame(Opcode.TEXT, b"one")


@given(fine=st.lists(sent(_WIRE), max_size=8), faulty=st.lists(sent(_FAULTS | _TEXTS), max_size=3))
@example(fine=[Sent(ONE), Sent(ONE, cut=2), Sent(ONE, cut=6), Sent(ONE)], faulty=[])
@example(fine=[Sent(ONE), Sent(long_winded(ONE), cut=8), Sent(ONE)], faulty=[])
@example(fine=[Sent(ONE), Sent(frame(Opcode.BINARY)), Sent(ONE)], faulty=[])
@example(fine=[Sent(ONE * 1000, cut=100), Sent(ONE)], faulty=[Sent(frame(Opcode.CLOSE))])
@example(fine=[Sent(ONE)], faulty=[Sent(frame(Opcode.CLOSE)), Sent(ONE)])
@example(
    fine=[Sent(ONE), Sent(frame(Opcode.TEXT, b"no end", fin=False))],
    faulty=[Sent(ONE, pause=True)],
)
@settings(deadline=None)
def test_gateway_reads_what_the_library_reads(fine: list[Sent], faulty: list[Sent]) -> None:
    asyncio.run(_compare(pieces(fine + faulty)))


def test_burst_is_read_past_the_librarys_parser() -> None:
    burst = Sent(ONE * 1000)
    assert asyncio.run(_compare(pieces([burst]))) == 0


async def _compare(arriving: list[tuple[bytes, bool]]) -> int:
    """Compare; return how many frames the library's parser saw."""
    library = Library()
    messages: list[bytes] = []
    parsed = 0
    pinged = 0
    read = asyncio.Event()

    def on_text(raw: bytes | bytearray) -> None:
        messages.append(bytes(raw))

    def on_ping() -> None:
        nonlocal pinged
        pinged += 1

    connected: asyncio.Future[GatewayWebSocket] = asyncio.get_running_loop().create_future()

    async def handle(websocket: ServerConnection) -> None:
        assert isinstance(websocket, GatewayWebSocket)
        websocket.on_text, websocket.on_ping = on_text, on_ping
        connected.set_result(websocket)
        with contextlib.suppress(ConnectionClosed):
            while True:
                message = await websocket.recv(decode=False)
                assert isinstance(message, bytes)
                messages.append(message)
                read.set()

    turns = Turns()

    class Gateway(GatewayWebSocket):
        intake = Intake(turns)

        def process_event(self, event: Request | Response | Frame) -> None:
            nonlocal parsed
            parsed += type(event) is Frame
            super().process_event(event)

    async def everything_read() -> None:
        turns.take_all()
        while len(messages) < len(library.messages):
            read.clear()
            await read.wait()

    async with (
        asyncio.timeout(_WITHIN_S),
        serve(
            handle,
            "127.0.0.1",
            0,
            create_connection=Gateway,
            compression=None,
            max_size=_MAX_BYTES,
            close_timeout=0.01,
        ) as server,
        RawSocket.open("ws://{}:{}/".format(*server.sockets[0].getsockname()[:2])),
    ):
        websocket = await connected
        for piece, pause in arriving:
            if pause:
                await everything_read()
                await asyncio.sleep(0)  # `recv` takes a first fragment out of its queue
            library.receive(piece)
            websocket.data_received(piece)
        await everything_read()

        assert messages == library.messages
        assert pinged == library.pings
        assert websocket.protocol.state is library.protocol.state
        assert websocket.protocol.close_sent == library.protocol.close_sent
    return parsed
