"""Whatever waits goes in one commit; each item gets exactly one outcome."""

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator, Sequence

import pytest

from tests.support.waiting import Gate, until
from ws_gateway.group_commit import Batch, GroupCommit, QueueFull
from ws_gateway.ports import StoreUnavailable


class Store:
    """Commits numbers; says how often and with what."""

    def __init__(self) -> None:
        self.commits: list[list[int]] = []
        self.gate = Gate()
        self.unavailable = False
        self.commits_before_it_goes_away = 1000

    async def commit(self, items: Sequence[int]) -> Sequence[str]:
        self.commits.append(list(items))
        await self.gate.passed()
        if self.unavailable or len(self.commits) > self.commits_before_it_goes_away:
            raise StoreUnavailable("full")
        if any(item < 0 for item in items):
            raise ValueError("poisoned")
        return [f"stored {item}" for item in items]


class Fixture:
    """A committer at work, and its reports."""

    def __init__(
        self, max_batch: int = 512, max_waiting: int = 1000, pace_s: float = 0.001
    ) -> None:
        self.store = Store()
        self.reports: list[Batch[int, str]] = []
        self.report_fails = False
        self.could_not_tell: list[str] = []
        self.group: GroupCommit[int, str] = GroupCommit(
            self.store.commit,
            self._report,
            could_not_tell=lambda: self.could_not_tell.append(repr(sys.exception())),
            source=lambda item: item % 10,
            max_batch=max_batch,
            max_waiting=max_waiting,
            pace_s=pace_s,
        )

    def _report(self, batch: Batch[int, str]) -> None:
        self.reports.append(batch)
        if self.report_fails:
            raise RuntimeError("reporting failed")

    @property
    def outcomes(self) -> dict[int, str]:
        return {
            item: outcome if isinstance(outcome, str) else type(outcome).__name__
            for batch in self.reports
            for item, outcome in zip(batch.items, batch.outcomes, strict=True)
        }

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["Fixture"]:
        run = asyncio.create_task(self.group.run())
        yield self
        self.store.gate.open()
        self.group.drain()
        async with asyncio.timeout(5):
            await run


async def test_lone_item_is_committed_at_once() -> None:
    async with Fixture().running() as fixture:
        fixture.group.submit(1)
        await until(lambda: bool(fixture.reports))
        assert fixture.outcomes == {1: "stored 1"}
        assert fixture.reports[0].longest_wait_s >= fixture.reports[0].commit_s >= 0


async def test_what_arrives_during_a_commit_forms_the_next_batch() -> None:
    async with Fixture().running() as fixture:
        fixture.store.gate.close()
        fixture.group.submit(0)
        await fixture.store.gate.arrivals(1)
        for item in range(1, 6):
            fixture.group.submit(item)
        assert fixture.group.waiting == 5
    assert fixture.store.commits == [[0], [1, 2, 3, 4, 5]]
    assert fixture.group.waiting == 0


async def test_after_several_sources_the_next_batch_gathers_for_a_moment() -> None:
    async with Fixture(pace_s=0.05).running() as fixture:
        for item in range(4):
            fixture.group.submit(item)
        began_at = time.perf_counter()
        await until(lambda: len(fixture.reports) == 1)
        fixture.group.submit(4)
        await until(lambda: len(fixture.reports) == 2)
        assert time.perf_counter() - began_at >= 0.05
        assert fixture.reports[1].longest_wait_s > fixture.reports[1].commit_s


async def test_few_sources_wait_for_no_pace() -> None:
    async with Fixture(pace_s=3600).running() as fixture:
        for round_ in range(3):
            for item in range(3):
                fixture.group.submit(10 * round_ + item)
            await until(lambda done=round_ + 1: len(fixture.reports) == done)  # type: ignore[misc]


async def test_one_source_waits_for_no_pace_however_much_it_sends() -> None:
    async with Fixture(pace_s=3600).running() as fixture:
        for round_ in range(3):
            for item in range(20):
                fixture.group.submit(10 * item)
            await until(lambda done=round_ + 1: len(fixture.reports) == done)  # type: ignore[misc]
    assert [len(commit) for commit in fixture.store.commits] == [20, 20, 20]


async def test_batch_has_a_limit_and_keeps_the_order() -> None:
    fixture = Fixture(max_batch=2)
    for item in range(5):
        fixture.group.submit(item)
    async with fixture.running():
        pass
    assert fixture.store.commits == [[0, 1], [2, 3], [4]]


