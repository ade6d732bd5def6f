"""Two people for a soak: one writes, the other confirms receipt now and then, and reads back."""

import random
import time
from collections import deque
from collections.abc import Callable

from hdrh.histogram import HdrHistogram  # type: ignore[import-untyped]

from bench import wire
from bench.pairs import open_client
from bench.people import Person
from bench.tool import Unexpected

__all__ = ["Talk"]

_RECEIPT_EVERY = 10
_PAGE_MESSAGES = 50


class Talk:
    """What two people do; what is done is counted, and no message is remembered."""

    def __init__(self, sender: Person, recipient: Person) -> None:
        self.sender, self.recipient = sender, recipient
        self._to = recipient.user_id.encode()
        self._from = sender.user_id.encode()
        self._ids = wire.ClientIds("uuid7")
        self._due_ns: deque[tuple[bytes, int]] = deque()
        self._conversation = b""
        self.histogram = HdrHistogram(1, 60_000_000, 3)
        self.sent = self.acked = self.delivered = self.receipts = self.pages = 0

    async def join(self, url: str, fail: Callable[[Exception], None]) -> None:
        """Connect both."""
        self._writer = await open_client(url, self.sender.access_token, on_text=self._on_ack)
        self._reader = await open_client(url, self.recipient.access_token, on_text=self._on_message)
        self._writer.failed = self._reader.failed = fail

    def leave(self) -> None:
        """Disconnect both."""
        self._writer.close()
        self._reader.close()

    def send(self, intended_ns: list[int]) -> None:
        """Send a message for each time that one was due."""
        frames = []
        for due_ns in intended_ns:
            client_id = self._ids.next()
            self._due_ns.append((client_id, due_ns))
            frames.append(wire.send_frame(client_id, self._to, wire.message_text(self.sent)))
            self.sent += 1
        self._writer.write(b"".join(frames))

    def read_back(self) -> None:
        """Ask for some page of the history."""
        if self.delivered > _PAGE_MESSAGES:
            before = random.randint(_PAGE_MESSAGES, self.delivered)
            self._reader.write(
                wire.masked_text(
                    b'{"type":"history","id":"page","with":"%b","before":%d,"limit":%d}'
                    % (self._from, before, _PAGE_MESSAGES)
                )
            )

    def renew(self, access_token: str) -> None:
        """Let the sender's connection go on with a newer token."""
        self._writer.write(
            wire.masked_text(
                b'{"type":"refresh","id":"renew","access_token":"%b"}' % access_token.encode()
            )
        )

    def _on_ack(self, payload: bytes, _last: bool) -> None:
        if payload.startswith(b'{"type":"ack"'):
            client_id, due_ns = self._due_ns.popleft()
            if client_id not in payload:
                raise Unexpected(payload.decode())
            self.acked += 1
            self.histogram.record_value(max(1, (time.perf_counter_ns() - due_ns) // 1000))
        elif payload.startswith(b'{"type":"error"'):
            raise Unexpected(payload.decode())

    def _on_message(self, payload: bytes, _last: bool) -> None:
        if payload.startswith(b'{"type":"message"'):
            if wire.message_text(self.delivered) not in payload:
                raise Unexpected(f"{self.delivered} was due: {payload.decode()}")
            self.delivered += 1
            if not self._conversation:
                self._conversation = payload.partition(b'"conversation":"')[2].partition(b'"')[0]
            if self.delivered % _RECEIPT_EVERY == 0:
                kind = b"read" if self.delivered % (2 * _RECEIPT_EVERY) == 0 else b"received"
                self._reader.write(
                    wire.masked_text(
                        b'{"type":"%b","conversation":"%b","seq":%d}'
                        % (kind, self._conversation, self.delivered)
                    )
                )
                self.receipts += 1
        elif payload.startswith(b'{"type":"history"'):
            self.pages += 1
        elif payload.startswith(b'{"type":"error"'):
            raise Unexpected(payload.decode())
