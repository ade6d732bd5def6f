"""Asks once for many: callers that wait at the same time share one call, or one query."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

__all__ = ["Batcher"]

Question = TypeVar("Question")
Answer = TypeVar("Answer")


class Batcher(Generic[Question, Answer]):
    """Collects questions while calls are under way and asks them together in the next one.

    `ask` returns an answer for each question, in order; when it raises, every caller that shared
    the call gets the error. A lone question goes out at once; after a call that was shared, the
    next begins after `pause`, so that more share it. For one event loop; cancelling a caller
    leaves the others' answers alone.
    """

    def __init__(
        self,
        ask: Callable[[Sequence[Question]], Awaitable[Sequence[Answer]]],
        *,
        max_batch: int,
        max_calls: int = 1,
        pause: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._ask = ask
        self._max_batch = max_batch
        self._max_calls = max_calls
        self._pause = pause
        self._waiting: list[tuple[Question, asyncio.Future[Answer]]] = []
        self._calls: set[asyncio.Task[None]] = set()
        self._asking = 0
        """Calls that will look at what waits once more. Not the tasks: one that has just looked for
        the last time is a task for a moment longer, and a question would wait for it for ever."""

    async def submit(self, question: Question) -> Answer:
        """Return the answer to this question, whoever else's goes along.

        Raises:
            Whatever `ask` raised for the call this question was part of.
        """
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((question, answer))
        if self._asking < self._max_calls:
            self._asking += 1
            call = asyncio.create_task(self._call())
            self._calls.add(call)
            call.add_done_callback(self._calls.discard)
        return await answer

    async def _call(self) -> None:
        try:
            await self._ask_what_waits()
        finally:
            self._asking -= 1

    async def _ask_what_waits(self) -> None:
        while self._waiting:
            batch = self._waiting[: self._max_batch]
            del self._waiting[: self._max_batch]
            try:
                answers = await self._ask([question for question, _ in batch])
                answered = list(zip(batch, answers, strict=True))
            except Exception as error:
                for _, future in batch:
                    if not future.done():
                        future.set_exception(error)
            else:
                for (_, future), answer in answered:
                    if not future.done():
                        future.set_result(answer)
            if self._pause is not None and len(batch) > 1:
                await self._pause()
