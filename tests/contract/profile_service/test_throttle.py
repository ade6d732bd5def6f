"""What every `Throttle` does: the one in memory, and PostgreSQL's."""

from collections.abc import AsyncIterator

import pytest

from profile_service.adapters.local_throttle import LocalThrottle
from profile_service.adapters.postgres_throttle import PostgresThrottle
from profile_service.allowances import Charge, Limit
from profile_service.ports import Throttle
from tests.support.profile_postgres import migrated_postgres
from tests.support.profile_service import ManualClock

ONE = Limit("one", 1, 10)
THREE = Limit("three", 3, 30)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(params=["memory", "postgresql"])
async def throttle(request: pytest.FixtureRequest, clock: ManualClock) -> AsyncIterator[Throttle]:
    if request.param == "memory":
        yield LocalThrottle(now=clock)
        return
    async with migrated_postgres(request.getfixturevalue("postgres_databases")) as database:
        yield PostgresThrottle(database, now=clock)


async def test_attempts_beyond_the_allowance_are_told_when_to_come_back(
    throttle: Throttle, clock: ManualClock
) -> None:
    bob = [Charge(THREE, "bob")]
    assert [await throttle.charge(bob) for _ in range(3)] == [None, None, None]
    refusal = await throttle.charge(bob)
    assert refusal is not None
    assert (refusal.limit, refusal.first) == (THREE, True)
    assert refusal.retry_after_s == pytest.approx(10)
    clock.advance(refusal.retry_after_s)
    assert await throttle.charge(bob) is None


async def test_hammering_does_not_push_the_way_back_further_off(
    throttle: Throttle, clock: ManualClock
) -> None:
    bob = [Charge(ONE, "bob")]
    for _ in range(50):
        await throttle.charge(bob)
    clock.advance(10)
    assert await throttle.charge(bob) is None


async def test_only_the_first_refusal_of_a_streak_is_marked(
    throttle: Throttle, clock: ManualClock
) -> None:
    bob = [Charge(ONE, "bob")]
    await throttle.charge(bob)
    marks = [refusal.first for _ in range(3) if (refusal := await throttle.charge(bob))]
    assert marks == [True, False, False]
    clock.advance(10)
    await throttle.charge(bob)
    again = await throttle.charge(bob)
    assert again is not None
    assert again.first


async def test_neither_keys_nor_limits_share_an_allowance(throttle: Throttle) -> None:
    assert await throttle.charge([Charge(ONE, "bob")]) is None
    assert await throttle.charge([Charge(ONE, "eve")]) is None
    assert await throttle.charge([Charge(THREE, "bob")]) is None
    assert await throttle.charge([Charge(ONE, "bob")]) is not None


async def test_several_are_charged_together_or_not_at_all(throttle: Throttle) -> None:
    assert await throttle.charge([Charge(ONE, "bob")]) is None
    both = [Charge(THREE, "net"), Charge(ONE, "bob")]
    for _ in range(5):
        refusal = await throttle.charge(both)
        assert refusal is not None
        assert refusal.limit == ONE
    left = [await throttle.charge([Charge(THREE, "net")]) for _ in range(3)]
    assert left == [None, None, None]


async def test_a_refund_gives_the_attempts_back(throttle: Throttle) -> None:
    both = [Charge(ONE, "bob"), Charge(ONE, "net")]
    for _ in range(3):
        assert await throttle.charge(both) is None
        await throttle.refund(both)
    await throttle.refund([Charge(ONE, "nobody")])


async def test_any_text_is_a_key(throttle: Throttle) -> None:
    for key in ("\0", "é\ud800", "x" * 10_000, ""):
        assert await throttle.charge([Charge(ONE, key)]) is None
        assert await throttle.charge([Charge(ONE, key)]) is not None
