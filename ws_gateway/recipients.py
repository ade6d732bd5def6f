"""Which users exist, remembered for a while, and asked for once when many wait for the answer."""

import asyncio
import time
from collections.abc import Callable

from shared.ids import UserId
from ws_gateway.ports import UserDirectory

__all__ = ["Recipients"]

Verdict = bool | Exception


class Recipients:
    """A cache of the user directory that never makes two drafts to one person change places.

    Everyone who waits for a user is answered in the order of asking, as soon as the directory has
    spoken. Only existing users are remembered: one that is missing may sign up a moment later.
    For one event loop.
    """

    def __init__(
        self,
        directory: UserDirectory,
        *,
        remember_s: float = 300.0,
        max_remembered: int = 200_000,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._directory = directory
        self._remember_s = remember_s
        self._max_remembered = max_remembered
        self._now = now
        self._known_until: dict[UserId, float] = {}
        self._waiting: dict[UserId, list[Callable[[Verdict], None]]] = {}
        self._lookups: set[asyncio.Task[None]] = set()

    def is_known(self, user_id: UserId) -> bool:
        """Whether the user exists for all we know, and nobody waits to hear whether they do."""
        until = self._known_until.get(user_id)
        return until is not None and until > self._now() and user_id not in self._waiting

    def when_known(self, user_id: UserId, answer: Callable[[Verdict], None]) -> None:
        """Call `answer` with whether the user exists, or with why nobody could tell."""
        waiting = self._waiting.get(user_id)
        if waiting is not None:
            waiting.append(answer)
            return
        self._waiting[user_id] = [answer]
        lookup = asyncio.get_running_loop().create_task(self._look_up(user_id))
        self._lookups.add(lookup)
        lookup.add_done_callback(self._lookups.discard)

    def remember(self, user_id: UserId) -> None:
        """Note that a user exists: the directory has just said so."""
        if len(self._known_until) >= self._max_remembered:
            self._known_until.pop(next(iter(self._known_until)))
        self._known_until[user_id] = self._now() + self._remember_s

    def forget(self, user_id: UserId) -> None:
        """The user was deleted."""
        self._known_until.pop(user_id, None)

    async def settled(self) -> None:
        """Wait until nobody waits for a verdict."""
        while self._lookups:
            await asyncio.wait(self._lookups)

    async def _look_up(self, user_id: UserId) -> None:
        verdict: Verdict
        try:
            verdict = await self._directory.username(user_id) is not None
        except Exception as error:
            verdict = error
        if verdict is True:
            self.remember(user_id)
        for answer in self._waiting.pop(user_id):
            answer(verdict)
