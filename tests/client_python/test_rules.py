"""The pure parts of the client: when to reconnect, how fast to send, what comes in what order."""

import datetime
import uuid
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from duet_client import Backoff, answers, errors, frames
from duet_client.cli.conversation import Conversation, Tick
from duet_client.events import MessageSent, SendFailed
from duet_client.lanes import Entry, Lanes
from duet_client.lifecycle import CLOSES, Lifecycle, Phase, Reconnect, Stop, Verdict
from duet_client.message_ids import new_id
from duet_client.pace import Pace
from ws_gateway.protocol.errors import CloseCode, ErrorCode

_CONNECTED = frames.Connected(
    "n_1", frames.ConnectedUser("u_1", "ann"), "e.1", frames.Limits(4000, 10, 50)
)


def _lifecycle() -> Lifecycle:
    lifecycle = Lifecycle(Backoff(first_s=1, longest_s=8, rand=lambda: 1.0))
    lifecycle.opening()
    return lifecycle


def _closed(code: int | None, *frames_before: frames.Frame, reason: str = "") -> Verdict:
    lifecycle = _lifecycle()
    for frame in frames_before:
        lifecycle.received(frame, 0.0)
    return lifecycle.closed(code, reason, 1.0)


def _error(code: str, **fields: Any) -> frames.ErrorFrame:
    return frames.ErrorFrame(code, "why", **fields)


def test_every_close_code_of_the_gateway_has_a_rule() -> None:
    assert set(CloseCode) | {1002} == set(CLOSES)


@pytest.mark.parametrize("code", [None, 1000, 1001, 1006, 1011, 1012, 1013, 3008, 4999])
def test_lost_connection_is_tried_again(code: int | None) -> None:
    assert _closed(code, reason="bye") == Reconnect(1.0, "bye")


@pytest.mark.parametrize("code", [1002, 1003, 1007, 1008, 1009, 3003])
def test_fault_of_the_client_is_not_repeated(code: int) -> None:
    verdict = _closed(code)
    assert isinstance(verdict, Stop)
    assert isinstance(verdict.error, errors.ProtocolFault)


def test_evicted_client_stays_away_told_by_error_or_reason() -> None:
    for verdict in (_closed(1008, _error("evicted")), _closed(1008, reason="evicted")):
        assert isinstance(verdict, Stop)
        assert isinstance(verdict.error, errors.Evicted)


def test_flood_waits_a_minute() -> None:
    assert _closed(1008, _error("flood", id="m1")) == Reconnect(61.0, "flood")


def test_server_that_asks_to_wait_is_waited_for() -> None:
    assert _closed(1012, frames.Draining(2000)) == Reconnect(3.0, "")
    busy = _error("verification_unavailable", retryable=True, retry_after_ms=500)
    assert _closed(1013, busy) == Reconnect(1.5, "")


def test_refused_token_is_renewed_once_and_then_needs_a_login() -> None:
    lifecycle = _lifecycle()
    first = lifecycle.closed(3000, "unauthorized", 0.0)
    assert first == Reconnect(0.0, "unauthorized", renew_tokens=True)
    lifecycle.renewed()
    lifecycle.opening()
    second = lifecycle.closed(3000, "unauthorized", 0.0)
    assert isinstance(second, Stop)
    assert isinstance(second.error, errors.LoginRequired)
    assert lifecycle.phase is Phase.STOPPED


def test_renewed_token_that_was_accepted_may_expire_again() -> None:
    lifecycle = _lifecycle()
    lifecycle.renewed()
    lifecycle.received(_CONNECTED, 0.0)
    assert isinstance(lifecycle.closed(3000, "token_expired", 600.0), Reconnect)


def test_ended_session_needs_a_login_at_once() -> None:
    assert isinstance(_closed(3000, _error("session_ended")), Stop)


def test_failures_in_a_row_wait_longer_until_a_connection_has_lasted() -> None:
    lifecycle = _lifecycle()
    waits = [lifecycle.failed("down").after_s for _ in range(5)]
    assert waits == [1, 2, 4, 8, 8]
    lifecycle.opening()
    lifecycle.received(_CONNECTED, 100.0)
    assert lifecycle.phase is Phase.LIVE
    assert lifecycle.closed(None, "", 101.0) == Reconnect(8.0, "")
    lifecycle.opening()
    lifecycle.received(_CONNECTED, 200.0)
    assert lifecycle.closed(None, "", 211.0) == Reconnect(1.0, "")


