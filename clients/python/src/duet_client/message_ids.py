"""Identifiers of messages and requests: UUID version 7 (RFC 9562, section 5.7)."""

import secrets
import time
import uuid

__all__ = ["new_id"]

_VERSION = 0x7 << 76
_VARIANT = 0b10 << 62


def new_id() -> str:
    """Make an identifier that never repeats and sorts by the millisecond it was made in.

    Made once for each message and stored with it, this is what makes sending again safe.
    """
    milliseconds = time.time_ns() // 1_000_000
    random = secrets.randbits(74)
    high, low = random >> 62, random & ((1 << 62) - 1)
    number = (milliseconds & ((1 << 48) - 1)) << 80 | _VERSION | high << 64 | _VARIANT | low
    return str(uuid.UUID(int=number))
