"""The state machine of a connection: every state, every kind of frame, every deadline."""

import json
from typing import Any

import pytest

from shared.ids import SessionId, UserId
from ws_gateway.conversations import Draft
from ws_gateway.identity import Identity
from ws_gateway.protocol import frames
from ws_gateway.protocol.actions import Authenticate, Close, Renew, Reply, Rest, Submit
from ws_gateway.protocol.errors import CloseCode, ErrorCode
from ws_gateway.protocol.rate_limit import RateLimit, TokenBucket
from ws_gateway.protocol.session import Session, SessionLimits, State

NOW = 1_800_000_000.0
LIMITS = SessionLimits(connect_timeout_s=5, expiring_lead_s=60, expiry_grace_s=25)
ANN = Identity(
    user_id=UserId("u_ann"),
    username="ann",
    session_id=SessionId("s_ann"),
    token_version=1,
    expires_at=NOW + 600,
)
CONNECT = {"type": "connect", "access_token": "a", "refresh_token": "r"}
SEND = {"type": "send", "id": "1", "to": "u_bob", "text": "hi"}
REFRESH = {"type": "refresh", "id": "9", "access_token": "b"}


def identity(**changes: Any) -> Identity:
    fields: dict[str, Any] = {name: getattr(ANN, name) for name in ANN.__struct_fields__}
    return Identity(**(fields | changes))


def session_in(state: State) -> Session:
    session = Session(LIMITS, NOW)
    if state is not State.CONNECTING:
        session.receive(json.dumps(CONNECT), NOW)
    if state in (State.OPEN, State.CLOSED):
        session.verified(ANN, TokenBucket(LIMITS.messages, NOW), NOW)
    if state is State.CLOSED:
        session.end(CloseCode.GOING_AWAY, None)
    assert session.state is state
    return session


def receive(session: Session, frame: object, now: float = NOW) -> object:
    return session.receive(json.dumps(frame), now)


def error_of(action: object) -> frames.Error:
    frame = action.frame if isinstance(action, Reply | Rest | Close) else None
    assert isinstance(frame, frames.Error)
    return frame


def assert_closes(session: Session, action: object, code: CloseCode, error: str | None) -> None:
    assert isinstance(action, Close)
    assert action.code is code
    if error is None:
        assert action.frame is None
    else:
        assert (error_of(action).code, action.reason) == (error, error)
    assert session.state is State.CLOSED
    assert session.deadline is None


@pytest.mark.parametrize("frame", [CONNECT, SEND, REFRESH, {"type": "nope"}, [], "nonsense"])
def test_closed_session_does_nothing(frame: object) -> None:
    session = session_in(State.CLOSED)
    assert receive(session, frame) is None
    assert session.receive(b"\xff", NOW) is None
    assert session.receive_binary() is None
    assert session.wake(NOW + 10_000) is None
    assert session.end(CloseCode.SERVICE_RESTART, None) is None
    assert session.renewed("9", ANN, NOW) is None
    assert (session.state, session.deadline) == (State.CLOSED, None)


def test_connect_is_to_be_verified_and_stops_the_clock() -> None:
    session = session_in(State.CONNECTING)
    action = receive(session, CONNECT)
    assert isinstance(action, Authenticate)
    assert (action.access_token, action.refresh_token) == ("a", "r")
    assert "a" not in repr(action).removeprefix("Authenticate")
    assert (session.state, session.deadline) == (State.VERIFYING, None)


def test_header_stands_in_for_connect() -> None:
    session = session_in(State.CONNECTING)
    action = session.present("token", None)
    assert (action.access_token, action.refresh_token) == ("token", None)
    assert (session.state, session.deadline) == (State.VERIFYING, None)


@pytest.mark.parametrize("state", [State.CONNECTING, State.VERIFYING])
@pytest.mark.parametrize(("frame", "request_id"), [(SEND, "1"), (REFRESH, "9")])
def test_other_frames_before_the_verdict_close(
    state: State, frame: object, request_id: str
) -> None:
    session = session_in(state)
    action = receive(session, frame)
    assert_closes(session, action, CloseCode.POLICY_VIOLATION, "connect_expected")
    assert error_of(action).id == request_id


