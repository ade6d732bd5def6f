"""The bounded outbox: coalesced writes, the grace, the hard bound, and what may be lost."""

import asyncio
from collections.abc import Callable

import pytest

from tests.support.manual_clock import ManualTimers
from ws_gateway.delivery.outbox import Departures, Outbox, OutboxLimits

LIMITS = OutboxLimits(max_buffered_bytes=100, grace_s=5.0)


class Transport:
    """A reader that takes nothing unless told to."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []
        self.buffered = 0
        self.closing = False
        self.aborted = False

    def write(self, data: bytes) -> None:
        self.writes.append(data)
        self.buffered += len(data)

    def get_write_buffer_size(self) -> int:
        return self.buffered

    def is_closing(self) -> bool:
        return self.closing

    def abort(self) -> None:
        self.aborted = True


class Loop:
    """One turn at a time."""

    def __init__(self) -> None:
        self.timers = ManualTimers()
        self._soon: list[Callable[[], None]] = []

    def call_soon(self, callback: Callable[[], None], /) -> object:
        self._soon.append(callback)
        return None

    def call_later(self, delay: float, callback: Callable[[], None], /) -> asyncio.TimerHandle:
        return self.timers.call_later(delay, callback)

    @property
    def callbacks(self) -> int:
        return len(self._soon)

    def turn(self) -> None:
        soon, self._soon = self._soon, []
        for callback in soon:
            callback()


class Fixture:
    """An outbox and what is around it."""

    def __init__(self) -> None:
        self.transport, self.loop, self.aborts = Transport(), Loop(), 0
        self.departures = Departures(self.loop)
        self.outbox = self.another(self.transport)

    def another(self, transport: Transport) -> Outbox:
        """An outbox that departs with the others."""
        return Outbox(transport, LIMITS, self.departures, self._aborted)

    def _aborted(self) -> None:
        self.aborts += 1


@pytest.fixture
def fixture() -> Fixture:
    return Fixture()


def test_writes_of_one_turn_go_out_together_in_order(fixture: Fixture) -> None:
    for data in (b"a", b"b", b"c"):
        fixture.outbox.write(data)
    assert fixture.transport.writes == []
    fixture.loop.turn()
    fixture.outbox.write(b"d")
    fixture.loop.turn()
    assert fixture.transport.writes == [b"abc", b"d"]


def test_all_that_are_written_to_in_a_turn_depart_in_one_callback(fixture: Fixture) -> None:
    other = Transport()
    outbox = fixture.another(other)
    for data in (b"a", b"b"):
        fixture.outbox.write(data)
        outbox.write(data)
    assert fixture.loop.callbacks == 1
    fixture.loop.turn()
    assert (fixture.transport.writes, other.writes) == ([b"ab"], [b"ab"])
    assert fixture.loop.callbacks == 0


def test_outbox_that_fails_is_aborted_and_holds_up_no_other(
    fixture: Fixture, caplog: pytest.LogCaptureFixture
) -> None:
    """What it lost must not be followed by anything later."""

    class Broken(Transport):
        def write(self, data: bytes) -> None:
            raise OSError("gone")

    broken = Broken()
    fixture.another(broken).write(b"a")
    fixture.outbox.write(b"b")
    fixture.loop.turn()
    assert broken.aborted
    assert (fixture.transport.writes, fixture.transport.aborted) == ([b"b"], False)
    assert "writing to a connection failed" in caplog.text
    caplog.clear()


def test_departing_does_not_wait_for_the_turn(fixture: Fixture) -> None:
    fixture.outbox.write(b"a")
    fixture.departures.leave()
    fixture.outbox.write(b"b")
    fixture.loop.turn()
    assert fixture.transport.writes == [b"a", b"b"]


def test_flush_does_not_wait_for_the_turn(fixture: Fixture) -> None:
    fixture.outbox.write(b"a")
    fixture.outbox.flush()
    fixture.loop.turn()
    assert fixture.transport.writes == [b"a"]


def test_nothing_is_written_to_a_closing_transport(fixture: Fixture) -> None:
    fixture.transport.closing = True
    fixture.outbox.write(b"a")
    fixture.loop.turn()
    assert fixture.transport.writes == []


def test_reader_over_the_bound_for_the_grace_is_aborted(fixture: Fixture) -> None:
    fixture.outbox.pause()
    assert fixture.outbox.is_behind
    fixture.loop.timers.advance(4.9)
    assert not fixture.transport.aborted
    fixture.loop.timers.advance(0.1)
    assert (fixture.transport.aborted, fixture.aborts) == (True, 1)


def test_pausing_again_does_not_prolong_the_grace(fixture: Fixture) -> None:
    fixture.outbox.pause()
    fixture.loop.timers.advance(4)
    fixture.outbox.pause()
    fixture.loop.timers.advance(1)
    assert fixture.transport.aborted


def test_reader_that_catches_up_is_not_aborted(fixture: Fixture) -> None:
    fixture.outbox.pause()
    fixture.loop.timers.advance(4)
    fixture.outbox.resume()
    assert not fixture.outbox.is_behind
    fixture.loop.timers.advance(100)
    assert not fixture.transport.aborted
    assert fixture.loop.timers.pending == 0


def test_grace_begins_anew_each_time(fixture: Fixture) -> None:
    fixture.outbox.pause()
    fixture.loop.timers.advance(4)
    fixture.outbox.resume()
    fixture.outbox.pause()
    fixture.loop.timers.advance(4)
    assert not fixture.transport.aborted


def test_far_too_much_is_aborted_at_once(fixture: Fixture) -> None:
    fixture.outbox.write(b"x" * 101)
    fixture.outbox.flush()
    fixture.outbox.pause()
    fixture.outbox.write(b"x" * 1899)
    fixture.outbox.flush()
    assert not fixture.transport.aborted
    fixture.outbox.write(b"x")
    fixture.outbox.flush()
    assert (fixture.transport.aborted, fixture.aborts) == (True, 1)
    assert fixture.loop.timers.pending == 0


def test_what_may_be_lost_is_dropped_while_the_reader_is_behind(fixture: Fixture) -> None:
    assert fixture.outbox.write_ephemeral(b"a")
    fixture.outbox.pause()
    assert not fixture.outbox.write_ephemeral(b"b")
    fixture.outbox.resume()
    assert fixture.outbox.write_ephemeral(b"c")
    fixture.loop.turn()
    assert fixture.transport.writes == [b"ac"]


def test_paced_reader_may_be_slow_but_not_stuck(fixture: Fixture) -> None:
    with fixture.outbox.pacing():
        fixture.transport.buffered = 200
        fixture.outbox.pause()
        fixture.transport.buffered = 150
        fixture.loop.timers.advance(5)
        assert not fixture.transport.aborted
        fixture.loop.timers.advance(5)
        assert fixture.transport.aborted
