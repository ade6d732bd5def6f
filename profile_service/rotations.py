"""Refreshes in groups: whatever waits while a transaction runs goes into the next one.

A durable commit costs a thread hand-off and a disk flush, however many refreshes are in it. Notes
about which tokens were shown go the same way.
"""

import asyncio
import contextlib
from collections.abc import Callable, Sequence

from profile_service.ports import AuditEntry, Rotation, SessionStore, StoreUnavailable
from profile_service.rotation import PresentedRefresh, RotationRule
from shared.batching import Batcher
from shared.ids import SessionId

__all__ = ["Confirmations", "RotationGroups"]

MAX_GROUP = 256


class RotationGroups:
    """Applies refreshes to the store. Use it from one event loop.

    Cancelling a caller does not take its refresh out of the group. `now_ms` gives milliseconds
    since the epoch.
    """

    def __init__(
        self,
        store: SessionStore,
        *,
        rule: RotationRule,
        refresh_lifetime_s: int,
        now_ms: Callable[[], int],
    ) -> None:
        self._store = store
        self._rule = rule
        self._lifetime_ms = refresh_lifetime_s * 1000
        self._now_ms = now_ms
        self._groups: Batcher[tuple[PresentedRefresh, AuditEntry], Rotation] = Batcher(
            self._rotate, max_batch=MAX_GROUP
        )

    async def rotate(self, presented: PresentedRefresh, audit: AuditEntry) -> Rotation:
        """Decide about a presented refresh token; on return the outcome is on the disk.

        Raises:
            StoreUnavailable: nothing was changed; presenting the same token again is right.
        """
        return await self._groups.submit((presented, audit))

    async def _rotate(
        self, group: Sequence[tuple[PresentedRefresh, AuditEntry]]
    ) -> Sequence[Rotation]:
        now_ms = self._now_ms()
        return await self._store.rotate(
            group,
            now_ms=now_ms,
            rule=self._rule,
            expires_at_ms=now_ms + self._lifetime_ms,
        )


class Confirmations:
    """Notes, in the background, which tokens have been shown. Use it from one event loop.

    A note that is lost makes the rule of rotation more lenient for one generation, so nobody waits
    for it: tokens can be checked while the store cannot write.
    """

    def __init__(self, store: SessionStore) -> None:
        self._store = store
        self._waiting: set[tuple[SessionId, int]] = set()
        self._writer: asyncio.Task[None] | None = None

    def note(self, shown: set[tuple[SessionId, int]]) -> None:
        """Note that tokens of these generations were accepted."""
        self._waiting |= shown
        if self._waiting and self._writer is None:
            self._writer = asyncio.create_task(self._write_all())

    async def _write_all(self) -> None:
        try:
            while self._waiting:
                group, self._waiting = sorted(self._waiting), set()
                with contextlib.suppress(StoreUnavailable):
                    await self._store.confirm(group)
        finally:
            self._writer = None
