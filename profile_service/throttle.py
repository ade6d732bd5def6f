"""Limits on how often something may be tried, by account and by address. No clock of its own.

Each key has an allowance that refills evenly, so a person who waits may always try again: nothing
locks for good. This is the generic cell rate algorithm: one number a key.
"""

import collections
import dataclasses
import ipaddress
from collections.abc import Callable

__all__ = ["Refusal", "Throttle", "address_key"]

MAX_KEYS = 65_536


@dataclasses.dataclass(frozen=True)
class Refusal:
    """Not now: `retry_after_s` says when. `first` is true for the first one in a row."""

    retry_after_s: float
    first: bool


class Throttle:
    """Allows `attempts` per `window_s` seconds for each key. Use it from one event loop.

    Memory is bounded: of more than 65,536 keys the one charged longest ago is forgotten. `now`
    gives seconds of any monotonic clock.
    """

    def __init__(self, attempts: int, window_s: float, *, now: Callable[[], float]) -> None:
        self._interval_s = window_s / attempts
        self._window_s = window_s
        self._now = now
        self._full_at: collections.OrderedDict[str, float] = collections.OrderedDict()
        self._refused: set[str] = set()

    def charge(self, key: str) -> Refusal | None:
        """Take one attempt from the key's allowance; a refusal takes nothing."""
        now = self._now()
        full_at = max(self._full_at.get(key, now), now) + self._interval_s
        if full_at - now > self._window_s * (1 + 1e-9):
            first = key not in self._refused
            self._refused.add(key)
            return Refusal(full_at - now - self._window_s, first)
        self._full_at[key] = full_at
        self._full_at.move_to_end(key)
        self._refused.discard(key)
        self._forget(now)
        return None

    def refund(self, key: str) -> None:
        """Give the attempt back: it turned out to be a rightful one."""
        if key in self._full_at:
            self._full_at[key] -= self._interval_s

    def _forget(self, now: float) -> None:
        """Drop the oldest keys that are full again, a few at a time, or that are too many."""
        for _ in range(2):
            key, full_at = next(iter(self._full_at.items()))
            if full_at > now and len(self._full_at) <= MAX_KEYS:
                return
            del self._full_at[key]
            self._refused.discard(key)


def address_key(address: str) -> str:
    """Name who an address stands for: of IPv6, the /64 network that one customer gets."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed)
