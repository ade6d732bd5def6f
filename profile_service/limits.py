"""Who may try how often: sign-ups by address, passwords by account and by address, and tokens of an
identity provider by address and by whom they are about."""

import contextlib
from collections.abc import AsyncIterator, Callable, Sequence

import msgspec
import structlog

from profile_service.allowances import Charge, Limit, address_key
from profile_service.errors import (
    InvalidCredentials,
    InvalidExternalToken,
    Throttled,
    WrongPassword,
)
from profile_service.external_people import ExternalIdentity
from profile_service.metrics import Metrics
from profile_service.ports import AuditEntry, SessionStore, StoreUnavailable, Throttle
from shared.ids import UserId

__all__ = ["LimitSet", "Limits"]

MAX_KEY_CHARACTERS = 64
"""A longer name is nobody's; this bounds what a flood of invented names costs."""

_log = structlog.get_logger(__name__)


class LimitSet(msgspec.Struct, frozen=True):
    """What is limited, and how."""

    sign_ups_by_address: Limit
    logins_by_address: Limit
    logins_by_account_and_address: Limit
    logins_by_account: Limit
    external_sessions_by_person: Limit


class Limits:
    """Charges attempts, and notes in the audit trail when a limit begins to bite.

    Wrong passwords are counted three times: by address, by account and address together, and by
    account. The second is strict, so that whoever guesses from one address does not keep the owner
    out elsewhere; the third bounds those who guess from many. `now_ms` gives milliseconds since the
    epoch.

    Every method may raise `StoreUnavailable`: nobody is let through uncounted.
    """

    def __init__(
        self,
        limits: LimitSet,
        throttle: Throttle,
        *,
        audit: SessionStore,
        metrics: Metrics,
        now_ms: Callable[[], int],
    ) -> None:
        self._limits = limits
        self._throttle = throttle
        self._audit = audit
        self._metrics = metrics
        self._now_ms = now_ms

    async def sign_up(self, address: str) -> None:
        """Charge a sign-up.

        Raises:
            Throttled: this address has made too many.
        """
        charge = Charge(self._limits.sign_ups_by_address, address_key(address))
        await self._charge([charge], address, None)

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
        charges = [
            Charge(self._limits.logins_by_address, network),
            Charge(self._limits.logins_by_account_and_address, f"{account} {network}"),
            Charge(self._limits.logins_by_account, account),
        ]
        async with self._refunded(charges, address, user_id):
            yield

    @contextlib.asynccontextmanager
    async def external_token(self, address: str) -> AsyncIterator[None]:
        """Charge a check of an identity provider's token; only a bad one stays charged.

        Raises:
            Throttled: too many bad tokens, or wrong passwords, from this address.
        """
        charges = [Charge(self._limits.logins_by_address, address_key(address))]
        async with self._refunded(charges, address, None):
            yield

    async def external_session(self, identity: ExternalIdentity, address: str) -> None:
        """Charge a session for a good token: it may be presented again until it expires.

        Raises:
            Throttled: too many sessions for this person.
        """
        charge = Charge(self._limits.external_sessions_by_person, identity.fingerprint)
        await self._charge([charge], address, None)

    @contextlib.asynccontextmanager
    async def _refunded(
        self, charges: Sequence[Charge], address: str, user_id: UserId | None
    ) -> AsyncIterator[None]:
        """Charge all of them, and give it back unless what happens inside proves wrong."""
        await self._charge(charges, address, user_id)
        proved_wrong = False
        try:
            yield
        except (InvalidCredentials, WrongPassword, InvalidExternalToken):
            proved_wrong = True
            raise
        finally:
            if not proved_wrong:
                with contextlib.suppress(StoreUnavailable):  # it comes back by itself, later
                    await self._throttle.refund(charges)

    async def _charge(
        self, charges: Sequence[Charge], address: str, user_id: UserId | None
    ) -> None:
        refusal = await self._throttle.charge(charges)
        if refusal is None:
            return
        name = refusal.limit.name
        self._metrics.throttled(name)
        if refusal.first:  # one row a streak: a flood of attempts must not fill the disk
            _log.warning("throttled", limit=name, address=address, user=user_id)
            with contextlib.suppress(StoreUnavailable):
                await self._audit.append_audit(
                    AuditEntry(
                        at_ms=self._now_ms(),
                        kind="throttle",
                        user_id=user_id,
                        address=address,
                        detail=name,
                    )
                )
        raise Throttled(refusal.retry_after_s)