def test_connection_that_the_client_breaks_off_is_opened_again_at_once() -> None:
    lifecycle = _lifecycle()
    lifecycle.restarting()
    assert lifecycle.closed(None, "", 0.0) == Reconnect(0.0, "")


@given(st.integers(0, 200), st.floats(0, 1, exclude_max=True), st.floats(0, 60))
def test_backoff_stays_within_its_bounds(failures: int, drawn: float, asked: float) -> None:
    backoff = Backoff(first_s=0.5, longest_s=30, rand=lambda: drawn)
    for _ in range(failures):
        backoff.next_wait_s()
    assert asked <= backoff.next_wait_s(asked) <= asked + 30


def test_ids_are_version_7_sort_by_time_and_are_what_the_gateway_takes() -> None:
    ids = [new_id() for _ in range(100)]
    assert len(set(ids)) == 100
    assert all(uuid.UUID(each).version == 7 for each in ids)
    assert all(uuid.UUID(each).variant == uuid.RFC_4122 for each in ids)
    stamps = [each[:13] for each in ids]
    assert stamps == sorted(stamps)


def test_unknown_frames_and_fields_are_passed_over_and_nonsense_is_not() -> None:
    assert frames.decode('{"type": "of_the_future", "x": 1}') is None
    assert frames.decode('{"type": "done", "id": "1", "x": 1}') == answers.Done("1")
    for nonsense in ("", "[]", "{}", '{"type": "done"}', "[" * 5000, b"\xff"):
        with pytest.raises(frames.InvalidFrame):
            frames.decode(nonsense)


def test_codes_of_refusals_are_the_gateways() -> None:
    known = {code.value for code in ErrorCode}
    assert set(errors._REFUSALS) <= known
    assert isinstance(errors.refusal("blocked", ""), errors.Blocked)
    assert type(errors.refusal("of_the_future", "")) is errors.RequestRefused


@given(st.lists(st.floats(0, 1), max_size=300))
def test_pace_never_exceeds_the_gateways_bucket(pauses: list[float]) -> None:
    pace, now = Pace(10, 50, 0.0), 0.0
    tokens, updated = 50.0, 0.0
    for pause in pauses:
        now += pause + pace.wait_s(now + pause)
        tokens = min(50.0, tokens + (now - updated) * 10)
        updated = now
        pace.take()
        tokens -= 1
        assert tokens > -1e-6


def test_refused_pace_rests_and_then_goes_slowly_for_a_minute() -> None:
    pace = Pace(10, 50, 0.0)
    pace.refused(0.0, 0.5)
    assert pace.wait_s(0.0) == 0.5
    assert pace.wait_s(0.5) == 0
    pace.take()
    assert 0 < pace.wait_s(0.5) <= 0.2
    pace.adopt(100, 10)
    assert pace.wait_s(61.0) == 0


class LaneMachine(RuleBasedStateMachine):
    """Whatever is lost, postponed or settled: each lane in order, one in flight, none forgotten."""

    @initialize()
    def begin(self) -> None:
        self.lanes = Lanes()
        self.now = 0.0
        self.made = 0
        self.waiting: dict[str, list[str]] = {"x": [], "y": [], "z": []}
        self.flying: dict[str, str] = {}

    @rule(lane=st.sampled_from("xyz"))
    def add(self, lane: str) -> None:
        self.made += 1
        self.waiting[lane].append(str(self.made))
        self.lanes.add(Entry(str(self.made), lane, lane, "", ""))

    @rule()
    def take(self) -> None:
        entry = self.lanes.take(self.now)
        if entry is not None:
            assert entry.lane not in self.flying
            assert entry.id == self.waiting[entry.lane][0]
            self.flying[entry.lane] = entry.id

    @rule(lane=st.sampled_from("xyz"))
    def settle(self, lane: str) -> None:
        entry_id = self.flying.pop(lane, None)
        if entry_id is not None:
            entry = self.lanes.settle(entry_id)
            assert entry is not None
            assert entry.id == self.waiting[lane].pop(0)
        assert self.lanes.settle("unknown") is None

    @rule(lane=st.sampled_from("xyz"), place=st.integers(0, 5))
    def echo(self, lane: str, place: int) -> None:
        """The echo of a message that an earlier connection took comes before its ack."""
        if place < len(self.waiting[lane]):
            entry_id = self.waiting[lane].pop(place)
            assert self.lanes.settle(entry_id) is not None
            if self.flying.get(lane) == entry_id:
                del self.flying[lane]

    @rule(lane=st.sampled_from("xyz"), wait=st.floats(0.1, 2))
    def postpone(self, lane: str, wait: float) -> None:
        entry_id = self.flying.pop(lane, None)
        if entry_id is not None:
            self.lanes.postpone(entry_id, self.now + wait)

    @rule(seconds=st.floats(0.1, 3))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def lose_the_connection(self) -> None:
        self.lanes.lost()
        self.flying.clear()

    @invariant()
    def nothing_is_forgotten(self) -> None:
        if hasattr(self, "lanes"):
            assert len(self.lanes) == sum(map(len, self.waiting.values()))

    def teardown(self) -> None:
        if not hasattr(self, "lanes"):
            return
        self.lanes.lost()
        self.now += 10
        sent: dict[str, list[str]] = {"x": [], "y": [], "z": []}
        while (entry := self.lanes.take(self.now)) is not None:
            sent[entry.lane].append(entry.id)
            self.lanes.settle(entry.id)
        assert sent == self.waiting


