"""An event loop whose turns a test takes."""

import collections
from collections.abc import Callable

__all__ = ["Turns"]


class Turns:
    """Keeps the callbacks of an `IntakeLoop` until they are run."""

    def __init__(self) -> None:
        self._soon: collections.deque[Callable[[], None]] = collections.deque()

    def call_soon(self, callback: Callable[[], None], /) -> None:
        self._soon.append(callback)

    def call_later(self, delay: float, callback: Callable[[], None], /) -> None:
        assert delay > 0
        self._soon.append(callback)

    def take_one(self) -> None:
        """Run what is due by now."""
        for _ in range(len(self._soon)):
            self._soon.popleft()()

    def take_all(self) -> None:
        """Run what is due, and what comes of it."""
        while self._soon:
            self.take_one()
