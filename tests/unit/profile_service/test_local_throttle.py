"""The throttle in memory does not grow without bound."""

import pytest

from profile_service.adapters.local_throttle import MAX_KEYS, LocalThrottle
from profile_service.allowances import Charge, Limit
from tests.support.profile_service import ManualClock


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


async def test_memory_is_bounded_under_a_flood_of_keys(clock: ManualClock) -> None:
    throttle = LocalThrottle(now=clock)
    limit = Limit("one", 1, 1e9)
    for number in range(MAX_KEYS + 100):
        await throttle.charge([Charge(limit, str(number))])
    assert len(throttle._allowances["one"]._full_at) == MAX_KEYS
    assert await throttle.charge([Charge(limit, str(MAX_KEYS + 99))]) is not None


async def test_keys_that_are_full_again_are_forgotten(clock: ManualClock) -> None:
    throttle = LocalThrottle(now=clock)
    limit = Limit("one", 1, 10)
    for number in range(10):
        await throttle.charge([Charge(limit, str(number))])
    clock.advance(11)
    for _ in range(6):
        await throttle.charge([Charge(limit, "last")])
        clock.advance(11)
    assert len(throttle._allowances["one"]._full_at) == 1
