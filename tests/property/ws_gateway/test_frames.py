"""Whatever arrives, the codec and the session do one of the things they are documented to do."""

import json
from typing import Any

import msgspec
from hypothesis import example, given
from hypothesis import strategies as st

from shared.ids import SessionId, UserId
from ws_gateway.identity import Identity
from ws_gateway.protocol import codec, requests
from ws_gateway.protocol.actions import (
    Action,
    Ask,
    Authenticate,
    Close,
    Renew,
    Reply,
    Rest,
    Submit,
    Type,
)
from ws_gateway.protocol.cursor import Cursors, ForeignCursor
from ws_gateway.protocol.errors import CloseCode, ErrorCode
from ws_gateway.protocol.rate_limit import RateLimit, TokenBucket
from ws_gateway.protocol.session import Session, SessionLimits, State

_NAMES = sorted(
    {field for kind in requests.Request.__args__ for field in kind.__struct_encode_fields__}
    | {"type"}
)
_TAGS = [kind.__struct_config__.tag for kind in requests.Request.__args__]
_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=70)
    | st.sampled_from([*_TAGS, "u_ann", "u_bob", "1", "x" * 64, "x" * 4000, "\ud800"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)
OBJECTS = st.dictionaries(st.sampled_from(_NAMES), _VALUES, max_size=8)
FRAMES: st.SearchStrategy[bytes | str] = (
    st.binary(max_size=200)
    | st.text(max_size=200)
    | OBJECTS.map(json.dumps)
    | OBJECTS.map(lambda o: json.dumps(o, ensure_ascii=False))
    | st.builds(
        lambda tag, fields: json.dumps({**fields, "type": tag}), st.sampled_from(_TAGS), OBJECTS
    )
)


@given(FRAMES)
@example(b'{"type":"send","id":"1","to":"x","text":"y","z":"\xff"}')
@example('{"type":"send","text":"\ud800"}')
@example(b"[" * 20_000)
def test_codec_reads_a_request_or_says_why_not(raw: bytes | str) -> None:
    request: object = None
    request_id: str | None = None
    try:
        request = codec.decode(raw)
    except (codec.MalformedJson, codec.InvalidUtf8):
        return
    except codec.InvalidFrame as error:
        request_id = error.request_id
    if request is None:
        assert request_id is None or len(request_id) <= 64
    else:
        assert codec.decode(msgspec.json.encode(request)) == request


@given(st.text(max_size=140))
def test_cursor_is_a_position_or_foreign(cursor: str) -> None:
    try:
        position = Cursors("e").decode(cursor)
    except ForeignCursor:
        return
    assert 0 <= position < 2**63


ANN = UserId("u_ann")
NOW = 1_800_000_000.0
_LIMITS = SessionLimits(requests=RateLimit(2.0, 5), messages=RateLimit(1.0, 3))
_AFTER = {
    State.CONNECTING: {State.CONNECTING, State.VERIFYING, State.CLOSED},
    State.VERIFYING: {State.VERIFYING, State.OPEN, State.CLOSED},
    State.OPEN: {State.OPEN, State.CLOSED},
    State.CLOSED: {State.CLOSED},
}


def _identity(expires_at: float, session: str) -> Identity:
    return Identity(
        user_id=ANN,
        username="ann",
        session_id=SessionId(session),
        token_version=1,
        expires_at=expires_at,
    )


EVENTS = st.lists(
    st.tuples(st.just("receive"), FRAMES)
    | st.tuples(st.just("binary"), st.none())
    | st.tuples(st.just("sleep"), st.floats(0, 700))
    | st.tuples(st.just("verified"), st.floats(-10, 700))
    | st.tuples(st.just("refused"), st.none())
    | st.tuples(st.just("not_verifiable"), st.none())
    | st.tuples(st.just("renewed"), st.tuples(st.floats(-10, 700), st.sampled_from("ab")))
    | st.tuples(st.just("not_renewed"), st.booleans())
    | st.tuples(st.just("end"), st.sampled_from([None, *ErrorCode])),
    max_size=30,
)


class _Driver:
    """Does to a session what a connection may do, and keeps to its rules."""

    def __init__(self) -> None:
        self.now = NOW
        self.session = Session(_LIMITS, NOW)

    def step(self, kind: str, value: Any) -> object:
        session = self.session
        match kind:
            case "receive":
                return session.receive(value, self.now)
            case "binary":
                return session.receive_binary()
            case "sleep":
                self.now += value
                return session.wake(self.now)
            case "end":
                return session.end(CloseCode.POLICY_VIOLATION, value)
        if session.state is State.VERIFYING:
            match kind:
                case "verified":
                    bucket = TokenBucket(_LIMITS.messages, self.now)
                    session.verified(_identity(self.now + value, "a"), bucket, self.now)
                case "refused":
                    return session.refused()
                case "not_verifiable":
                    return session.not_verifiable(5)
        elif session.identity is not None:
            match kind:
                case "renewed":
                    return session.renewed("r", _identity(self.now + value[0], value[1]), self.now)
                case "not_renewed":
                    return session.not_renewed("r", verifiable=value)
        return None


@given(EVENTS)
def test_session_never_raises_and_keeps_to_its_states(events: list[tuple[str, Any]]) -> None:
    driver = _Driver()
    session = driver.session
    for kind, value in events:
        before = session.state
        action = driver.step(kind, value)
        assert session.state in _AFTER[before]
        assert isinstance(action, Action | None)
        assert isinstance(action, Close) == (session.state is State.CLOSED is not before)
        assert isinstance(action, Authenticate) == (session.state is State.VERIFYING is not before)
        if isinstance(action, Submit | Ask | Type | Renew):
            assert session.state is State.OPEN
        if isinstance(action, Submit):
            assert getattr(action.change, "sender", ANN) == ANN
        if isinstance(action, Close):
            assert len(action.reason.encode()) <= 123
        if isinstance(action, Close | Reply | Rest) and action.frame is not None:
            json.loads(codec.encode(action.frame))
        if session.state is State.CLOSED:
            assert session.deadline is None
