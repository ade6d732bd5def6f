"""Limits on how often something may be tried. Pure rules: no clock, no state.

Each key has an allowance that refills evenly, so a person who waits may always try again: nothing
locks for good. This is the generic cell rate algorithm: one number a key, the time at which its
allowance will be full again.
"""

import ipaddress

import msgspec

__all__ = ["Charge", "Limit", "Refusal", "address_key", "retry_after_s", "spend"]


class Limit(msgspec.Struct, frozen=True):
    """So many attempts in a window of so many seconds, for each key."""

    name: str
    attempts: int
    window_s: float

    @property
    def interval_s(self) -> float:
        """How long one attempt takes to come back."""
        return self.window_s / self.attempts


class Charge(msgspec.Struct, frozen=True):
    """An attempt, and whom it counts for."""

    limit: Limit
    key: str


class Refusal(msgspec.Struct, frozen=True):
    """Not now: `retry_after_s` says when. `first` is true for the first one in a row."""

    limit: Limit
    retry_after_s: float
    first: bool


def spend(limit: Limit, full_at_s: float, now_s: float) -> float | None:
    """Take one attempt from an allowance; return when it will be full. None: it is used up."""
    then_s = max(full_at_s, now_s) + limit.interval_s
    return then_s if then_s - now_s <= limit.window_s * (1 + 1e-9) else None


def retry_after_s(limit: Limit, full_at_s: float, now_s: float) -> float:
    """Tell how long it takes until an allowance that is used up is not any more."""
    return full_at_s + limit.interval_s - now_s - limit.window_s


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
