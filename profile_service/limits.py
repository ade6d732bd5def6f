"""Who may try how often: sign-ups by address, passwords by account and by address, and tokens of an
identity provider by address and by whom they are about."""

import contextlib
from collections.abc import AsyncIterator, Callable, Sequence

import structlog

from profile_service.errors import (
    InvalidCredentials,
    InvalidExternalToken,
    Throttled,
    WrongPassword,
)
from profile_service.external_people import ExternalIdentity
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
        external_sessions_by_person: Throttle,
        audit: SessionStore,
        metrics: Metrics,
        now_ms: Callable[[], int],
    ) -> None:
        self._sign_ups = sign_ups_by_address
        self._by_address = logins_by_address
        self._by_both = logins_by_account_and_address
        self._by_account = logins_by_account
        self._external_sessions = external_sessions_by_person
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
        async with self._refunded(limits, address, user_id):
            yield

    @contextlib.asynccontextmanager
    async def external_token(self, address: str) -> AsyncIterator[None]:
        """Charge a check of an identity provider's token; only a bad one stays charged.

        Raises:
            Throttled: too many bad tokens, or wrong passwords, from this address.
        """
        limits = ((self._by_address, address_key(address), "logins_by_address"),)
        async with self._refunded(limits, address, None):
            yield

    async def external_session(self, identity: ExternalIdentity, address: str) -> None:
        """Charge a session for a good token: it may be presented again until it expires.

        Raises:
            Throttled: too many sessions for this person.
        """
        key = identity.fingerprint
        await self._charge(self._external_sessions, key, "external_sessions", address, None)

    @contextlib.asynccontextmanager
    async def _refunded(
        self, limits: Sequence[tuple[Throttle, str, str]], address: str, user_id: UserId | None
    ) -> AsyncIterator[None]:
        """Charge all of the limits, and give it back unless what happens inside proves wrong."""
        with contextlib.ExitStack() as refunds:
            for throttle, key, limit in limits:
                await self._charge(throttle, key, limit, address, user_id)
                refunds.callback(throttle.refund, key)
            try:
                yield
            except (InvalidCredentials, WrongPassword, InvalidExternalToken):
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