def test_second_connect_before_the_verdict_closes() -> None:
    session = session_in(State.VERIFYING)
    assert_closes(
        session, receive(session, CONNECT), CloseCode.POLICY_VIOLATION, "connect_expected"
    )


@pytest.mark.parametrize("state", [State.CONNECTING, State.VERIFYING])
def test_invalid_frame_before_the_verdict_closes(state: State) -> None:
    session = session_in(state)
    action = receive(session, {"type": "connect", "access_token": 5})
    assert_closes(session, action, CloseCode.POLICY_VIOLATION, "invalid_frame")
    assert "access_token" in error_of(action).message


@pytest.mark.parametrize("state", [State.CONNECTING, State.VERIFYING, State.OPEN])
def test_what_cannot_be_read_closes_in_every_state(state: State) -> None:
    session = session_in(state)
    assert_closes(session, session.receive(b"{", NOW), CloseCode.POLICY_VIOLATION, "malformed_json")
    session = session_in(state)
    assert_closes(session, session.receive(b"\xff", NOW), CloseCode.INVALID_DATA, None)
    session = session_in(state)
    assert_closes(session, session.receive_binary(), CloseCode.UNSUPPORTED_DATA, None)


@pytest.mark.parametrize("state", [State.CONNECTING, State.VERIFYING, State.OPEN])
def test_gateway_may_end_it_in_every_state(state: State) -> None:
    session = session_in(state)
    action = session.end(CloseCode.POLICY_VIOLATION, ErrorCode.EVICTED)
    assert_closes(session, action, CloseCode.POLICY_VIOLATION, "evicted")


def test_draft_is_stamped_with_the_verified_sender() -> None:
    action = receive(session_in(State.OPEN), {**SEND, "from": "u_eve", "sender": "u_eve"})
    assert action == Submit(Draft(ANN.user_id, UserId("u_bob"), "1", "hi"))


@pytest.mark.parametrize(
    ("changes", "code", "request_id"),
    [
        ({"to": "u_ann"}, "recipient_is_sender", "1"),
        ({"to": "u_\u00e9"}, "recipient_not_found", "1"),
        ({"to": "a\nb"}, "recipient_not_found", "1"),
        ({"text": "a\x00b"}, "invalid_frame", "1"),
        ({"text": 5}, "invalid_frame", "1"),
        ({"id": "\u00e9"}, "invalid_frame", None),
        ({"id": "a\nb"}, "invalid_frame", None),
        ({"type": "nope"}, "invalid_frame", "1"),
    ],
)
def test_bad_request_is_answered_and_the_session_stays_open(
    changes: dict[str, object], code: str, request_id: str | None
) -> None:
    session = session_in(State.OPEN)
    action = receive(session, {**SEND, **changes})
    assert isinstance(action, Reply)
    error = error_of(action)
    assert (error.code, error.id, error.retryable) == (code, request_id, False)
    assert session.state is State.OPEN


def test_connect_on_an_open_session_is_answered() -> None:
    session = session_in(State.OPEN)
    assert error_of(receive(session, CONNECT)).code == "already_connected"
    assert session.state is State.OPEN


def test_refresh_is_to_be_verified_while_the_session_stays_open() -> None:
    session = session_in(State.OPEN)
    action = receive(session, REFRESH)
    assert isinstance(action, Renew)
    assert (action.request_id, action.access_token) == ("9", "b")
    assert "b'" not in repr(action)
    assert isinstance(receive(session, SEND), Submit)


def test_nothing_said_in_time_closes() -> None:
    session = session_in(State.CONNECTING)
    assert session.deadline == NOW + 5
    assert session.wake(NOW + 4.99) is None
    action = session.wake(NOW + 5)
    assert_closes(session, action, CloseCode.TIMEOUT, "connect_timeout")


def test_verification_has_no_deadline_of_its_own() -> None:
    assert session_in(State.VERIFYING).wake(NOW + 1000) is None


def test_refused_tokens_close() -> None:
    session = session_in(State.VERIFYING)
    assert_closes(session, session.refused(), CloseCode.UNAUTHORIZED, "unauthorized")


