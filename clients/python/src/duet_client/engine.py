"""Joins the parts of a client: what arrives goes where it belongs, and what may go is sent."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Coroutine
from typing import Any

from duet_client.account import Account
from duet_client.errors import ClientClosed, DuetError, refusal
from duet_client.events import ConnectionLost, ConnectionRestored, Event
from duet_client.frames import (
    Ack,
    Connected,
    ErrorFrame,
    Frame,
    MessageDeleted,
    MessageEdited,
    NewMessage,
    Presence,
    Receipt,
    Resumed,
    ResyncNeeded,
    SettingChanged,
    Typing,
    UserErased,
    encode,
)
from duet_client.inbox import Inbox
from duet_client.lifecycle import Lifecycle
from duet_client.link import Link, LinkOptions
from duet_client.outbox import Outbox
from duet_client.pace import Pace
from duet_client.questions import Question, Questions
from duet_client.state import State, Stored

__all__ = ["Engine"]

_REQUESTS_PER_S = 40.0
_REQUEST_BURST = 150
"""Below the gateway's defaults for all that a connection asks (50/s, 200 at once)."""
_MESSAGES_PER_S = 10.0
_MESSAGE_BURST = 50
_OF_THE_CONNECTION = frozenset(
    {"flood", "evicted", "unauthorized", "token_expired", "session_ended", "wrong_user"}
)
"""Errors that may name a request but are not its answer: a close follows."""

_log = logging.getLogger("duet_client")


