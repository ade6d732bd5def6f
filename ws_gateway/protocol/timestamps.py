"""Moments as the protocol writes them."""

import datetime
import functools
from typing import TypeAlias

__all__ = ["Timestamp", "timestamp"]

Timestamp: TypeAlias = str
"""RFC 3339 in UTC with milliseconds: `2026-11-24T09:30:00.000Z`."""


@functools.lru_cache(maxsize=256)  # one batch shares one moment
def timestamp(milliseconds: int) -> Timestamp:
    """Format milliseconds since the epoch."""
    seconds, remainder_ms = divmod(milliseconds, 1000)
    return f"{_second(seconds)}.{remainder_ms:03d}Z"


@functools.lru_cache(maxsize=256)
def _second(seconds: int) -> str:
    return f"{datetime.datetime.fromtimestamp(seconds, datetime.UTC):%Y-%m-%dT%H:%M:%S}"
