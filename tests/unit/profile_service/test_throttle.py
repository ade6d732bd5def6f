"""How often something may be tried."""

import pytest

from profile_service.throttle import MAX_KEYS, Throttle, address_key
from tests.support.profile_service import ManualClock


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def test_attempts_beyond_the_allowance_are_told_when_to_come_back(clock: ManualClock) -> None:
    throttle = Throttle(3, 30, now=clock)
    assert [throttle.charge("bob") for _ in range(3)] == [None, None, None]
    refusal = throttle.charge("bob")
    assert refusal is not None
    assert refusal.retry_after_s == pytest.approx(10)
    clock.advance(refusal.retry_after_s)
    assert throttle.charge("bob") is None


def test_hammering_does_not_push_the_way_back_further_off(clock: ManualClock) -> None:
    throttle = Throttle(1, 10, now=clock)
    throttle.charge("bob")
    for _ in range(1000):
        throttle.charge("bob")
    clock.advance(10)
    assert throttle.charge("bob") is None


def test_only_the_first_refusal_of_a_streak_is_marked(clock: ManualClock) -> None:
    throttle = Throttle(1, 10, now=clock)
    throttle.charge("bob")
    marks = [refusal.first for _ in range(3) if (refusal := throttle.charge("bob"))]
    assert marks == [True, False, False]
    clock.advance(10)
    throttle.charge("bob")
    again = throttle.charge("bob")
    assert again is not None
    assert again.first


def test_keys_do_not_share_an_allowance(clock: ManualClock) -> None:
    throttle = Throttle(1, 10, now=clock)
    assert throttle.charge("bob") is None
    assert throttle.charge("eve") is None


def test_a_refund_gives_the_attempt_back(clock: ManualClock) -> None:
    throttle = Throttle(1, 10, now=clock)
    throttle.charge("bob")
    throttle.refund("bob")
    throttle.refund("nobody")
    assert throttle.charge("bob") is None


def test_memory_is_bounded_under_a_flood_of_keys(clock: ManualClock) -> None:
    throttle = Throttle(1, 1e9, now=clock)
    for number in range(MAX_KEYS + 100):
        throttle.charge(str(number))
    assert len(throttle._full_at) == MAX_KEYS
    assert throttle.charge(str(MAX_KEYS + 99)) is not None


def test_keys_that_are_full_again_are_forgotten(clock: ManualClock) -> None:
    throttle = Throttle(1, 10, now=clock)
    for number in range(10):
        throttle.charge(str(number))
    clock.advance(11)
    for _ in range(6):
        throttle.charge("last")
        clock.advance(11)
    assert len(throttle._full_at) == 1


@pytest.mark.parametrize(
    ("address", "key"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8::1", "2001:db8::/64"),
        ("2001:db8::ffff:1", "2001:db8::/64"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("unknown", "unknown"),
    ],
)
def test_an_ipv6_customer_is_one_key(address: str, key: str) -> None:
    assert address_key(address) == key