class Engine:
    """One client's insides. Made inside an event loop; `start`, then `close`."""

    def __init__(
        self,
        options: LinkOptions,
        account: Account,
        lifecycle: Lifecycle,
        state: State,
        *,
        stored: Stored,
        user_id: str,
        answer_timeout_s: float,
        max_waiting_events: int,
        sends_received: bool,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.user_id = user_id
        self.settled = asyncio.Event()
        """Set while there is a verified connection, and once there will be none any more."""
        self.lost_because = "no connection yet"
        self.link = Link(options, account.keeper, lifecycle, self, now=now)
        self.inbox = Inbox(
            state,
            stored.cursor,
            lambda: self.link.restart("the reader has caught up"),
            self._on_handled,
            max_waiting=max_waiting_events,
        )
        self.outbox = Outbox(state, account, self.inbox.put, self._wake)
        self.questions = Questions()
        self.ended: BaseException | None = None
        self._state = state
        self._now = now
        self._answer_timeout_s = answer_timeout_s
        self._sends_received = sends_received
        self._requests = Pace(_REQUESTS_PER_S, _REQUEST_BURST, now())
        self._messages = Pace(_MESSAGES_PER_S, _MESSAGE_BURST, now())
        self._woken = asyncio.Event()
        self._marks: dict[str, int] = {}
        self._marking: set[str] = set()
        self._tasks: list[asyncio.Task[None]] = []
        self.outbox.restore(stored.queued, stored.sent, stored.names)

    def start(self) -> None:
        """Connect, and stay connected."""
        self._start(self.link.run())
        self._start(self._pump())

    async def close(self) -> None:
        """Disconnect, store what is not yet stored, and leave no task behind."""
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)
        self._end(ClientClosed("the client is closed"))
        await self.outbox.close()
        with contextlib.suppress(DuetError):
            await self.inbox.commit()

    def ask(self, kind: str, fields: dict[str, Any], *, in_parts: bool = False) -> Question:
        """Ask the gateway; the answer may take as long as there is no connection.

        Raises:
            ConnectionEnded, LoginRequired: nobody will answer any more.
        """
        if self.ended is not None:
            raise self.ended
        question = self.questions.ask(kind, fields, in_parts=in_parts)
        self._wake()
        return question

    def tell(self, kind: str, fields: dict[str, Any]) -> None:
        """Send what may be lost and has no answer; without a connection, nothing."""
        if self.link.is_live and not self._requests.wait_s(self._now()):
            self._requests.take()
            self.link.transmit(encode(kind, fields))

    def resume_from(self) -> str | None:
        """Return the cursor of the last event taken in."""
        return self.inbox.position

    def connected(self, frame: Connected) -> None:
        """Send again what has no answer; the rest follows by itself."""
        self.inbox.connected()
        self._messages.adopt(frame.limits.messages_per_s, frame.limits.message_burst)
        self._requests.adopt(
            max(_REQUESTS_PER_S, frame.limits.messages_per_s),
            max(_REQUEST_BURST, frame.limits.message_burst),
        )
        if self.inbox.position is None:
            self.inbox.put_logged(None, frame.cursor)
            self._start(self._store_first_cursor(frame.cursor))
        else:
            self._announce()
        self._wake()

    def lost(self, reason: str, retry_in_s: float) -> None:
        """Everything without an answer goes again on the next connection."""
        self.lost_because = reason
        self.settled.clear()
        self.outbox.lanes.lost()
        self.questions.lost()
        if retry_in_s:
            self.inbox.put(ConnectionLost(reason, retry_in_s))

    def received(self, frame: Frame) -> None:
        """Take a frame."""
        match frame:
            case Ack():
                self.outbox.acknowledged(frame)
            case ErrorFrame():
                self._refused(frame)
            case NewMessage():
                own = self.outbox.is_own(frame)
                self.inbox.put_logged(None if own else frame, frame.cursor)
            case MessageEdited() | MessageDeleted() | UserErased() | ResyncNeeded():
                self.inbox.put_logged(frame, frame.cursor)
            case Resumed():
                self.inbox.put_logged(None, frame.cursor)
            case Receipt():
                if frame.id is not None:
                    self.questions.received(frame.id, frame)
                else:
                    self.inbox.put(frame)
            case Typing() | Presence() | SettingChanged():
                self.inbox.put(frame)
            case _:
                self.questions.received(getattr(frame, "id", ""), frame)

    def _refused(self, frame: ErrorFrame) -> None:
        wait_s = 1.0 if frame.retry_after_ms is None else frame.retry_after_ms / 1000
        if frame.code == "rate_limited":
            self._messages.refused(self._now(), wait_s)
            self._requests.refused(self._now(), wait_s)
        if frame.id is None or frame.code in _OF_THE_CONNECTION:
            return
        if not frame.retryable:
            self.outbox.refused(frame.id, refusal(frame.code, frame.message))
            self.questions.received(frame.id, frame)
            return
        if frame.id in self.outbox.lanes:
            self.outbox.lanes.postpone(frame.id, self._now() + wait_s)
        else:
            asyncio.get_running_loop().call_later(wait_s, self._ask_again, frame.id)
        self._wake()

    def _ask_again(self, request_id: str) -> None:
        self.questions.again(request_id)
        self._wake()

    async def _pump(self) -> None:
        """Send what may go, whenever something changes or becomes due."""
        while True:
            wait_s = self._send_ready() if self.link.is_live else None
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._woken.wait()
            self._woken.clear()

    def _send_ready(self) -> float | None:
        """Send what may go. Returns in how many seconds to look again, None for not by time."""
        now = self._now()
        lanes = self.outbox.lanes
        waits: list[float] = []
        while self.questions.has_ready and not self._held_back(self._requests, now, waits):
            request = self.questions.take()
            if request is not None:
                self._requests.take()
                self.link.transmit(request)
        while not (
            self._held_back(self._requests, now, waits)
            or self._held_back(self._messages, now, waits)
        ):
            entry = lanes.take(now)
            if entry is None:
                break
            self._requests.take()
            self._messages.take()
            self.link.transmit(entry.request)
        postponed, oldest = lanes.next_postponed(), lanes.oldest_in_flight()
        if postponed is not None:
            waits.append(postponed - now)
        if oldest is not None:
            left_s = oldest + self._answer_timeout_s - now
            if left_s <= 0:
                self.link.restart(f"no answer within {self._answer_timeout_s:g} s")
            waits.append(left_s)
        return min((wait for wait in waits if wait > 0), default=None)

    def _held_back(self, pace: Pace, now: float, waits: list[float]) -> bool:
        wait_s = pace.wait_s(now)
        waits.append(wait_s)
        return wait_s > 0

    def _on_handled(self, event: Event) -> None:
        """The application has a message: tell the gateway, one mark a conversation at a time."""
        if (
            self._sends_received
            and isinstance(event, NewMessage)
            and event.sender != self.user_id
            and self.ended is None
        ):
            self._marks[event.conversation] = event.seq
            if event.conversation not in self._marking:
                self._mark(event.conversation)

    def _mark(self, conversation: str) -> None:
        seq = self._marks.pop(conversation)
        self._marking.add(conversation)
        question = self.ask("received", {"conversation": conversation, "seq": seq})
        question.answer.add_done_callback(lambda _: self._marked(conversation))

    def _marked(self, conversation: str) -> None:
        self._marking.discard(conversation)
        if conversation in self._marks and self.ended is None:
            self._mark(conversation)

    async def _store_first_cursor(self, cursor: str) -> None:
        """Whoever has seen that there is a connection misses nothing from then on, even killed."""
        await self._state.handled(cursor)
        self._announce()

    def _announce(self) -> None:
        if self.link.is_live and self.ended is None:
            self.settled.set()
            self.inbox.put(ConnectionRestored())

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        task.add_done_callback(self._stopped)
        self._tasks.append(task)

    def _wake(self) -> None:
        self._woken.set()

    def _stopped(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is None:
            return
        if not isinstance(error, DuetError):
            _log.error("the client failed", exc_info=error)
        self._end(error)

    def _end(self, error: BaseException) -> None:
        if self.ended is None:
            self.ended = error
            self.settled.set()
            for part in (self.inbox, self.outbox, self.questions):
                part.end(error)
