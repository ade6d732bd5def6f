"""The `websockets` connection, as the gateway uses it.

Three things differ from `ServerConnection`, all in its documented room for customization
(`create_connection`) and asyncio's protocol callbacks:

- Unfragmented text is handed to a callback as it arrives: no queue, future or task switch for each
  message, and mostly not even the library's parser. Everything else comes through `recv`, in order.
- Writing never waits. `Outbox` watches the write buffer, because neither keep-alive nor `close()`
  gets past a full one (a client that stops reading would stay for ever).
- Closing never waits either, and has a deadline.
"""

import asyncio
import contextlib
import enum
import functools
import socket
from collections.abc import Callable
from typing import cast

from websockets.asyncio.server import ServerConnection
from websockets.frames import Frame, Opcode
from websockets.http11 import Request, Response
from websockets.protocol import OPEN

from ws_gateway.delivery.outbox import Departures, Outbox, OutboxLimits, SharedBacklog
from ws_gateway.intake import Intake
from ws_gateway.protocol.errors import CloseCode
from ws_gateway.protocol.rate_limit import RateLimit
from ws_gateway.text_frames import awaits_frame, whole_texts

__all__ = ["GatewayWebSocket", "Pause"]

_MAX_REASON_BYTES = 123  # a control frame's 125 less the code, RFC 6455 section 5.5


_AT_ONCE_BYTES = 4096
"""What is taken of a client as it arrives; more waits for its turn."""
_PIECE_BYTES = 1024
"""What is then taken of it before it is the next one's turn."""
_RECEIVE_BUFFER_BYTES = 65_536
_SEND_BUFFER_BYTES = 65_536
"""Linux doubles both. Its own choice grows to megabytes for a client that reads nothing, and one
turn of the event loop would take in thousands of a flood's frames. Less than this holds no whole
segment of the loopback (64 KiB), and then each one waits for a timer of TCP: 2 MB took 20 s to come
in, and an export 20 times as long to go out.
"""


class Pause(enum.Enum):
    """Why a client is not read from."""

    BEHIND = enum.auto()
    """It does not read what it was sent."""
    UNANSWERED = enum.auto()
    """Too many of its requests wait for an answer."""
    TOO_FAST = enum.auto()
    """It was told to slow down."""
    QUEUED = enum.auto()
    """Frames wait to be read by `recv`."""
    TOO_MUCH = enum.auto()
    """What it sent waits for its turn, or is more than the limits on requests have room for."""


_ONLY_TOO_MUCH = frozenset({Pause.TOO_MUCH})


