"""What happens beside the requests: old rows go, new keys come into force."""

import asyncio
import contextlib
from collections.abc import Callable

import structlog

from profile_service.key_watch import KeyWatch
from profile_service.ports import SessionStore, StoreUnavailable

__all__ = ["Housekeeping"]

PRUNE_INTERVAL_S = 3600
KEY_CHECK_INTERVAL_S = 2.0
"""How soon a running service signs with a key that `rotate-keys` has made."""

_log = structlog.get_logger(__name__)


class Housekeeping:
    """Removes what is of no more use, and watches the keys. `now` gives seconds since the epoch."""

    def __init__(
        self,
        store: SessionStore,
        keys: KeyWatch,
        *,
        refresh_lifetime_s: int,
        audit_retention_s: int,
        now: Callable[[], float],
    ) -> None:
        self._store = store
        self._keys = keys
        self._refresh_lifetime_s = refresh_lifetime_s
        self._audit_retention_s = audit_retention_s
        self._now = now

    async def run(self) -> None:
        """Prune now and hourly, and watch the keys, until cancelled."""
        loop = asyncio.get_running_loop()
        prune_at = loop.time()
        while True:
            if loop.time() >= prune_at:
                prune_at = loop.time() + PRUNE_INTERVAL_S
                await self.prune()
            with contextlib.suppress(StoreUnavailable):  # then the next time
                await self._keys.look()
            await asyncio.sleep(KEY_CHECK_INTERVAL_S)

    async def prune(self) -> None:
        """Remove expired sessions, and revocations and audit rows that nobody can need."""
        now_ms = int(self._now() * 1000)
        removed = 0
        try:
            while rows := await self._store.prune(
                sessions_ms=now_ms,
                revocations_ms=now_ms - self._refresh_lifetime_s * 1000,
                audit_ms=now_ms - self._audit_retention_s * 1000,
            ):
                removed += rows
        except StoreUnavailable as error:
            _log.warning("prune_failed", reason=str(error))
        except Exception:  # a bug, or a damaged file: the keys must be watched all the same
            _log.exception("prune_failed")
        if removed:
            _log.info("pruned", rows=removed)
