"""Token buckets: how much somebody may ask for, and how long they should wait. Pure."""

import weakref

import msgspec

__all__ = ["BucketsByUser", "RateLimit", "Strikes", "TokenBucket"]


_ROUNDING = 1e-6


class RateLimit(msgspec.Struct, frozen=True):
    """So many a second in the long run, and so many at once after a rest."""

    per_s: float
    burst: int


class TokenBucket:
    """Holds up to `burst` tokens and gains `per_s` each second; every request takes one."""

    __slots__ = ("__weakref__", "_limit", "_tokens", "_updated_at")

    def __init__(self, limit: RateLimit, now: float) -> None:
        self._limit = limit
        self._tokens = float(limit.burst)
        self._updated_at = now

    def take(self, now: float) -> float:
        """Take a token. Returns 0, or how many seconds to wait when there is none."""
        limit, tokens = self._limit, self._tokens
        elapsed_s, self._updated_at = now - self._updated_at, now
        if elapsed_s > 0:
            tokens += elapsed_s * limit.per_s
            if tokens >= limit.burst:
                tokens = float(limit.burst)
        missing = 1.0 - tokens
        # Floats gain a hair less than they should: who waited as told has waited enough.
        if missing > _ROUNDING:
            self._tokens = tokens
            return missing / limit.per_s
        self._tokens = tokens - 1.0
        return 0.0

    def wait_s(self, now: float) -> float:
        """Return how many seconds it takes until there is a token; 0 when there is one."""
        wait_s = self.take(now)
        if not wait_s:
            self.put_back()
        return wait_s

    def put_back(self) -> None:
        """Return a token that was taken for nothing."""
        self._tokens = min(float(self._limit.burst), self._tokens + 1.0)

    def is_full(self, now: float) -> bool:
        """Whether nothing was taken lately, so that forgetting the bucket changes nothing."""
        gained = max(0.0, now - self._updated_at) * self._limit.per_s
        return self._tokens + gained >= self._limit.burst


class Strikes:
    """Counts offences, those within a second as one; the third in a minute is one too many."""

    __slots__ = ("_at",)

    MAX = 3
    WINDOW_S = 60.0
    _SAME_S = 1.0

    def __init__(self) -> None:
        self._at: list[float] = []

    def add(self, now: float) -> bool:
        """Note an offence. Returns whether it was one too many."""
        self._at = [at for at in self._at if 0 <= now - at < self.WINDOW_S]
        if not self._at or now - self._at[-1] >= self._SAME_S:
            self._at.append(now)
        return len(self._at) >= self.MAX


class BucketsByUser:
    """One bucket for each user, whichever connection they use.

    Full ones are forgotten, but not while a connection goes on using one: then there would be two.
    """

    _PRUNE_AT = 10_000

    def __init__(self, limit: RateLimit) -> None:
        self._limit = limit
        self._buckets: dict[str, TokenBucket] = {}
        self._in_use: weakref.WeakValueDictionary[str, TokenBucket] = weakref.WeakValueDictionary()

    def of(self, user_id: str, now: float) -> TokenBucket:
        """Return the user's bucket."""
        bucket = self._buckets.get(user_id)
        if bucket is None:
            if len(self._buckets) >= self._PRUNE_AT:
                self._buckets = {
                    user: held for user, held in self._buckets.items() if not held.is_full(now)
                }
            bucket = self._in_use.get(user_id) or TokenBucket(self._limit, now)
            self._buckets[user_id] = self._in_use[user_id] = bucket
        return bucket
