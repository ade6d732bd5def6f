"""Who may try how often: sign-ups by address, passwords by account and by address."""

import contextlib
from collections.abc import AsyncIterator, Callable

import structlog

from profile_service.errors import InvalidCredentials, Throttled, WrongPassword
from profile_service.metrics import Metrics
from profile_service.ports import AuditEntry, SessionStore, StoreUnavailable
from profile_service.throttle import Throttle, address_key
from shared.ids import UserId

__all__ = ["Limits"]

MAX_KEY_CHARACTERS = 64
"""A longer name is nobody's; this bounds what a flood of invented names costs."""

_log = structlog.get_logger(__name__)


class Limits:
    """Charges attempts, and notes in the audit trail when a limit begins to bite.

    `now_ms` gives milliseconds since the epoch.
    """

    def __init__(
        self,
        sign_ups: Throttle,
        logins_by_account: Throttle,
        logins_by_address: Throttle,
        audit: SessionStore,
        metrics: Metrics,
        *,
        now_ms: Callable[[], int],
    ) -> None:
        self._sign_ups = sign_ups
        self._by_account = logins_by_account
        self._by_address = logins_by_address
        self._audit = audit
        self._metrics = metrics
        self._now_ms = now_ms

    async def sign_up(self, address: str) -> None:
        """Charge a sign-up.

        Raises:
            Throttled: this address has made too many.
        """
        await self._charge(self._sign_ups, address_key(address), "sign_ups", address, None)

    @contextlib.asynccontextmanager
    async def attempt(
        self, canonical_username: str, address: str, user_id: UserId | None
    ) -> AsyncIterator[None]:
        """Charge a check of a password that happens inside; only a wrong one stays charged.

        Raises:
            Throttled: too many wrong passwords, for this account or from this address.
        """
        account, network = canonical_username[:MAX_KEY_CHARACTERS], address_key(address)
        await self._charge(self._by_address, network, "logins_by_address", address, user_id)
        try:
            await self._charge(self._by_account, account, "logins_by_account", address, user_id)
        except Throttled:
            self._by_address.refund(network)
            raise
        try:
            yield
        except (InvalidCredentials, WrongPassword):
            raise
        except BaseException:
            self._refund(account, network)
            raise
        self._refund(account, network)

    def _refund(self, account: str, network: str) -> None:
        self._by_account.refund(account)
        self._by_address.refund(network)

    async def _charge(
        self, throttle: Throttle, key: str, limit: str, address: str, user_id: UserId | None
    ) -> None:
        refusal = throttle.charge(key)
        if refusal is None:
            return
        self._metrics.throttled(limit)
        if refusal.first:  # one row a streak: a flood of attempts must not fill the disk
            _log.warning("throttled", limit=limit, address=address, user=user_id)
            with contextlib.suppress(StoreUnavailable):
                await self._audit.append_audit(
                    AuditEntry(
                        at_ms=self._now_ms(),
                        kind="throttle",
                        user_id=user_id,
                        address=address,
                        detail=limit,
                    )
                )
        raise Throttled(refusal.retry_after_s)
