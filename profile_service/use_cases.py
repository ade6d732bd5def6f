"""A part of the composition root: builds the use cases from the settings and what was opened."""

import dataclasses
from collections.abc import Callable

import argon2
import structlog

from profile_service.accounts import Accounts
from profile_service.external_accounts import ExternalAccounts
from profile_service.external_tokens import ClaimNames, ExternalTokens
from profile_service.limits import Limits
from profile_service.metrics import Metrics
from profile_service.passwords import BoundedExecutor, Passwords
from profile_service.ports import ExternalKeys, SessionStore, UserStore
from profile_service.profiles import Profiles
from profile_service.records import Records
from profile_service.revocations import RevocationFeed
from profile_service.rotations import Confirmations, RotationGroups
from profile_service.sessions import Sessions
from profile_service.settings import Settings
from profile_service.throttle import Throttle
from profile_service.tokens import TokenAuthority

__all__ = ["Parts", "UseCases", "build_use_cases"]

SAFE_ARGON2_MEMORY_KIB = 19_456
"""The least that OWASP's password storage cheat sheet allows for argon2id."""

_log = structlog.get_logger(__name__)


@dataclasses.dataclass(frozen=True)
class Parts:
    """What the composition root has opened."""

    settings: Settings
    now: Callable[[], float]
    monotonic: Callable[[], float]
    users: UserStore
    sessions: SessionStore
    tokens: TokenAuthority
    feed: RevocationFeed
    metrics: Metrics
    hashing: BoundedExecutor
    judging: BoundedExecutor

    def now_ms(self) -> int:
        """Milliseconds since the epoch."""
        return int(self.now() * 1000)


@dataclasses.dataclass(frozen=True)
class UseCases:
    """What the routes call; `external` is None where no identity provider is set up."""

    accounts: Accounts
    external: ExternalAccounts | None
    profiles: Profiles
    sessions: Sessions


def build_use_cases(parts: Parts, external_keys: ExternalKeys | None) -> UseCases:
    """Build all of them; they share limits."""
    settings = parts.settings
    records = Records(refresh_lifetime_s=settings.refresh_token_lifetime_s, now_ms=parts.now_ms)
    limits = _limits(parts)
    accounts = _accounts(parts, records, limits)
    external = (
        None
        if external_keys is None
        else _external(parts, records, limits, accounts, external_keys)
    )
    profiles = Profiles(parts.users, now_ms=parts.now_ms)
    return UseCases(accounts, external, profiles, _sessions(parts))


def _sessions(parts: Parts) -> Sessions:
    rotations = RotationGroups(
        parts.sessions,
        grace_s=parts.settings.refresh_grace_s,
        refresh_lifetime_s=parts.settings.refresh_token_lifetime_s,
        now_ms=parts.now_ms,
    )
    return Sessions(
        store=parts.sessions,
        rotations=rotations,
        confirmations=Confirmations(parts.sessions),
        tokens=parts.tokens,
        feed=parts.feed,
        metrics=parts.metrics,
        now_ms=parts.now_ms,
    )


def _accounts(parts: Parts, records: Records, limits: Limits) -> Accounts:
    settings = parts.settings
    if settings.argon2_memory_kib < SAFE_ARGON2_MEMORY_KIB:
        _log.warning("weak_hashing", argon2_memory_kib=settings.argon2_memory_kib)
    hasher = argon2.PasswordHasher(
        time_cost=settings.argon2_time_cost, memory_cost=settings.argon2_memory_kib, parallelism=1
    )
    return Accounts(
        users=parts.users,
        sessions=parts.sessions,
        passwords=Passwords(hasher, parts.hashing, parts.judging),
        tokens=parts.tokens,
        limits=limits,
        feed=parts.feed,
        metrics=parts.metrics,
        records=records,
        sign_up_open=settings.sign_up == "open",
    )


def _external(
    parts: Parts, records: Records, limits: Limits, accounts: Accounts, keys: ExternalKeys
) -> ExternalAccounts:
    settings = parts.settings
    tokens = ExternalTokens(
        keys,
        issuer=settings.external_issuer or "",
        audience=settings.external_audience or "",
        algorithms=settings.external_algorithms,
        claim_names=ClaimNames(
            subject=settings.external_subject_claim,
            username=settings.external_username_claim,
            display_name=settings.external_display_name_claim,
            avatar_url=settings.external_avatar_claim,
            locale=settings.external_locale_claim,
        ),
        leeway_s=settings.external_leeway_s,
        now=parts.now,
    )
    return ExternalAccounts(
        accounts=accounts,
        users=parts.users,
        sessions=parts.sessions,
        external_tokens=tokens,
        tokens=parts.tokens,
        limits=limits,
        feed=parts.feed,
        metrics=parts.metrics,
        records=records,
    )


def _limits(parts: Parts) -> Limits:
    settings = parts.settings

    def throttle(attempts: int, window_s: float) -> Throttle:
        return Throttle(attempts, window_s, now=parts.monotonic)

    return Limits(
        sign_ups_by_address=throttle(settings.sign_ups_per_address, settings.sign_up_window_s),
        logins_by_address=throttle(settings.login_attempts_per_address, settings.login_window_s),
        logins_by_account_and_address=throttle(
            settings.login_attempts_per_account_and_address, settings.login_window_s
        ),
        logins_by_account=throttle(settings.login_attempts_per_account, settings.login_window_s),
        external_sessions_by_person=throttle(
            settings.external_sessions_per_person, settings.login_window_s
        ),
        audit=parts.sessions,
        metrics=parts.metrics,
        now_ms=parts.now_ms,
    )
