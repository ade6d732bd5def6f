"""What a connection has yet to send, bounded: one slow reader costs nobody else anything.

Writes never wait. What one turn of the event loop writes goes out in one system call: a committed
batch may hold many frames for one connection, and a call for each costs more than all else. Past
that, the loop's own write buffer is the queue, and this watches it. Over the bound, frames that
may be lost (typing, presence) are dropped first. When the reader stays over the bound for longer
than the grace, or passes twenty times the bound, or its share of what all readers together may
leave unread, the connection is aborted and the client resumes from its cursor. Automatic pongs go
through the same buffer and so count too.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from typing import Protocol

import msgspec
import structlog

__all__ = [
    "Departures",
    "Outbox",
    "OutboxLimits",
    "OutboxLoop",
    "OutboxTransport",
    "SharedBacklog",
]

_log = structlog.get_logger(__name__)


class OutboxTransport(Protocol):
    """The part of `asyncio.WriteTransport` that an outbox needs."""

    def write(self, data: bytes) -> None: ...
    def get_write_buffer_size(self) -> int: ...
    def is_closing(self) -> bool: ...
    def abort(self) -> None: ...


class OutboxLoop(Protocol):
    """The part of the event loop that an outbox needs."""

    def call_soon(self, callback: Callable[[], None], /) -> object: ...
    def call_later(self, delay: float, callback: Callable[[], None], /) -> asyncio.TimerHandle: ...


class OutboxLimits(msgspec.Struct, frozen=True):
    """How far behind a reader may fall."""

    max_buffered_bytes: int = 256 * 1024
    grace_s: float = 5.0

    @property
    def abort_at_bytes(self) -> int:
        """The size at which the grace is not waited for."""
        return 20 * self.max_buffered_bytes


class SharedBacklog:
    """What all readers that are behind may leave unread together. Shared by all outboxes."""

    def __init__(self, max_bytes: int = 32 * 1024 * 1024) -> None:
        self._max_bytes = max_bytes
        self.readers = 0
        """How many are behind now."""

    @property
    def share_bytes(self) -> int:
        """What one of them may leave unread: the more there are, the less."""
        return self._max_bytes // max(1, self.readers)


class Departures:
    """The outboxes that were written to in this turn of the loop: one callback flushes them all.

    Shared by all outboxes: a batch writes to a hundred, and a callback costs as much as a frame.
    """

    def __init__(self, loop: OutboxLoop) -> None:
        self.loop = loop
        self._waiting: list[Outbox] = []

    def add(self, outbox: "Outbox") -> None:
        """Flush an outbox at the end of this turn, or sooner by `leave`. Twice is harmless."""
        if not self._waiting:
            self.loop.call_soon(self.leave)
        self._waiting.append(outbox)

    def leave(self) -> None:
        """Flush all that wait, in the order in which they were first written to. Never raises."""
        waiting, self._waiting = self._waiting, []
        for outbox in waiting:
            try:
                outbox.flush()
            except Exception:
                _log.exception("writing to a connection failed")
                outbox.abandon()


class Outbox:
    """Writes to one connection's transport and gives up on a reader that does not keep up.

    The owner forwards the transport's flow control: `pause` when its buffer passes
    `max_buffered_bytes`, `resume` when it has drained. For one event loop.
    """

    __slots__ = (
        "_aborted",
        "_backlog",
        "_buffered_at_check",
        "_departures",
        "_expiry",
        "_limits",
        "_paced",
        "_transport",
        "_unsent",
    )

    def __init__(
        self,
        transport: OutboxTransport,
        limits: OutboxLimits,
        departures: Departures,
        aborted: Callable[[], None],
        backlog: SharedBacklog | None = None,
    ) -> None:
        self._transport = transport
        self._limits = limits
        self._departures = departures
        self._aborted = aborted
        self._backlog = backlog or SharedBacklog()
        self._unsent: list[bytes] = []
        self._expiry: asyncio.TimerHandle | None = None
        self._buffered_at_check = 0
        self._paced = 0

    @property
    def is_behind(self) -> bool:
        """Whether the reader is over the bound now."""
        return self._expiry is not None

    @contextlib.contextmanager
    def pacing(self) -> Iterator[None]:
        """While the writer waits for the reader, as a replay does: slow is fine, stuck is not."""
        self._paced += 1
        try:
            yield
        finally:
            self._paced -= 1

    def write(self, data: bytes) -> None:
        """Send wire bytes at the end of this turn of the loop, or sooner by `flush`."""
        if not self._unsent:
            self._departures.add(self)
        self._unsent.append(data)

    def write_ephemeral(self, data: bytes) -> bool:
        """Send wire bytes that may be lost. Returns whether they are sent."""
        if self._expiry is not None:
            return False
        self.write(data)
        return True

    def flush(self) -> None:
        """Hand everything to the transport; abort when far too much is waiting there already."""
        unsent = self._unsent
        if not unsent:
            return
        data = unsent[0] if len(unsent) == 1 else b"".join(unsent)
        unsent.clear()
        if self._transport.is_closing():
            return
        self._transport.write(data)
        if self._expiry is not None:  # hardly anybody is behind, and every frame comes by here
            self.check()

    def abandon(self) -> None:
        """Abort, since something was lost on the way: nothing later may arrive without it."""
        self.resume()
        self._transport.abort()

    def check(self) -> None:
        """Abort when far too much is waiting; for whoever writes to the transport past this."""
        if self._expiry is not None and self._transport.get_write_buffer_size() > min(
            self._limits.abort_at_bytes, self._backlog.share_bytes
        ):
            self._abort()

    def pause(self) -> None:
        """The buffer is over the bound: the grace begins."""
        if self._expiry is None:
            self._backlog.readers += 1
            self._watch()

    def resume(self) -> None:
        """The reader has caught up."""
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None
            self._backlog.readers -= 1

    def _watch(self) -> None:
        self._buffered_at_check = self._transport.get_write_buffer_size()
        self._expiry = self._departures.loop.call_later(self._limits.grace_s, self._check)

    def _check(self) -> None:
        if self._paced and self._transport.get_write_buffer_size() < self._buffered_at_check:
            self._watch()
        else:
            self._abort()

    def _abort(self) -> None:
        self._aborted()
        self.abandon()
