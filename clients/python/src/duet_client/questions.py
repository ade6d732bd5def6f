"""Requests that wait for an answer. Those that the connection took with it are asked again."""

import asyncio
from collections import deque
from typing import Any

import msgspec

from duet_client.answers import ExportChunk
from duet_client.errors import NoAnswer, refusal
from duet_client.frames import ErrorFrame, Frame, encode
from duet_client.message_ids import new_id

__all__ = ["Question", "Questions"]


class Question(msgspec.Struct, frozen=True, eq=False):
    """A request under way. Everything that is asked so may be asked twice."""

    id: str
    request: str
    answer: asyncio.Future[Frame]
    parts: asyncio.Queue[ExportChunk | None] | None = None
    """Pieces that come before the answer proper, None when it is there. Such a request is not
    repeated."""


class Questions:
    """For one event loop. `take` gives what to send next."""

    def __init__(self) -> None:
        self._open: dict[str, Question] = {}
        self._to_send: deque[str] = deque()

    def ask(self, kind: str, fields: dict[str, Any], *, in_parts: bool = False) -> Question:
        """Queue a request; its answer comes in `answer`."""
        request_id = new_id()
        answer: asyncio.Future[Frame] = asyncio.get_running_loop().create_future()
        answer.add_done_callback(_retrieve)
        parts: asyncio.Queue[ExportChunk | None] | None = None
        if in_parts:
            parts = asyncio.Queue()
            answer.add_done_callback(lambda _: parts.put_nowait(None))
        question = Question(request_id, encode(kind, {"id": request_id, **fields}), answer, parts)
        self._open[request_id] = question
        self._to_send.append(request_id)
        return question

    def take(self) -> str | None:
        """Return the next request to send."""
        while self._to_send:
            question = self._open.get(self._to_send.popleft())
            if question is not None:
                return question.request
        return None

    @property
    def has_ready(self) -> bool:
        """Whether something is to be sent."""
        return bool(self._to_send)

    def again(self, request_id: str) -> None:
        """Send a request once more: it was refused for the moment."""
        if request_id in self._open:
            self._to_send.append(request_id)

    def received(self, request_id: str, frame: Frame) -> bool:
        """Take an answer. Returns whether somebody had asked."""
        question = self._open.get(request_id)
        if question is None:
            return False
        if isinstance(frame, ExportChunk):
            if question.parts is not None:
                question.parts.put_nowait(frame)
            return True
        del self._open[request_id]
        if question.answer.done():
            return True
        if isinstance(frame, ErrorFrame):
            question.answer.set_exception(refusal(frame.code, frame.message))
        else:
            question.answer.set_result(frame)
        return True

    def lost(self) -> None:
        """The connection is gone: ask everything again that can be."""
        for question in list(self._open.values()):
            if question.parts is not None:
                self.withdraw(
                    question.id, NoAnswer("the connection broke; ask again from the start")
                )
        self._to_send = deque(self._open)

    def withdraw(self, request_id: str, error: BaseException | None = None) -> None:
        """Nobody waits any more; or fail whoever does."""
        question = self._open.pop(request_id, None)
        if question is not None and not question.answer.done():
            if error is None:
                question.answer.cancel()
            else:
                question.answer.set_exception(error)

    def end(self, error: BaseException) -> None:
        """There will be no answers any more."""
        for request_id in list(self._open):
            self.withdraw(request_id, error)


def _retrieve(answer: asyncio.Future[Frame]) -> None:
    """Nobody may be waiting; then the loop should not complain of an error nobody saw."""
    if not answer.cancelled():
        answer.exception()