class GatewayWebSocket(ServerConnection):
    """One client's WebSocket. Made by `websockets.serve`; `limits` is set before it serves.

    What it adds is in slots: beside the library's own attributes it would double the size of the
    largest object that an idle connection keeps.
    """

    __slots__ = (
        "_allowance",
        "_awaits_frame",
        "_charged_at",
        "_closing_deadline",
        "_intake",
        "_is_queued",
        "_reading_paused",
        "_unread",
        "aborted_slow",
        "authorization",
        "counted_as",
        "on_ping",
        "on_text",
        "outbox",
        "resume",
    )

    limits: OutboxLimits = OutboxLimits()
    backlog: SharedBacklog | None = None
    departures: Departures | None = None
    opening: "set[GatewayWebSocket] | None" = None
    """Those whose handshake is not over."""
    intake: Intake | None = None
    """All four are shared by all connections of a server."""
    received_bytes: RateLimit = RateLimit(1e9, 1_000_000_000)
    """What is taken from a client before it has to wait. Pings cost as much as requests, and only
    their bytes can be counted before the library answers them."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the outbox with the connection."""
        super().connection_made(transport)
        if self.opening is not None:
            self.opening.add(self)
        # Else it would resume what is paused for another reason.
        self.recv_messages.pause = functools.partial(self.pause_reading, Pause.QUEUED)
        self.recv_messages.resume = functools.partial(self.resume_reading, Pause.QUEUED)
        _bound_kernel_buffers(self.transport)
        self.authorization: str | None = None
        """The handshake's `Authorization` header, taken from the request: no log shows it."""
        self.resume: str | None = None
        """The cursor that came with the `Authorization` header, in the URL's `resume`."""
        self.counted_as: str | None = None
        """The address that it counts as one of, if it counts."""
        self.on_text: Callable[[bytes | bytearray], None] | None = None
        """Called with each unfragmented text message once set; must not raise."""
        self.on_ping: Callable[[], None] | None = None
        """Called for each ping once set; must not raise."""
        self.outbox = Outbox(
            self.transport,
            self.limits,
            self.departures or Departures(self.loop),
            self._note_abort,
            self.backlog,
        )
        self._reading_paused: frozenset[Pause] = frozenset()
        self._allowance = float(self.received_bytes.burst)
        self._charged_at = self.loop.time()
        self._unread = bytearray()
        self._intake = self.intake or Intake(self.loop)
        self._is_queued = False
        self._awaits_frame = False
        self.aborted_slow = False
        self._closing_deadline: asyncio.TimerHandle | None = None

    def data_received(self, data: bytes) -> None:
        """Take bytes: few at once, many in turn with other clients', and no more than allowed."""
        size = len(data)
        if size <= _AT_ONCE_BYTES and size <= self._allowance and not self._unread:
            self._allowance -= size
            taken = self._take(data)
            if taken < size:
                self._take(data[taken:])
            return
        self._unread += data
        self.pause_reading(Pause.TOO_MUCH)  # or the end of the stream could overtake it
        self._queue()

    def _take(self, data: bytes) -> int:
        """Hand over the texts that bytes begin with; when they begin with none, all of them to the
        library. Return how many were taken.

        When this ends the connection, the client may not keep it half open: `recv` waits for the
        end without a deadline of its own."""
        if (
            self._awaits_frame
            and self.on_text is not None
            and self.protocol.state is OPEN
            and not self.recv_messages.frames
        ):
            texts, end = whole_texts(data, self.protocol.max_message_size or 0)
            for text in texts:
                self.on_text(text)
            if texts:
                return end
        super().data_received(data)
        self._awaits_frame = awaits_frame(self.protocol)
        if self.protocol.close_expected():
            self._limit_closing()
        return len(data)

    def _queue(self) -> None:
        """Wait for a turn, unless there is a reason to take nothing: `resume_reading` comes back
        to it."""
        if not self._is_queued and self._reading_paused == _ONLY_TOO_MUCH:
            self._is_queued = True
            self._intake.add(self)

    def take_piece(self) -> bool:
        """Take a piece of what waits; see `Source`."""
        if not self.transport.is_closing() and self._reading_paused == _ONLY_TOO_MUCH:
            self._gain_allowance()
            piece = bytes(self._unread[: min(int(self._allowance), _PIECE_BYTES)])
            taken = self._take(piece) if piece else 0  # a text that is cut off waits for its rest
            del self._unread[:taken]
            self._allowance -= taken
            if self._unread:
                return self._may_go_on()
            self.resume_reading(Pause.TOO_MUCH)
        self._is_queued = False
        return False

    def _may_go_on(self) -> bool:
        """Tell whether the allowance has room for another piece; else come back when it has."""
        missing = min(len(self._unread), _PIECE_BYTES) - self._allowance
        if missing > 0:
            self.loop.call_later(missing / self.received_bytes.per_s, self._come_back)
        return missing <= 0

    def _come_back(self) -> None:
        self._is_queued = False
        self._queue()

    def _gain_allowance(self) -> None:
        limit, now = self.received_bytes, self.loop.time()
        gained = (now - self._charged_at) * limit.per_s
        self._allowance = min(float(limit.burst), self._allowance + gained)
        self._charged_at = now

    def send_data(self) -> None:
        """Write what the library wants written (pongs, closes, the end) after what waits before."""
        self.outbox.flush()
        super().send_data()
        self.outbox.check()

    def process_event(self, event: Request | Response | Frame) -> None:
        """Hand unfragmented text over at once, unless an earlier message still waits in `recv`."""
        if (
            self.on_text is not None
            and type(event) is Frame
            and event.opcode is Opcode.TEXT
            and event.fin
            and not self.recv_messages.frames
        ):
            self.on_text(cast(bytearray, event.data))
            return
        super().process_event(event)
        if self.on_ping is not None and type(event) is Frame and event.opcode is Opcode.PING:
            self.on_ping()

    def pause_writing(self) -> None:
        """The write buffer passed its bound. Who does not read is not read from either: answers
        to a flood, pongs among them, would pile up as fast as the flood comes."""
        super().pause_writing()
        self.outbox.pause()
        self.pause_reading(Pause.BEHIND)

    def resume_writing(self) -> None:
        """The write buffer has drained."""
        super().resume_writing()
        self.outbox.resume()
        self.resume_reading(Pause.BEHIND)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clocks with the connection."""
        self._handshake_is_over()
        self.outbox.resume()
        if self._closing_deadline is not None:
            self._closing_deadline.cancel()
        super().connection_lost(exc)
        self.recv_messages.pause = self.recv_messages.resume = _nothing  # no cycle is left

    def forget_handshake(self) -> None:
        """Let go of the handshake's headers, several kilobytes: nothing asks for them again."""
        self._handshake_is_over()
        for message in (self.request, self.response):
            if message is not None:
                message.headers.clear()

    @property
    def is_open(self) -> bool:
        """Whether messages can still be sent."""
        return self.protocol.state is OPEN

    def write(self, wire: bytes) -> None:
        """Send wire bytes of whole frames; dropped when the connection is not open."""
        if self.protocol.state is OPEN:
            self.outbox.write(wire)

    async def drained(self) -> None:
        """Wait until the write buffer is below its bound; returns at once when it is, or when the
        connection is lost meanwhile."""
        self.outbox.flush()
        if self.outbox.is_behind:
            with contextlib.suppress(OSError):
                await self.drain()

    def begin_close(self, code: CloseCode, reason: str = "") -> None:
        """Start the closing handshake and return; it is aborted when it takes too long."""
        if self.protocol.state is not OPEN:
            return
        short = reason.encode()[:_MAX_REASON_BYTES].decode(errors="ignore")
        self.protocol.send_close(code, short)
        self.send_data()
        self._limit_closing()

    def pause_reading(self, why: Pause) -> None:
        """Take no more from the client until `resume_reading`: TCP slows it down."""
        self._reading_paused |= {why}
        if not self.transport.is_closing():
            self.transport.pause_reading()

    def resume_reading(self, why: Pause) -> None:
        """Take from the client again, unless there is another reason not to."""
        self._reading_paused -= {why}
        if self._reading_paused:
            self._queue()
        elif not self.transport.is_closing():
            self.transport.resume_reading()

    def close_codes(self) -> tuple[int | None, int | None]:
        """Return the close codes (received, sent); nothing for a side that said none."""
        received, sent = self.protocol.close_rcvd, self.protocol.close_sent
        return (received.code if received else None, sent.code if sent else None)

    def _handshake_is_over(self) -> None:
        if self.opening is not None:
            self.opening.discard(self)

    def _limit_closing(self) -> None:
        """Give the client so long to end the connection, then end it here."""
        if self._closing_deadline is None:
            self._closing_deadline = self.loop.call_later(
                self.close_timeout or 0, self.transport.abort
            )

    def _note_abort(self) -> None:
        self.aborted_slow = True


def _nothing() -> None:
    pass


def _bound_kernel_buffers(transport: asyncio.BaseTransport) -> None:
    connected = transport.get_extra_info("socket")
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER_BYTES)
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
