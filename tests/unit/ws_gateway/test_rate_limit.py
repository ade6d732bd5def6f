"""Token buckets and strikes: what is let through, and whether the told wait is true."""

import itertools
import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from shared.ids import SessionId, UserId
from ws_gateway.identity import Identity
from ws_gateway.protocol import frames
from ws_gateway.protocol.actions import Action, Close, Reply, Rest, Submit
from ws_gateway.protocol.errors import CloseCode
from ws_gateway.protocol.rate_limit import BucketsByUser, RateLimit, Strikes, TokenBucket
from ws_gateway.protocol.session import Session, SessionLimits

NOW = 1_800_000_000.0


def test_rested_bucket_lets_a_burst_through_and_not_one_more() -> None:
    bucket = TokenBucket(RateLimit(10, 50), NOW)
    assert [bucket.take(NOW) for _ in range(50)] == [0.0] * 50
    assert bucket.take(NOW) == pytest.approx(0.1)


def test_bucket_fills_with_time_up_to_its_burst() -> None:
    bucket = TokenBucket(RateLimit(10, 50), NOW)
    for _ in range(50):
        bucket.take(NOW)
    assert [bool(bucket.take(NOW + 1)) for _ in range(11)] == [False] * 10 + [True]
    assert [bool(bucket.take(NOW + 1000)) for _ in range(51)] == [False] * 50 + [True]


def test_long_run_is_as_fast_as_the_rate() -> None:
    bucket = TokenBucket(RateLimit(10, 5), NOW)
    taken = sum(not bucket.take(NOW + n / 1000) for n in range(10_000))
    assert 100 <= taken <= 106


@example(per_s=0.01, burst=1, gaps=[1e-11])
@given(
    per_s=st.floats(0.01, 1000),
    burst=st.integers(1, 50),
    gaps=st.lists(st.floats(0, 2), max_size=30),
)
def test_whoever_waits_as_told_is_let_through(per_s: float, burst: int, gaps: list[float]) -> None:
    bucket, now = TokenBucket(RateLimit(per_s, burst), NOW), NOW
    for gap in [*gaps, *[0.0] * (burst + 1)]:
        now += gap
        wait_s = bucket.take(now)
        if wait_s:
            assert wait_s <= 1 / per_s * (1 + 1e-9)
            now += (int(wait_s * 1000) + 2) / 1000
            assert bucket.take(now) == 0.0


def test_refusal_takes_nothing_and_a_returned_token_is_there_again() -> None:
    bucket = TokenBucket(RateLimit(1, 1), NOW)
    assert bucket.wait_s(NOW) == 0.0
    assert bucket.take(NOW) == 0.0
    assert [bucket.take(NOW) for _ in range(3)] == [1.0] * 3
    assert bucket.wait_s(NOW) == 1.0
    bucket.put_back()
    bucket.put_back()
    assert [bucket.take(NOW) for _ in range(2)] == [0.0, 1.0]


def test_clock_that_is_set_back_gives_nothing_and_takes_nothing() -> None:
    bucket = TokenBucket(RateLimit(10, 2), NOW)
    assert bucket.take(NOW) == 0.0
    assert bucket.take(NOW - 3600) == 0.0
    assert bucket.take(NOW - 3600) > 0
    assert bucket.take(NOW - 3600 + 0.101) == 0.0


def test_third_strike_in_a_minute_is_one_too_many() -> None:
    strikes = Strikes()
    assert [strikes.add(NOW + s) for s in (0, 0.5, 0.9, 20, 20.5, 59)] == [False] * 5 + [True]


def test_strikes_are_forgotten_after_a_minute() -> None:
    strikes = Strikes()
    assert [strikes.add(NOW + s) for s in (0, 30, 60, 90, 120, 150)] == [False] * 6


def test_bucket_of_a_user_is_the_same_until_it_is_full_again() -> None:
    buckets = BucketsByUser(RateLimit(1, 1))
    assert buckets.of("ann", NOW) is buckets.of("ann", NOW + 1)
    assert buckets.of("ann", NOW) is not buckets.of("bob", NOW)


def test_only_full_buckets_that_nobody_uses_are_forgotten_when_there_are_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(BucketsByUser, "_PRUNE_AT", 3)
    buckets = BucketsByUser(RateLimit(1, 1))
    busy = buckets.of("busy", NOW)
    busy.take(NOW)
    buckets.of("rested", NOW)
    connected = buckets.of("connected", NOW)
    buckets.of("newcomer", NOW + 0.5)
    assert list(buckets._buckets) == ["busy", "newcomer"]
    assert buckets.of("busy", NOW + 0.5) is busy
    assert buckets.of("connected", NOW + 0.5) is connected