def test_unverifiable_tokens_close_with_when_to_retry() -> None:
    session = session_in(State.VERIFYING)
    action = session.not_verifiable(2000)
    assert_closes(session, action, CloseCode.TRY_AGAIN_LATER, "verification_unavailable")
    assert error_of(action).retry_after_ms == 2000
    assert error_of(action).retryable


def test_expiry_is_announced_once_then_closes_after_the_grace() -> None:
    session = session_in(State.OPEN)
    assert session.deadline == NOW + 540
    assert session.wake(NOW + 539) is None
    assert session.wake(NOW + 540) == Reply(frames.Expiring(in_s=60))
    assert session.deadline == NOW + 625
    assert session.wake(NOW + 624) is None
    assert isinstance(receive(session, SEND), Submit)
    assert_closes(session, session.wake(NOW + 625), CloseCode.UNAUTHORIZED, "token_expired")


def test_token_that_lives_shortly_is_announced_in_its_last_third() -> None:
    session = session_in(State.VERIFYING)
    session.verified(identity(expires_at=NOW + 9), TokenBucket(LIMITS.messages, NOW), NOW)
    assert session.wake(NOW) is None
    assert session.wake(NOW + 6) == Reply(frames.Expiring(in_s=3))


def test_late_wake_never_announces_a_negative_time() -> None:
    assert session_in(State.OPEN).wake(NOW + 620) == Reply(frames.Expiring(in_s=0))


def test_renewal_extends_the_session_and_announces_again() -> None:
    session = session_in(State.OPEN)
    session.wake(NOW + 540)
    reply = session.renewed("9", identity(expires_at=NOW + 1200), NOW)
    assert reply == Reply(frames.Refreshed(id="9", expires_at="2027-01-15T08:20:00.000Z"))
    assert session.deadline == NOW + 1140
    assert session.wake(NOW + 1140) == Reply(frames.Expiring(in_s=60))


def test_renewal_with_an_older_token_shortens_nothing() -> None:
    session = session_in(State.OPEN)
    reply = session.renewed("9", identity(expires_at=NOW + 1), NOW)
    assert reply == Reply(frames.Refreshed(id="9", expires_at="2027-01-15T08:10:00.000Z"))
    assert session.deadline == NOW + 540


@pytest.mark.parametrize(
    "changes", [{"user_id": UserId("u_eve")}, {"session_id": SessionId("s_other")}]
)
def test_renewal_with_a_token_of_another_session_closes(changes: dict[str, Any]) -> None:
    session = session_in(State.OPEN)
    action = session.renewed("9", identity(**changes), NOW)
    assert_closes(session, action, CloseCode.FORBIDDEN, "wrong_user")


@pytest.mark.parametrize(
    ("verifiable", "code"), [(True, "unauthorized"), (False, "verification_unavailable")]
)
def test_failed_renewal_leaves_the_session_open(verifiable: bool, code: str) -> None:
    session = session_in(State.OPEN)
    error = error_of(session.not_renewed("9", verifiable=verifiable))
    assert (error.code, error.id) == (code, "9")
    assert (session.state, session.deadline) == (State.OPEN, NOW + 540)


def test_what_comes_too_fast_is_refused_then_closes() -> None:
    session = session_in(State.OPEN)
    for _ in range(LIMITS.messages.burst):
        assert isinstance(receive(session, SEND), Submit)
    for strike in range(2):
        error = error_of(receive(session, SEND, NOW + 0.01 + strike * 0))
        assert (error.code, error.retryable, error.id) == ("rate_limited", True, "1")
        assert error.retry_after_ms is not None
        assert 0 < error.retry_after_ms <= 101
    drained = TokenBucket(RateLimit(0.001, 1), NOW)
    drained.take(NOW)
    session.verified(ANN, drained, NOW)
    assert error_of(receive(session, SEND, NOW + 2)).code == "rate_limited"
    action = receive(session, SEND, NOW + 4)
    assert_closes(session, action, CloseCode.POLICY_VIOLATION, "flood")
