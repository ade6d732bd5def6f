"""Keeping below the gateway's rate limits, so that it need not refuse. Pure."""

__all__ = ["Pace"]

_CAUTION_S = 60.0
"""The gateway closes at the third offence in a minute: so long after one, go at half the rate."""


class Pace:
    """A token bucket like the gateway's. `now` is seconds on any clock that never goes back.

    The user's other devices share the gateway's bucket, so a refusal can still come: `refused`.
    """

    def __init__(self, per_s: float, burst: float, now: float) -> None:
        self._per_s = per_s
        self._burst = burst
        self._tokens = burst
        self._updated_at = now
        self._not_before = now
        self._cautious_until = now

    def adopt(self, per_s: float, burst: float) -> None:
        """Take over the limits that the gateway told."""
        full = self._tokens >= self._burst
        self._per_s, self._burst = per_s, burst
        self._tokens = burst if full else min(burst, self._tokens)

    def wait_s(self, now: float) -> float:
        """How long until one may go; 0 when now."""
        rate = self._rate(now)
        self._tokens = min(self._burst, self._tokens + max(0.0, now - self._updated_at) * rate)
        self._updated_at = max(self._updated_at, now)
        return max(self._not_before - now, (1.0 - self._tokens) / rate, 0.0)

    def take(self) -> None:
        """One goes."""
        self._tokens -= 1.0

    def refused(self, now: float, retry_after_s: float) -> None:
        """It was too fast after all: one may go then, and for a minute further ones go slowly."""
        self.wait_s(now)
        self._not_before = now + retry_after_s
        self._cautious_until = now + _CAUTION_S
        self._tokens = 1.0 - retry_after_s * self._rate(now)

    def _rate(self, now: float) -> float:
        return self._per_s / 2 if now < self._cautious_until else self._per_s