class Talk:
    """A verified session, whose time a test moves."""

    def __init__(self, limits: SessionLimits, messages: TokenBucket | None = None) -> None:
        self.now = NOW
        self.session = Session(limits, NOW)
        self.session.verified(
            Identity(UserId("u_ann"), "ann", SessionId("s_ann"), 1, NOW + 600),
            messages or TokenBucket(limits.messages, NOW),
            NOW,
        )
        self._ids = itertools.count()

    def ask(self, **frame: Any) -> Action | None:
        """Have a request decided on."""
        return self.session.receive(json.dumps({"id": f"{next(self._ids)}", **frame}), self.now)

    def send(self) -> Action | None:
        """Have a `send` decided on."""
        return self.ask(type="send", to="u_bob", text="hi")


def refusal(action: Action | None) -> frames.Error:
    assert isinstance(action, Rest)
    assert isinstance(action.frame, frames.Error)
    assert action.frame.code == "rate_limited"
    assert action.frame.retryable
    return action.frame


def test_refused_message_says_when_and_that_is_true() -> None:
    talk = Talk(SessionLimits(messages=RateLimit(10, 5)))
    assert all(isinstance(talk.send(), Submit) for _ in range(5))
    error = refusal(talk.send())
    assert error.id == "5"
    assert error.retry_after_ms is not None
    talk.now += error.retry_after_ms / 1000
    assert isinstance(talk.send(), Submit)


@pytest.mark.parametrize("requests_per_s", [10, 11, 50])
@pytest.mark.parametrize("request_burst", [5, 6, 10])
def test_told_wait_is_true_when_both_limits_are_reached(
    requests_per_s: float, request_burst: int
) -> None:
    limits = SessionLimits(
        requests=RateLimit(requests_per_s, request_burst), messages=RateLimit(10, 5)
    )
    for first in range(request_burst):
        talk = Talk(limits)
        for _ in range(first):
            talk.ask(type="blocks")
        while isinstance(decision := talk.send(), Submit):
            pass
        error = refusal(decision)
        assert error.retry_after_ms is not None
        talk.now += error.retry_after_ms / 1000
        assert isinstance(talk.send(), Submit)


def test_reading_is_not_writing() -> None:
    talk = Talk(SessionLimits(messages=RateLimit(1, 1)))
    conversation = {"conversation": "c", "seq": 1}
    for frame in (
        {"type": "history", "with": "u_bob"},
        {"type": "conversations"},
        {"type": "search", "query": "x"},
        {"type": "received", **conversation},
        {"type": "read", **conversation},
        {"type": "trace", **conversation},
        {"type": "typing", "to": "u_bob", "active": True},
        {"type": "blocks"},
        {"type": "export"},
    ):
        assert not isinstance(talk.ask(**frame), Rest | Close), frame
    assert isinstance(talk.send(), Submit)
    for frame in (
        {"type": "send", "to": "u_bob", "text": "x"},
        {"type": "edit", "text": "x", **conversation},
        {"type": "delete", **conversation},
    ):
        refusal(talk.ask(**frame))


def test_everything_counts_as_a_request_even_what_cannot_be_understood() -> None:
    talk = Talk(SessionLimits(requests=RateLimit(1, 2)))
    assert isinstance(talk.ask(type="nonsense"), Reply)
    assert isinstance(talk.ask(type="blocks", id=7), Reply)
    refusal(talk.ask(type="blocks"))


def test_connections_of_one_user_share_what_they_may_write() -> None:
    limits = SessionLimits(messages=RateLimit(1, 2))
    shared = TokenBucket(limits.messages, NOW)
    phone, desk = Talk(limits, shared), Talk(limits, shared)
    assert isinstance(phone.send(), Submit)
    assert isinstance(desk.send(), Submit)
    refusal(phone.send())
    refusal(desk.send())


def test_third_offence_closes_the_connection() -> None:
    talk = Talk(SessionLimits(messages=RateLimit(0.1, 1)))
    assert isinstance(talk.send(), Submit)
    decisions: list[Action | None] = []
    for _ in range(3):
        decisions += [talk.send(), talk.send()]
        talk.now += 1
    assert [type(d) for d in decisions] == [Rest] * 4 + [Close, type(None)]
    closed = decisions[4]
    assert isinstance(closed, Close)
    assert closed.code == CloseCode.POLICY_VIOLATION
    assert closed.frame is not None
    assert (closed.frame.code, closed.frame.retryable) == ("flood", True)


def test_pings_cost_requests_and_a_flood_of_them_closes_without_a_word_for_each() -> None:
    talk = Talk(SessionLimits(requests=RateLimit(1, 10)))
    assert [talk.session.receive_ping(talk.now) for _ in range(20)] == [None] * 10 + [Rest()] * 10
    talk.now += 1
    assert [talk.session.receive_ping(talk.now) for _ in range(3)] == [None, Rest(), Rest()]
    talk.now += 1
    assert talk.session.receive_ping(talk.now) is None
    closed = talk.session.receive_ping(talk.now)
    assert isinstance(closed, Close)
    assert closed.frame is not None
    assert (closed.code, closed.frame.code) == (CloseCode.POLICY_VIOLATION, "flood")
    assert talk.session.receive_ping(talk.now) is None
