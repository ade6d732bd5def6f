"""Events on their way to the application: bounded, without doubles, and kept until handled."""

import asyncio
from collections import deque
from collections.abc import Callable

import msgspec

from duet_client.errors import ClientClosed
from duet_client.events import Event, SendFailed
from duet_client.frames import Typing
from duet_client.state import State

__all__ = ["EventStream", "Inbox"]

_MAX_WAITING = 1000
_MAX_UNCOMMITTED = 64
_REMEMBERED_CURSORS = 1024


class _Item(msgspec.Struct, frozen=True):
    event: Event | None
    """None: nothing to hand out, but the cursor moves when everything before it is handled."""
    cursor: str | None = None


class Inbox:
    """Between the connection and `events()`. For one event loop and one reader at a time.

    An event is *handled* when its reader comes back for the next one. Then its cursor may be
    stored: at once when nothing else waits, otherwise with at most 63 others. What is stored is
    never delivered again; what was handed out and not stored is, after a crash.

    When the reader is so slow that `max_waiting` events wait, further ones are let go: they are in
    the gateway's log. `on_drained` is called when the reader has caught up, to connect anew from
    `position`, so memory stays flat however far behind the reader is.
    """

    def __init__(
        self,
        state: State,
        position: str | None,
        on_drained: Callable[[], None],
        on_handled: Callable[[Event], None],
        *,
        max_waiting: int = _MAX_WAITING,
    ) -> None:
        self.position = position
        """The cursor of the last event taken in; a new connection resumes from it."""
        self._state = state
        self._on_drained = on_drained
        self._on_handled = on_handled
        self._max_waiting = max_waiting
        self._waiting: deque[_Item] = deque()
        self._seen: deque[str] = deque(maxlen=_REMEMBERED_CURSORS)
        self._current: _Item | None = None
        self._overflowed = False
        self._arrived = asyncio.Event()
        self._ended: BaseException | None = None
        self._cursor: str | None = None
        self._failed_ids: list[str] = []
        self._uncommitted = 0

    @property
    def is_overflowing(self) -> bool:
        """Whether events are being let go because nobody reads them."""
        return self._overflowed

    def connected(self) -> None:
        """A new connection resumes from `position`: nothing is missing any more."""
        self._overflowed = False

    def put(self, event: Event) -> None:
        """Take in what is not of the log; under pressure, typing is the first to go."""
        if isinstance(event, Typing) and len(self._waiting) >= self._max_waiting // 2:
            return
        if len(self._waiting) < 2 * self._max_waiting:
            self._add(_Item(event))

    def put_logged(self, event: Event | None, cursor: str) -> None:
        """Take in an event of the log, or pass it over (None); a double is dropped."""
        if self._overflowed or cursor == self.position or cursor in self._seen:
            return
        if len(self._waiting) >= self._max_waiting:
            self._overflowed = True
            return
        self._seen.append(cursor)
        self.position = cursor
        self._add(_Item(event, cursor))

    def end(self, error: BaseException) -> None:
        """Nothing more will come: the reader gets what waits, then `error`."""
        self._ended = error
        self._arrived.set()

    async def next(self) -> Event:
        """Return the event that was handed out and not handled, or else the next one."""
        while True:
            if self._current is not None and self._current.event is not None:
                return self._current.event
            self._current = None
            while not self._waiting:
                await self._caught_up()
            self._current = self._waiting.popleft()
            if self._current.event is None:
                self._note(self._current)

    async def handled(self, event: Event | None = None) -> None:
        """The event handed out last need not come again (if it is `event`, when one is given)."""
        item = self._current
        if item is None or (event is not None and item.event is not event):
            return
        self._current = None
        self._note(item)
        if event is not None or not self._waiting or self._uncommitted >= _MAX_UNCOMMITTED:
            await self.commit()

    async def commit(self) -> None:
        """Store what was handled."""
        if self._uncommitted:
            failed, self._failed_ids, self._uncommitted = self._failed_ids, [], 0
            await self._state.handled(self._cursor, failed)

    def _add(self, item: _Item) -> None:
        self._waiting.append(item)
        self._arrived.set()

    def _note(self, item: _Item) -> None:
        if item.cursor is not None:
            self._cursor = item.cursor
            self._uncommitted += 1
        if isinstance(item.event, SendFailed):
            self._failed_ids.append(item.event.id)
            self._uncommitted += 1
        if item.event is not None:
            self._on_handled(item.event)

    async def _caught_up(self) -> None:
        if self._ended is not None:
            raise self._ended
        if self._overflowed:
            self._on_drained()
        await self.commit()
        if not self._waiting and self._ended is None:
            self._arrived.clear()
            await self._arrived.wait()


class EventStream:
    """`async for event in …`: coming back for the next event says that the last one is handled.

    Leaving the loop does not say so: the last event comes again from the next `events()`, unless it
    was given to `Client.handled`. Ends when the client is closed; raises when it had to stop.
    """

    def __init__(self, inbox: Inbox) -> None:
        self._inbox = inbox
        self._handed_out: Event | None = None

    def __aiter__(self) -> "EventStream":
        return self

    async def __anext__(self) -> Event:
        try:
            if self._handed_out is not None:
                await self._inbox.handled()
                self._handed_out = None
            self._handed_out = await self._inbox.next()
        except ClientClosed:
            raise StopAsyncIteration from None
        return self._handed_out
