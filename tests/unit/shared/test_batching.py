"""One call for everybody who waits."""

import asyncio
from collections.abc import Sequence

import pytest

from shared.batching import Batcher
from tests.support.waiting import Gate


class Oracle:
    """Answers with ten times the question, and notes what was asked together."""

    def __init__(self) -> None:
        self.calls: list[list[int]] = []
        self.gate = Gate()
        self.fails = False

    async def ask(self, questions: Sequence[int]) -> Sequence[int]:
        self.calls.append(list(questions))
        await self.gate.passed()
        if self.fails:
            raise RuntimeError("no answer")
        return [question * 10 for question in questions]


@pytest.fixture
def oracle() -> Oracle:
    return Oracle()


@pytest.fixture
def batcher(oracle: Oracle) -> Batcher[int, int]:
    return Batcher(oracle.ask, max_batch=3, max_calls=1)


async def test_lone_question_goes_out_at_once(oracle: Oracle, batcher: Batcher[int, int]) -> None:
    assert await batcher.submit(1) == 10
    assert oracle.calls == [[1]]


async def test_questions_that_wait_share_calls_up_to_the_limit(
    oracle: Oracle, batcher: Batcher[int, int]
) -> None:
    oracle.gate.close()
    first = asyncio.create_task(batcher.submit(0))
    await oracle.gate.arrivals(1)
    others = [asyncio.create_task(batcher.submit(number)) for number in range(1, 6)]
    await asyncio.sleep(0)
    oracle.gate.open()
    assert await asyncio.gather(first, *others) == [0, 10, 20, 30, 40, 50]
    assert oracle.calls == [[0], [1, 2, 3], [4, 5]]


async def test_after_a_shared_call_the_next_waits_for_more_to_share_it(oracle: Oracle) -> None:
    pause = Gate()
    pause.close()
    batcher = Batcher(oracle.ask, max_batch=3, pause=pause.passed)
    assert await batcher.submit(0) == 0  # a lone one's call has no pause after it
    await asyncio.gather(*map(batcher.submit, (1, 2)))
    await pause.arrivals(1)
    early = asyncio.create_task(batcher.submit(3))
    await asyncio.sleep(0)
    late = asyncio.create_task(batcher.submit(4))
    await asyncio.sleep(0)
    pause.open()
    assert (await early, await late) == (30, 40)
    assert oracle.calls == [[0], [1, 2], [3, 4]]


async def test_calls_run_side_by_side_up_to_the_limit(oracle: Oracle) -> None:
    batcher = Batcher(oracle.ask, max_batch=1, max_calls=2)
    oracle.gate.close()
    asked = [asyncio.create_task(batcher.submit(number)) for number in range(4)]
    await oracle.gate.arrivals(2)
    assert len(oracle.calls) == 2
    oracle.gate.open()
    assert await asyncio.gather(*asked) == [0, 10, 20, 30]


async def test_failure_reaches_everybody_of_the_call_and_nobody_else(
    oracle: Oracle, batcher: Batcher[int, int]
) -> None:
    oracle.fails = True
    failed = await asyncio.gather(
        *(batcher.submit(number) for number in range(3)), return_exceptions=True
    )
    assert all(isinstance(error, RuntimeError) for error in failed)
    oracle.fails = False
    assert await batcher.submit(1) == 10


@pytest.mark.parametrize("fails", [False, True])
async def test_cancelled_caller_leaves_the_others_their_answers(
    oracle: Oracle, batcher: Batcher[int, int], fails: bool
) -> None:
    oracle.gate.close()
    oracle.fails = fails
    gone, stays = (asyncio.create_task(batcher.submit(number)) for number in (1, 2))
    await oracle.gate.arrivals(1)
    gone.cancel()
    oracle.gate.open()
    (answer,) = await asyncio.gather(stays, return_exceptions=True)
    assert isinstance(answer, RuntimeError) if fails else answer == 20
    assert gone.cancelled() or gone.done()


async def test_wrong_number_of_answers_fails_the_call() -> None:
    async def ask(questions: Sequence[int]) -> Sequence[int]:
        return [1] * (len(questions) + 1)

    batcher = Batcher(ask, max_batch=3)
    with pytest.raises(ValueError, match="zip"):
        async with asyncio.timeout(5):
            await batcher.submit(1)


@pytest.mark.parametrize("max_calls", [1, 2])
async def test_question_asked_the_moment_that_the_calls_end_is_not_forgotten(
    oracle: Oracle, max_calls: int
) -> None:
    batcher = Batcher(oracle.ask, max_batch=1, max_calls=max_calls)

    async def ask_twice(question: int) -> tuple[int, int]:
        return await batcher.submit(question), await batcher.submit(question + 1)

    async with asyncio.timeout(5):
        answers = await asyncio.gather(*(ask_twice(10 * n) for n in range(max_calls)))
    assert answers == [(100 * n, 100 * n + 10) for n in range(max_calls)]
