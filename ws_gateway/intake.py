"""What clients sent and was not taken yet: a little at a time.

One read of a socket may hold hundreds of requests, and a turn of the loop reads every socket. Taken
at once, a burst of twenty clients holds everybody else up for as long as all of it costs.
"""

import collections
import time
from collections.abc import Callable
from typing import Protocol

import structlog

__all__ = ["Intake", "IntakeLoop", "Source"]

_TURN_S = 0.001
"""What is spent at a time on all that waits, however many sent it; and how long is then left for
everything else. An event loop that is never idle keeps the thread that commits from running: Python
hands over every 5 ms at most, and a commit needs that several times."""

_log = structlog.get_logger(__name__)


class Source(Protocol):
    """A client that has sent more than is taken at once."""

    def take_piece(self) -> bool:
        """Take a piece of it. Returns whether more of it may be taken now."""


class IntakeLoop(Protocol):
    """The part of the event loop that an intake needs."""

    def call_soon(self, callback: Callable[[], None], /) -> object: ...
    def call_later(self, delay: float, callback: Callable[[], None], /) -> object: ...


class Intake:
    """Takes from whoever waits in turn, a piece each, until the turn's time is used up.

    Shared by all connections of a server, so that their number does not matter. For one event loop.
    """

    def __init__(self, loop: IntakeLoop, *, clock: Callable[[], float] = time.perf_counter) -> None:
        self._loop = loop
        self._clock = clock
        self._waiting: collections.deque[Source] = collections.deque()

    def add(self, source: Source) -> None:
        """Let a client wait for its turn. One that waits already is not added again."""
        if not self._waiting:
            self._loop.call_soon(self._turn)
        self._waiting.append(source)

    def _turn(self) -> None:
        waiting, ends_at = self._waiting, self._clock() + _TURN_S
        while True:
            try:
                has_more = waiting[0].take_piece()
            except Exception:  # keep-alive ends that one; all others wait here, too
                _log.exception("taking what a client sent failed")
                has_more = False
            if has_more:
                waiting.rotate(-1)
            else:
                waiting.popleft()
            if not waiting:
                return
            if self._clock() >= ends_at:
                break
        self._loop.call_later(_TURN_S, self._turn)