async def test_one_poisoned_item_fails_alone() -> None:
    fixture = Fixture()
    for item in (1, -2, 3):
        fixture.group.submit(item)
    async with fixture.running():
        pass
    assert fixture.outcomes == {1: "stored 1", -2: "ValueError", 3: "stored 3"}
    assert fixture.store.commits == [[1, -2, 3], [1], [-2], [3]]
    assert len(fixture.reports) == 1


async def test_lone_poisoned_item_is_tried_once() -> None:
    fixture = Fixture()
    fixture.group.submit(-1)
    async with fixture.running():
        pass
    assert fixture.store.commits == [[-1]]


async def test_unavailable_store_fails_all_without_trying_each() -> None:
    fixture = Fixture()
    fixture.store.unavailable = True
    for item in (1, 2):
        fixture.group.submit(item)
    async with fixture.running():
        await until(lambda: bool(fixture.reports))
        fixture.store.unavailable = False
        fixture.group.submit(3)
    assert fixture.outcomes == {1: "StoreUnavailable", 2: "StoreUnavailable", 3: "stored 3"}
    assert fixture.store.commits == [[1, 2], [3]]


async def test_full_queue_refuses_and_recovers() -> None:
    fixture = Fixture(max_waiting=2)
    fixture.group.submit(1)
    fixture.group.submit(2)
    with pytest.raises(QueueFull):
        fixture.group.submit(3)
    async with fixture.running():
        await until(lambda: len(fixture.outcomes) == 2)
        fixture.group.submit(4)
    assert fixture.outcomes == {1: "stored 1", 2: "stored 2", 4: "stored 4"}


async def test_sources_are_told_to_wait_while_half_of_what_may_wait_does() -> None:
    fixture = Fixture(max_waiting=4)
    assert [fixture.group.submit(item) for item in range(4)] == [True, False, False, False]
    assert not fixture.group.has_room
    async with fixture.running():
        await until(lambda: len(fixture.outcomes) == 4)
        assert fixture.group.has_room


async def test_report_that_raises_is_told_of_and_does_not_stop_the_committer() -> None:
    async with Fixture().running() as fixture:
        fixture.report_fails = True
        fixture.group.submit(1)
        await until(lambda: len(fixture.reports) == 1)
        fixture.group.submit(2)
    assert len(fixture.reports) == 2
    assert fixture.could_not_tell == ["RuntimeError('reporting failed')"] * 2


async def test_drain_commits_what_waits_then_ends() -> None:
    fixture = Fixture(max_batch=1)
    async with fixture.running():
        fixture.store.gate.close()
        for item in range(3):
            fixture.group.submit(item)
        await fixture.store.gate.arrivals(1)
        fixture.group.drain()
    assert sorted(fixture.outcomes) == [0, 1, 2]


async def test_drain_of_an_idle_committer_ends_it() -> None:
    async with Fixture().running() as fixture:
        await asyncio.sleep(0)
    assert fixture.store.commits == []


async def test_item_after_the_end_is_refused_rather_than_forgotten() -> None:
    async with Fixture().running() as fixture:
        fixture.group.submit(1)
    with pytest.raises(QueueFull):
        fixture.group.submit(2)
    assert fixture.outcomes == {1: "stored 1"}


async def test_abandoned_items_get_no_outcome_and_the_commit_under_way_does() -> None:
    fixture = Fixture(max_batch=1)
    async with fixture.running():
        fixture.store.gate.close()
        for item in range(3):
            fixture.group.submit(item)
        await fixture.store.gate.arrivals(1)
        fixture.group.abandon()
    assert fixture.outcomes == {0: "stored 0"}


async def test_store_that_goes_away_while_items_are_tried_alone_is_not_asked_for_each() -> None:
    fixture = Fixture()
    fixture.store.commits_before_it_goes_away = 2
    for item in (1, -2, 3, 4):
        fixture.group.submit(item)
    async with fixture.running():
        pass
    assert fixture.store.commits == [[1, -2, 3, 4], [1], [-2]]
    assert fixture.outcomes == {
        1: "stored 1",
        -2: "StoreUnavailable",
        3: "StoreUnavailable",
        4: "StoreUnavailable",
    }


async def test_settled_waits_for_the_batch_under_way_and_no_longer() -> None:
    async with Fixture().running() as fixture:
        await fixture.group.settled()
        fixture.store.gate.close()
        fixture.group.submit(1)
        await fixture.store.gate.arrivals(1)
        settled = asyncio.create_task(fixture.group.settled())
        given_up = asyncio.create_task(fixture.group.settled())
        fixture.group.submit(2)
        await asyncio.sleep(0)
        given_up.cancel()
        assert not settled.done()
        fixture.store.gate.open()
        await settled
        assert 1 in fixture.outcomes
