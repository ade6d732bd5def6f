"""One person's log is delivered in order, each event once, in whatever order it arrives."""

import random

from hypothesis import given
from hypothesis import strategies as st

from tests.support.fake_logs import FakeLogs
from tests.support.talk import ANN, BOB
from ws_gateway.conversations import Published
from ws_gateway.delivery.person_log import PersonLog


def published(count: int) -> list[Published]:
    """The first events of a log; the one at position 1 first."""
    logs = FakeLogs()
    return [Published(logs.commit(ANN, BOB), None) for _ in range(count)]


def test_nothing_is_delivered_before_it_is_known_where_to_begin() -> None:
    log, events = PersonLog(), published(4)
    assert log.take(3, events[2]) == []
    assert log.take(2, events[1]) == []
    assert not log.is_known
    assert not log.is_behind
    assert log.begin(1) == [events[1], events[2]]
    assert log.delivered == 3
    assert log.is_next(4)


def test_double_is_dropped_and_early_waits_for_what_lies_between() -> None:
    log, events = PersonLog(), published(4)
    assert log.begin(0) == []
    assert log.take(1, events[0]) == [events[0]]
    assert log.take(1, events[0]) == []
    assert log.take(3, events[2]) == []
    assert log.is_behind
    assert not log.is_next(2)
    assert log.take(4, events[3]) == []
    assert log.take(2, events[1]) == events[1:]
    assert not log.is_behind


def test_page_fills_a_gap_and_leaves_what_arrived_as_it_arrived() -> None:
    log, events = PersonLog(), published(5)
    log.begin(0)
    own = Published(events[2].event, origin=None)
    log.take(3, own)
    log.take(5, events[4])
    ready = log.fill([(1, events[0]), (2, events[1]), (3, events[2])], 3)
    assert ready == [events[0], events[1], own]
    assert ready[2] is own
    assert log.is_behind
    assert log.fill([(3, events[2]), (4, events[3])], 4) == [events[3], events[4]]


def test_page_without_events_moves_on_to_where_it_ends() -> None:
    log, events = PersonLog(), published(3)
    log.begin(0)
    assert log.fill([], 2) == []
    assert log.take(3, events[2]) == [events[2]]


def test_what_is_not_in_the_store_is_given_up() -> None:
    log, events = PersonLog(), published(3)
    log.begin(0)
    log.take(3, events[2])
    log.fill([], 1)
    log.give_up(3)
    assert not log.is_behind
    assert log.take(2, events[1]) == [events[1]]


def test_memory_is_bounded_and_a_page_brings_what_was_let_go() -> None:
    log, events = PersonLog(), published(6000)
    log.begin(0)
    for position, each in reversed(list(enumerate(events[1:], 2))):
        assert log.take(position, each) == []
    assert len(log._early) < 5000
    assert log.fill(list(enumerate(events, 1)), 6000) == events
    assert not log._early
    assert not log.is_behind


@given(st.randoms(use_true_random=False), st.integers(0, 30), st.integers(0, 30))
def test_any_order_and_any_doubles_give_the_log_once(
    order: random.Random, start: int, count: int
) -> None:
    events = published(start + count)
    arrivals = list(enumerate(events, 1)) * 2
    order.shuffle(arrivals)
    log = PersonLog()
    begin_at = order.randint(0, len(arrivals))
    delivered: list[Published] = []
    for index, (position, each) in enumerate(arrivals):
        if index == begin_at:
            delivered += log.begin(start)
        delivered += log.take(position, each)
    if not log.is_known:
        delivered += log.begin(start)
    assert delivered == events[start:]
