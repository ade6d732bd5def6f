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

    Wrong passwords are counted three times: by address, by account and address together, and by
    account. The second is strict, so that whoever guesses from one address does not keep the owner
    out elsewhere; the third bounds those who guess from many. `now_ms` gives milliseconds since the
    epoch.
    """

    def __init__(
        self,
        *,
        sign_ups_by_address: Throttle,
        logins_by_address: Throttle,
        logins_by_account_and_address: Throttle,
        logins_by_account: Throttle,
        audit: SessionStore,
        metrics: Metrics,
        now_ms: Callable[[], int],
    ) -> None:
        self._sign_ups = sign_ups_by_address
        self._by_address = logins_by_address
        self._by_both = logins_by_account_and_address
        self._by_account = logins_by_account
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
        self, account: str, address: str, user_id: UserId | None
    ) -> AsyncIterator[None]:
        """Charge a check of a password that happens inside; only a wrong one stays charged.

        `account` names what is guessed at: a folded username, or a session that has to confirm.

        Raises:
            Throttled: too many wrong passwords, for this account or from this address.
        """
        account, network = account[:MAX_KEY_CHARACTERS], address_key(address)
        limits = (
            (self._by_address, network, "logins_by_address"),
            (self._by_both, f"{account} {network}", "logins_by_account_and_address"),
            (self._by_account, account, "logins_by_account"),
        )
        with contextlib.ExitStack() as refunds:
            for throttle, key, limit in limits:
                await self._charge(throttle, key, limit, address, user_id)
                refunds.callback(throttle.refund, key)
            try:
                yield
            except (InvalidCredentials, WrongPassword):
                refunds.pop_all()
                raise

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
