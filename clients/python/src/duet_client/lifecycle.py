"""When to connect again, and when not: the life of a client's connections, without I/O or clock.

    WAITING --opening--> OPENING --`connected`--> LIVE
       ^                    |                      |
       +--- Reconnect ------+------- closed -------+---- Stop ----> STOPPED

`CLOSES` is the table of docs/protocol.md from the client's side.
"""

import enum
from typing import TypeAlias

import msgspec

from duet_client.backoff import Backoff
from duet_client.errors import DuetError, Evicted, LoginRequired, ProtocolFault
from duet_client.frames import Connected, Draining, ErrorFrame, Frame

__all__ = ["CLOSES", "Lifecycle", "Phase", "Reconnect", "Remedy", "Stop", "Verdict"]

FLOOD_PAUSE_S = 60.0
STEADY_AFTER_S = 10.0
"""A connection that lived for so long was a good one: the next failure is the first again."""


class Phase(enum.Enum):
    """Where the client is."""

    WAITING = enum.auto()
    OPENING = enum.auto()
    LIVE = enum.auto()
    STOPPED = enum.auto()


class Remedy(enum.Enum):
    """What a close code calls for."""

    RETRY = enum.auto()
    RENEW = enum.auto()
    """Fetch a new access token, then retry; refused again, a new login is needed."""
    SEE_ERROR = enum.auto()
    """The error that came before it decides."""
    STOP = enum.auto()
    """A fault of this client: it would only happen again."""


CLOSES: dict[int, Remedy] = {
    1000: Remedy.RETRY,
    1001: Remedy.RETRY,
    1002: Remedy.STOP,
    1003: Remedy.STOP,
    1007: Remedy.STOP,
    1008: Remedy.SEE_ERROR,
    1009: Remedy.STOP,
    1011: Remedy.RETRY,
    1012: Remedy.RETRY,
    1013: Remedy.RETRY,
    3000: Remedy.RENEW,
    3003: Remedy.STOP,
    3008: Remedy.RETRY,
}
"""Any other code, and an end without one, is a lost connection: retry."""


class Reconnect(msgspec.Struct, frozen=True):
    """Connect again after so long, with new tokens if `renew_tokens`."""

    after_s: float
    reason: str
    renew_tokens: bool = False


class Stop(msgspec.Struct, frozen=True):
    """Do not connect again."""

    error: DuetError


Verdict: TypeAlias = Reconnect | Stop


class Lifecycle:
    """Decides after each connection what comes next. `now` is seconds on a monotonic clock.

    Call `opening`, then `received` for each frame, then `closed` or `failed`; again from the start
    after the wait that a `Reconnect` asks for.
    """

    def __init__(self, backoff: Backoff) -> None:
        self.phase = Phase.WAITING
        self._backoff = backoff
        self._error: ErrorFrame | None = None
        self._draining: Draining | None = None
        self._live_since: float | None = None
        self._renewed = False
        self._at_once = False

    def opening(self) -> None:
        """A connection is being opened."""
        self.phase = Phase.OPENING
        self._error = self._draining = self._live_since = None
        self._at_once = False

    def received(self, frame: Frame, now: float) -> None:
        """Take note of what a frame says about the connection."""
        match frame:
            case Connected():
                self.phase, self._live_since, self._renewed = Phase.LIVE, now, False
            case ErrorFrame(id=None):
                self._error = frame
            case ErrorFrame(code="flood" | "wrong_user"):
                self._error = frame
            case Draining():
                self._draining = frame

    def renewed(self) -> None:
        """There are new tokens: should these be refused as well, only a login helps."""
        self._renewed = True

    def restarting(self) -> None:
        """The client itself breaks the connection off, to connect again at once."""
        self._at_once = True

    def failed(self, reason: str, at_least_s: float = 0.0) -> Reconnect:
        """No connection came about, or no token for it."""
        self.phase = Phase.WAITING
        return Reconnect(self._backoff.next_wait_s(at_least_s), reason)

    def closed(self, code: int | None, reason: str, now: float) -> Verdict:
        """The connection ended with this close code; None when it broke off without one."""
        if self._live_since is not None and now - self._live_since >= STEADY_AFTER_S:
            self._backoff.reset()
        verdict = self._verdict(code, reason)
        self.phase = Phase.STOPPED if isinstance(verdict, Stop) else Phase.WAITING
        return verdict

    def _verdict(self, code: int | None, reason: str) -> Verdict:
        if self._at_once:
            return Reconnect(0.0, reason)
        remedy = Remedy.RETRY if code is None else CLOSES.get(code, Remedy.RETRY)
        error = reason or (self._error.code if self._error is not None else "")
        match remedy:
            case Remedy.RENEW if self._renewed or error == "session_ended":
                return Stop(LoginRequired(self._told(reason) or "the session has ended"))
            case Remedy.RENEW:
                return Reconnect(0.0, error or "the access token has expired", renew_tokens=True)
            case Remedy.SEE_ERROR if error == "flood":
                return Reconnect(self._backoff.next_wait_s(FLOOD_PAUSE_S), error)
            case Remedy.SEE_ERROR if error == "evicted":
                return Stop(Evicted(self._told(reason)))
            case Remedy.STOP | Remedy.SEE_ERROR:
                return Stop(
                    ProtocolFault(f"closed with {code}: {self._told(reason) or 'no reason'}")
                )
            case _:
                return Reconnect(self._backoff.next_wait_s(self._asked_wait_s()), reason)

    def _told(self, reason: str) -> str:
        return self._error.message if self._error is not None else reason

    def _asked_wait_s(self) -> float:
        """What the server asked to wait, before a restart or under load."""
        if self._draining is not None:
            return self._draining.retry_after_ms / 1000
        if self._error is not None and self._error.retry_after_ms is not None:
            return self._error.retry_after_ms / 1000
        return 0.0
