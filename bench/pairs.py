"""Two connected people of whom one writes to the other, and what happened to each message.

A message is done when its sender has the ack **and** its recipient has the frame. Both sides are
checked: acks must repeat the ids, and texts must arrive, in the order of sending, none left out.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import TypeAlias

import picows

from bench import wire
from bench.tool import Unexpected

__all__ = ["Client", "OnText", "Pair", "open_client"]

_HEADERS = {"Sec-WebSocket-Protocol": "duet.v1"}
_ASIDES = (b'{"type":"presence"', b'{"type":"typing"', b'{"type":"receipt"')
"""Frames that come unasked and answer no message."""


OnText: TypeAlias = Callable[[bytes, bool], None]
"""Gets each text frame after `connected`, and whether it is the last that has been received."""


class Client(picows.WSListener):
    """One WebSocket. Whoever owns it sets `on_text` and `failed`."""

    def __init__(
        self, access_token: str, resume: str | None = None, on_text: OnText | None = None
    ) -> None:
        super().__init__()
        self.connected: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self.on_text = on_text
        self.failed: Callable[[Exception], None] | None = None
        self._connect_frame = wire.connect_frame(access_token, resume)

    def on_ws_connected(self, transport: picows.WSTransport) -> None:
        """Authenticate."""
        self.transport = transport
        self.write = transport.underlying_transport.write
        self.write(self._connect_frame)

    def on_ws_frame(self, _transport: picows.WSTransport, frame: picows.WSFrame) -> None:
        """Take a frame."""
        if frame.msg_type is not picows.WSMsgType.TEXT:
            if frame.msg_type is picows.WSMsgType.CLOSE:
                self._fail(f"closed: {frame.get_close_code()} {frame.get_close_message()!r}")
            return
        payload = frame.get_payload_as_bytes()
        if not self.connected.done():
            if payload.startswith(b'{"type":"connected"'):
                self.connected.set_result(payload)
            else:
                self._fail(payload.decode())
        elif self.on_text is not None:
            try:
                self.on_text(payload, frame.last_in_buffer)
            except Unexpected as error:
                self._fail(str(error))

    def on_ws_disconnected(self, _transport: picows.WSTransport) -> None:
        """Tell who waits."""
        self._fail("disconnected")

    def close(self) -> None:
        """Close without ceremony."""
        self.failed = None
        self.transport.disconnect(graceful=False)

    def _fail(self, what: str) -> None:
        if not self.connected.done():
            self.connected.set_exception(Unexpected(what))
        elif self.failed is not None:
            self.failed(Unexpected(what))


async def open_client(
    url: str, access_token: str, *, resume: str | None = None, on_text: OnText | None = None
) -> Client:
    """Connect and authenticate; with `resume`, what was missed comes to `on_text`.

    Raises:
        Unexpected, OSError, picows.WSError: it was refused.
    """
    _, client = await picows.ws_connect(
        lambda: Client(access_token, resume, on_text),
        url,
        extra_headers=_HEADERS,
        enable_auto_pong=True,
    )
    assert isinstance(client, Client)
    await client.connected
    return client


class Pair:
    """One sender, one recipient. `send` writes; `done` is called when messages are done.

    Times are `perf_counter_ns`. Latencies are counted from the intended time of sending.
    """

    def __init__(
        self,
        sender: Client,
        recipient: Client,
        recipient_id: str,
        ids: wire.ClientIds,
        done: Callable[["Pair", int], None],
        *,
        text_characters: int = wire.TEXT_CHARACTERS,
    ) -> None:
        self._sender = sender
        self._recipient_id = recipient_id.encode()
        self._ids = ids
        self._done = done
        self._text_characters = text_characters
        self._unacked: deque[bytes] = deque()
        self._newly_done = 0
        self.intended_ns: list[int] = []
        self.acked_ns: list[int] = []
        self.delivered_ns: list[int] = []
        sender.on_text = self._on_ack
        recipient.on_text = self._on_message

    @property
    def sent(self) -> int:
        """Messages written so far."""
        return len(self.intended_ns)

    @property
    def completed(self) -> int:
        """Messages that are acknowledged and delivered."""
        return min(len(self.acked_ns), len(self.delivered_ns))

    def send(self, intended_ns: list[int]) -> None:
        """Write a message for each intended time, all in one system call."""
        frames = []
        first = len(self.intended_ns)
        for number in range(first, first + len(intended_ns)):
            client_id = self._ids.next()
            self._unacked.append(client_id)
            text = wire.message_text(number, self._text_characters)
            frames.append(wire.send_frame(client_id, self._recipient_id, text))
        self.intended_ns += intended_ns
        self._sender.write(b"".join(frames))

    def _on_ack(self, payload: bytes, last: bool) -> None:
        if payload.startswith(b'{"type":"ack"') and self._unacked.popleft() in payload:
            self.acked_ns.append(time.perf_counter_ns())
            if len(self.acked_ns) <= len(self.delivered_ns):
                self._newly_done += 1
        elif not payload.startswith(_ASIDES):
            raise Unexpected(payload.decode())
        if last:
            self._report()

    def _on_message(self, payload: bytes, last: bool) -> None:
        if wire.message_text(len(self.delivered_ns), self._text_characters) in payload:
            self.delivered_ns.append(time.perf_counter_ns())
            if len(self.delivered_ns) <= len(self.acked_ns):
                self._newly_done += 1
        elif not payload.startswith(_ASIDES):
            raise Unexpected(payload.decode())
        if last:
            self._report()

    def _report(self) -> None:
        if self._newly_done:
            count, self._newly_done = self._newly_done, 0
            self._done(self, count)
