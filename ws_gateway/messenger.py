"""A change's way through the gateway: recipient known, committed, answered, published.

Answers and publication happen in commit order, and wait for no connection, so a sender who vanishes
after the commit stops nothing.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec
import structlog

from shared.ids import ConnectionId, ConversationId, UserId, conversation_id
from ws_gateway.conversations import (
    Appended,
    Blocked,
    Change,
    Conflict,
    Deletion,
    Draft,
    Edit,
    Erasure,
    Mark,
    Marked,
    NotAuthor,
    NotFound,
    Notice,
    Outcome,
    Published,
    Receipt,
    Unfinished,
    request_id_of,
)
from ws_gateway.delivery.rendering import ack_frame
from ws_gateway.group_commit import Batch, GroupCommit, QueueFull
from ws_gateway.metrics import Metrics
from ws_gateway.ports import (
    MessageBus,
    MessageStore,
    ProfileServiceUnavailable,
    StoreUnavailable,
)
from ws_gateway.protocol import frames
from ws_gateway.protocol.actions import error_frame
from ws_gateway.protocol.errors import ErrorCode
from ws_gateway.recipients import Recipients

__all__ = ["Messenger", "Sender"]

_RETRY_AFTER_MS = 1000
_MANY = 40
"""Changes in one batch from which on their acks do not wait for messages to be rendered, though a
turn of the loop more is the price."""

_log = structlog.get_logger(__name__)


class Sender(Protocol):
    """Where a change came from; it may be gone when the answer comes."""

    @property
    def connection_id(self) -> ConnectionId | None: ...
    def answer(self, frame: frames.ServerFrame) -> None:
        """Send the one answer to one submitted change. This never waits and never raises."""


class _Submission(msgspec.Struct, frozen=True, gc=False):
    change: Change
    sender: Sender


class Messenger:
    """Takes changes and sees each one through to exactly one answer.

    For one event loop. `run` must be running; `drain` lets it finish what was taken. `depart` sends
    at once what connections were given, which else leaves at the end of the loop's turn; it never
    raises. `begin_anew` must close every connection: what was stored could not be told, and is read
    from the store when they resume.
    """

    def __init__(
        self,
        store: MessageStore,
        recipients: Recipients,
        bus: MessageBus,
        metrics: Metrics,
        *,
        now: Callable[[], float] = time.time,
        depart: Callable[[], None] = lambda: None,
        begin_anew: Callable[[], None],
        max_batch: int = 512,
        max_waiting: int = 20_000,
    ) -> None:
        self._store = store
        self._recipients = recipients
        self._bus = bus
        self._metrics = metrics
        self._now = now
        self._depart = depart
        self._begin_anew = begin_anew
        self._last_ms = 0
        self._unpublished: list[Notice] = []
        """What is published in the next turn of the loop."""
        self._committer: GroupCommit[_Submission, Outcome] = GroupCommit(
            self._append,
            self._committed,
            could_not_tell=self._could_not_tell,
            source=lambda submission: id(submission.sender),  # it lives as long as the batch
            max_batch=max_batch,
            max_waiting=max_waiting,
        )
        self._gone: set[UserId] = set()
        """Users whose erasure has begun in this life: what they sent before, and was held up by the
        look-up of its recipient, is not stored after it."""

    @property
    def waiting(self) -> int:
        """Changes that wait to be committed."""
        return self._committer.waiting

    @property
    def has_room(self) -> bool:
        """Whether so little waits that everybody may be read on."""
        return self._committer.has_room

    def submit(self, change: Change, sender: Sender) -> bool:
        """Take a change; `sender.answer` is called once, with its ack, receipt or error.

        Drafts from one sender to one recipient keep their order. Returns whether the sender may be
        read on before that; if not, once `has_room`, or when everything is answered.
        """
        submission = _Submission(change, sender)
        if not isinstance(change, Draft) or self._recipients.is_known(change.recipient):
            return self._queue(submission)
        self._recipients.when_known(
            change.recipient, lambda verdict: self._looked_up(submission, verdict)
        )
        return True

    def refuse_changes_of(self, user_id: UserId) -> None:
        """Take nothing more of somebody who deleted the account, nor what waits for a look-up."""
        self._gone.add(user_id)

    async def erase(self, user_id: UserId) -> None:
        """Take the text from every message of a user who is gone. Safe to repeat.

        Raises:
            StoreUnavailable: not finished; call again later.
        """
        self.refuse_changes_of(user_id)
        # This finds nothing, and comes behind what they sent before and waits in the queue.
        await self._erase_in(
            user_id, conversation_id(user_id, user_id), ErrorCode.MESSAGE_NOT_FOUND
        )
        after: ConversationId | None = None
        while conversations := await self._store.conversations_to_erase(user_id, after):
            for conversation in conversations:
                await self._erase_in(user_id, conversation)
            after = conversations[-1]

    async def _erase_in(
        self, user_id: UserId, conversation: ConversationId, expected: ErrorCode | None = None
    ) -> None:
        upto: int | None = 0
        while upto is not None:
            waiter = _Waiter()
            self.submit(Erasure(user_id, conversation, after=upto), waiter)
            code, upto = await waiter.answered
            if code != expected:
                raise StoreUnavailable("while erasing")

    async def settled(self) -> None:
        """Wait until what is being committed now, if anything, is published."""
        await self._committer.settled()
        self._publish()

    async def run(self) -> None:
        """Commit what is submitted until `drain` has been called and nothing waits."""
        await self._committer.run()

    async def drain(self) -> None:
        """Let `run` return once every change that was taken has its answer."""
        await self._recipients.settled()
        self._committer.drain()

    def abandon(self) -> None:
        """Give up what is not committed by now: its senders are gone, and will send it again."""
        self._committer.abandon()

    def _looked_up(self, submission: _Submission, verdict: bool | Exception) -> None:
        if verdict is True:
            self._queue(submission)
        elif verdict is False:
            self._refuse(submission, ErrorCode.RECIPIENT_NOT_FOUND)
        elif isinstance(verdict, ProfileServiceUnavailable):
            self._refuse(submission, ErrorCode.VERIFICATION_UNAVAILABLE, _RETRY_AFTER_MS)
        else:
            _log.error("looking up a recipient failed", error=repr(verdict))
            self._refuse(submission, ErrorCode.INTERNAL, _RETRY_AFTER_MS)

    def _queue(self, submission: _Submission) -> bool:
        if self._gone and _author(submission.change) in self._gone:
            self._refuse(submission, ErrorCode.SESSION_ENDED)
            return True
        try:
            return self._committer.submit(submission)
        except QueueFull:
            self._refuse(submission, ErrorCode.OVERLOADED, _RETRY_AFTER_MS)
            return True

    def _refuse(
        self, submission: _Submission, code: ErrorCode, retry_after_ms: int | None = None
    ) -> None:
        submission.sender.answer(
            error_frame(
                code, request_id=request_id_of(submission.change), retry_after_ms=retry_after_ms
            )
        )

    async def _append(self, submissions: Sequence[_Submission]) -> Sequence[Outcome]:
        # A clock that is set back must not make a later message look older than an earlier one.
        self._last_ms = max(self._last_ms, int(self._now() * 1000))
        return await self._store.append_batch(
            [submission.change for submission in submissions], self._last_ms
        )

    def _committed(self, batch: Batch[_Submission, Outcome]) -> None:
        self._publish()
        notices: list[Notice] = []
        senders: dict[ConversationId, Sender] = {}
        stored = duplicate = failed = refused = 0
        for submission, outcome in zip(batch.items, batch.outcomes, strict=True):
            if isinstance(outcome, Appended):
                message = outcome.event.message
                sender = submission.sender
                if senders.get(message.conversation, sender) is not sender:
                    self._bus.publish(notices)  # or this ack overtakes the other one's message
                    notices, senders = [], {}
                sender.answer(ack_frame(request_id_of(submission.change), outcome))
                if outcome.duplicate:
                    duplicate += 1
                else:
                    stored += 1
                    notices.append(Published(outcome.event, sender.connection_id))
                    senders[message.conversation] = sender
            elif isinstance(outcome, Marked):
                self._marked(submission, outcome, notices)
            elif isinstance(outcome, Exception):
                failed += 1
                self._failed(submission, outcome)
            else:
                refused += 1
                self._not_made(submission, outcome)
        if not self._committer.waiting:
            self._depart()  # no ack waits for messages to be rendered
            self._bus.publish(notices)
            self._depart()
        elif len(batch.items) < _MANY:  # the next commit begins first, and runs meanwhile
            self._bus.publish(notices)
        else:
            self._unpublished = notices
            asyncio.get_running_loop().call_soon(self._publish)  # after acks have departed
        self._measure(
            batch,
            {"stored": stored, "duplicate": duplicate, "failed": failed, "refused": refused},
        )

    def _publish(self) -> None:
        notices, self._unpublished = self._unpublished, []
        if notices:
            try:
                self._bus.publish(notices)
            except Exception:
                self._could_not_tell()

    def _could_not_tell(self) -> None:
        """A bug, whatever it is, costs connections: else what follows carries cursors past it."""
        _log.exception("telling of stored changes failed: every connection is closed, to resume")
        self._begin_anew()

    def _marked(self, submission: _Submission, marked: Marked, notices: list[Notice]) -> None:
        change = submission.change
        if not isinstance(change, Mark):
            raise AssertionError("only a mark is marked")
        submission.sender.answer(
            frames.ReceiptFrame(
                conversation=change.conversation,
                user=change.user,
                received=marked.received,
                read=marked.read,
                id=change.request_id,
            )
        )
        if marked.moved_received or marked.moved_read:
            notices.append(
                Receipt(
                    conversation=change.conversation,
                    user=change.user,
                    peer=marked.peer,
                    received=marked.received,
                    read=marked.read,
                    shows_read=marked.shows_read,
                    origin=submission.sender.connection_id,
                    is_private=not (marked.moved_received or marked.shows_read),
                )
            )

    def _not_made(self, submission: _Submission, outcome: Outcome) -> None:
        """Answer what was refused, or is an erasure and not made to its end."""
        if not isinstance(outcome, Unfinished):
            self._refuse(submission, _REFUSALS[type(outcome)])
        elif isinstance(submission.sender, _Waiter):
            submission.sender.go_on(outcome)

    def _failed(self, submission: _Submission, error: Exception) -> None:
        if isinstance(error, StoreUnavailable):
            self._refuse(submission, ErrorCode.STORE_UNAVAILABLE, _RETRY_AFTER_MS)
        else:
            _log.error("storing a change failed", error=repr(error))
            self._refuse(submission, ErrorCode.INTERNAL, _RETRY_AFTER_MS)

    def _measure(self, batch: Batch[_Submission, Outcome], counts: dict[str, int]) -> None:
        metrics = self._metrics
        for outcome, count in counts.items():
            if count:
                metrics.changes[outcome].inc(count)
        metrics.batch_size.observe(len(batch.items))
        metrics.commit_seconds.observe(batch.commit_s)
        metrics.ack_seconds.observe(batch.longest_wait_s)
        if counts["failed"]:
            why = next((str(o) for o in batch.outcomes if isinstance(o, StoreUnavailable)), None)
            _log.warning("changes were not stored", count=counts["failed"], unavailable=why)


class _Waiter:
    """A sender within the gateway: it waits for its answer."""

    connection_id = None

    def __init__(self) -> None:
        self.answered: asyncio.Future[tuple[str | None, int | None]] = (
            asyncio.get_running_loop().create_future()
        )
        """What went wrong, if anything; and up to where it is done, if not to the end."""

    def answer(self, frame: frames.ServerFrame) -> None:
        self._set(frame.code if isinstance(frame, frames.Error) else None, None)

    def go_on(self, unfinished: Unfinished) -> None:
        self._set(None, unfinished.upto)

    def _set(self, code: str | None, upto: int | None) -> None:
        if not self.answered.done():
            self.answered.set_result((code, upto))


_REFUSALS: dict[type, ErrorCode] = {
    Conflict: ErrorCode.CONFLICT,
    NotFound: ErrorCode.MESSAGE_NOT_FOUND,
    NotAuthor: ErrorCode.NOT_AUTHOR,
    Blocked: ErrorCode.BLOCKED,
}


def _author(change: Change) -> UserId | None:
    match change:
        case Draft():
            return change.sender
        case Edit() | Deletion():
            return change.author
        case Mark():
            return change.user
        case Erasure():
            return None