TestLanes = LaneMachine.TestCase

_AT = datetime.datetime(2026, 11, 24, 9, 30, tzinfo=datetime.UTC)


def _new(seq: int, text: str, sender: str = "u_2", **fields: Any) -> frames.NewMessage:
    to = "u_1" if sender == "u_2" else "u_2"
    return frames.NewMessage("c_1", seq, sender, to, text, _AT, f"e.{seq}", **fields)


def _conversation() -> Conversation:
    conversation = Conversation("u_1")
    conversation.id = "c_1"
    return conversation


def test_conversation_shows_own_message_at_one_place_from_queued_to_read() -> None:
    conversation = _conversation()
    conversation.queued("m1", "hi")
    assert [(line.key, line.tick) for line in conversation.lines()] == [("m1", Tick.QUEUED)]
    conversation.happened(_new(1, "before"))
    conversation.settled(MessageSent("m1", "u_2", "hi", "c_1", 2, _AT))
    conversation.queued("m1", "hi")
    assert [line.text for line in conversation.lines()] == ["before", "hi"]
    own = ("m1", True)
    for receipt, tick in [((1, 0), Tick.STORED), ((2, 1), Tick.RECEIVED), ((2, 2), Tick.READ)]:
        conversation.happened(frames.Receipt("c_1", "u_2", *receipt))
        line = conversation.lines()[1]
        assert ((line.key, line.is_own), line.tick) == (own, tick)


@given(st.permutations(range(6)), st.lists(st.integers(0, 5), max_size=10))
def test_conversation_is_the_same_whatever_order_news_come_in(
    order: list[int], doubles: list[int]
) -> None:
    news: list[Any] = [
        _new(1, "one"),
        _new(2, "two", "u_1"),
        _new(3, "three", revision=1),
        _new(1, "uno", revision=1),
        _new(2, "", "u_1", revision=2, deleted=True),
        _new(4, "four"),
    ]
    conversation = _conversation()
    for number in [*order, *doubles]:
        conversation.happened(news[number])
    shown = [(line.text, line.deleted) for line in conversation.lines()]
    assert shown == [("uno", False), ("", True), ("three", False), ("four", False)]
    assert conversation.unread_seq() == 4
    conversation.was_read(4)
    assert conversation.unread_seq() is None


def test_conversation_takes_edits_erasure_and_refusals() -> None:
    conversation = _conversation()
    conversation.happened(_new(1, "one"))
    conversation.happened(frames.MessageEdited("c_1", 1, "u_2", "uno", 1, _AT, "e.2"))
    conversation.happened(frames.MessageEdited("c_1", 1, "u_2", "late", 1, _AT, "e.2"))
    conversation.happened(frames.MessageEdited("c_2", 1, "u_2", "elsewhere", 9, _AT, "e.3"))
    assert conversation.lines()[0].text == "uno"
    conversation.queued("m1", "hi")
    refused = SendFailed("m1", "u_2", "hi", errors.refusal("blocked", "no"))
    conversation.settled(refused)
    assert conversation.lines()[1].failure == "no"
    conversation.happened(frames.UserErased("c_1", "u_2", "e.4"))
    assert conversation.lines()[0].deleted


def test_events_cannot_be_changed_and_show_no_tokens() -> None:
    with pytest.raises(AttributeError):
        _new(1, "x").text = "y"  # type: ignore[misc]
    assert "secret" not in repr(frames.IssuedTokens("secret", "secret", 1))
    assert msgspec.structs.fields(frames.NewMessage)
