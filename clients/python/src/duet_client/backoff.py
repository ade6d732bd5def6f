"""How long to wait before the next try: exponential, with full jitter. Pure."""

import random
from collections.abc import Callable

__all__ = ["Backoff"]


class Backoff:
    """Each failure in a row doubles the longest possible wait; the wait is drawn evenly below it.

    The draw ("full jitter") keeps clients that lost the same gateway from coming back in step.
    `rand` gives numbers from 0 up to 1.
    """

    def __init__(
        self,
        *,
        first_s: float = 0.5,
        longest_s: float = 30.0,
        rand: Callable[[], float] = random.random,
    ) -> None:
        self._first_s = first_s
        self._longest_s = longest_s
        self._rand = rand
        self._failures = 0

    def next_wait_s(self, at_least_s: float = 0.0) -> float:
        """Note a failure and return the seconds to wait, on top of what the server asked for."""
        bound = min(self._longest_s, self._first_s * 2.0 ** min(self._failures, 30))
        self._failures += 1
        return at_least_s + bound * self._rand()

    def reset(self) -> None:
        """Forget the failures: it works again."""
        self._failures = 0
