"""A message's way through the gateway: recipient known, committed, acknowledged, published.

Acks and publication happen in the committer's own task, in commit order, so a sender who vanishes
after the commit stops nothing.
"""

import time
from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias

import msgspec
import structlog

from shared.ids import ConnectionId
from ws_gateway.conversations import Appended, Conflict, Draft
from ws_gateway.group_commit import Batch, GroupCommit, QueueFull
from ws_gateway.metrics import Metrics
from ws_gateway.ports import (
    MessageBus,
    MessageStore,
    ProfileServiceUnavailable,
    PublishedMessage,
    StoreUnavailable,
)
from ws_gateway.protocol import codec, frames
from ws_gateway.protocol.errors import ErrorCode
from ws_gateway.protocol.session import error_frame
from ws_gateway.recipients import Recipients

__all__ = ["Messenger", "Sender"]

_RETRY_AFTER_MS = 1000

_log = structlog.get_logger(__name__)


class Sender(Protocol):
    """The connection a draft came from; it may be gone when the answer comes."""

    @property
    def connection_id(self) -> ConnectionId: ...
    def answer(self, frame: frames.Ack | frames.Error) -> None:
        """Send the one answer to one submitted draft. This never waits and never raises."""


class _Submission(msgspec.Struct, frozen=True, gc=False):
    draft: Draft
    sender: Sender


_Outcome: TypeAlias = Appended | Conflict


class Messenger:
    """Takes drafts and sees each one through to exactly one answer.

    For one event loop. `run` must be running; `drain` lets it finish what was taken.
    """

    def __init__(
        self,
        store: MessageStore,
        recipients: Recipients,
        bus: MessageBus,
        metrics: Metrics,
        *,
        now: Callable[[], float] = time.time,
        max_batch: int = 512,
        max_waiting: int = 20_000,
    ) -> None:
        self._store = store
        self._recipients = recipients
        self._bus = bus
        self._metrics = metrics
        self._now = now
        self._last_ms = 0
        self._committer: GroupCommit[_Submission, _Outcome] = GroupCommit(
            self._append, self._committed, max_batch=max_batch, max_waiting=max_waiting
        )
        self.published_position = store.position
        """The position up to which messages were published here."""

    @property
    def waiting(self) -> int:
        """Drafts that wait to be committed."""
        return self._committer.waiting

    def submit(self, draft: Draft, sender: Sender) -> None:
        """Take a draft; `sender.answer` is called once, with its ack or its error.

        Drafts from one sender to one recipient keep their order.
        """
        submission = _Submission(draft, sender)
        if self._recipients.is_known(draft.recipient):
            self._queue(submission)
        else:
            self._recipients.when_known(
                draft.recipient, lambda verdict: self._looked_up(submission, verdict)
            )

    async def run(self) -> None:
        """Commit what is submitted until `drain` has been called and nothing waits."""
        await self._committer.run()

    async def drain(self) -> None:
        """Let `run` return once every draft that was taken has its answer."""
        await self._recipients.settled()
        self._committer.drain()

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

    def _queue(self, submission: _Submission) -> None:
        try:
            self._committer.submit(submission)
        except QueueFull:
            self._refuse(submission, ErrorCode.OVERLOADED, _RETRY_AFTER_MS)

    def _refuse(
        self, submission: _Submission, code: ErrorCode, retry_after_ms: int | None = None
    ) -> None:
        submission.sender.answer(
            error_frame(code, request_id=submission.draft.client_id, retry_after_ms=retry_after_ms)
        )

    async def _append(self, submissions: Sequence[_Submission]) -> Sequence[_Outcome]:
        # A clock that is set back must not make a later message look older than an earlier one.
        self._last_ms = max(self._last_ms, int(self._now() * 1000))
        return await self._store.append_batch(
            [submission.draft for submission in submissions], self._last_ms
        )

    def _committed(self, batch: Batch[_Submission, _Outcome]) -> None:
        published: list[PublishedMessage] = []
        duplicates = conflicts = failed = 0
        for submission, outcome in zip(batch.items, batch.outcomes, strict=True):
            if isinstance(outcome, Appended):
                message = outcome.message
                submission.sender.answer(
                    frames.Ack(
                        id=message.client_id,
                        conversation=message.conversation,
                        seq=message.seq,
                        sent_at=codec.timestamp(message.sent_at_ms),
                        duplicate=outcome.duplicate,
                    )
                )
                if outcome.duplicate:
                    duplicates += 1
                else:
                    published.append(PublishedMessage(message, submission.sender.connection_id))
            elif isinstance(outcome, Conflict):
                conflicts += 1
                self._refuse(submission, ErrorCode.CONFLICT)
            else:
                failed += 1
                self._failed(submission, outcome)
        if published:
            self._bus.publish(published)
            self.published_position = published[-1].message.position
        self._count(batch, len(published), duplicates, conflicts, failed)

    def _failed(self, submission: _Submission, error: Exception) -> None:
        if isinstance(error, StoreUnavailable):
            self._refuse(submission, ErrorCode.STORE_UNAVAILABLE, _RETRY_AFTER_MS)
        else:
            _log.error("storing a message failed", error=repr(error))
            self._refuse(submission, ErrorCode.INTERNAL, _RETRY_AFTER_MS)

    def _count(
        self,
        batch: Batch[_Submission, _Outcome],
        stored: int,
        duplicates: int,
        conflicts: int,
        failed: int,
    ) -> None:
        metrics = self._metrics
        for outcome, count in (
            ("stored", stored),
            ("duplicate", duplicates),
            ("conflict", conflicts),
            ("failed", failed),
        ):
            if count:
                metrics.messages.labels(outcome).inc(count)
        metrics.batch_size.observe(len(batch.items))
        metrics.commit_seconds.observe(batch.commit_s)
        metrics.ack_seconds.observe(batch.longest_wait_s)
        if failed:
            unavailable = next(
                (str(e) for e in batch.outcomes if isinstance(e, StoreUnavailable)), None
            )
            _log.warning("messages were not stored", count=failed, store_unavailable=unavailable)
