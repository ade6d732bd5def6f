"""`Throttle` in the memory of this process: for one service on its own."""

import collections
from collections.abc import Callable, Sequence

from profile_service.allowances import Charge, Limit, Refusal, retry_after_s, spend

__all__ = ["MAX_KEYS", "LocalThrottle"]

MAX_KEYS = 65_536


class LocalThrottle:
    """Forgets everything at a restart. Use it from one event loop.

    Memory is bounded: of more than 65,536 keys of a limit the one charged longest ago is forgotten.
    `now` gives seconds of any monotonic clock.
    """

    def __init__(self, *, now: Callable[[], float]) -> None:
        self._now = now
        self._allowances: dict[str, _Allowances] = {}

    async def charge(self, charges: Sequence[Charge]) -> Refusal | None:
        now_s = self._now()
        for place, charge in enumerate(charges):
            refusal = self._of(charge.limit).charge(charge.limit, charge.key, now_s)
            if refusal is not None:
                await self.refund(charges[:place])
                return refusal
        return None

    async def refund(self, charges: Sequence[Charge]) -> None:
        for charge in charges:
            self._of(charge.limit).refund(charge.limit, charge.key)

    def _of(self, limit: Limit) -> "_Allowances":
        return self._allowances.setdefault(limit.name, _Allowances())


class _Allowances:
    """Those of one limit; the key charged longest ago comes first."""

    def __init__(self) -> None:
        self._full_at: collections.OrderedDict[str, float] = collections.OrderedDict()
        self._refused: set[str] = set()

    def charge(self, limit: Limit, key: str, now_s: float) -> Refusal | None:
        full_at_s = self._full_at.get(key, now_s)
        then_s = spend(limit, full_at_s, now_s)
        if then_s is None:
            first = key not in self._refused
            self._refused.add(key)
            return Refusal(limit, retry_after_s(limit, full_at_s, now_s), first)
        self._full_at[key] = then_s
        self._full_at.move_to_end(key)
        self._refused.discard(key)
        self._forget(now_s)
        return None

    def refund(self, limit: Limit, key: str) -> None:
        if key in self._full_at:
            self._full_at[key] -= limit.interval_s

    def _forget(self, now_s: float) -> None:
        """Drop the oldest keys that are full again, a few at a time, or that are too many."""
        for _ in range(2):
            key, full_at_s = next(iter(self._full_at.items()))
            if full_at_s > now_s and len(self._full_at) <= MAX_KEYS:
                return
            del self._full_at[key]
            self._refused.discard(key)
