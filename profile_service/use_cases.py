"""A part of the composition root: builds the use cases from the settings and what was opened."""

import dataclasses
from collections.abc import Callable

import argon2
import structlog

from profile_service.accounts import Accounts
from profile_service.allowances import Limit
from profile_service.external_accounts import ExternalAccounts
from profile_service.external_tokens import ClaimNames, ExternalTokens
from profile_service.key_watch import KeyWatch
from profile_service.limits import Limits, LimitSet
from profile_service.metrics import Metrics
from profile_service.passwords import BoundedExecutor, Passwords
from profile_service.ports import ExternalKeys, Stores
from profile_service.profiles import Profiles
from profile_service.records import Records
from profile_service.revocations import RevocationFeed
from profile_service.rotation import RotationRule
from profile_service.rotations import Confirmations, RotationGroups
from profile_service.sessions import Sessions
from profile_service.settings import Settings
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
    stores: Stores
    tokens: TokenAuthority
    keys: KeyWatch
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
    profiles = Profiles(parts.stores.users, now_ms=parts.now_ms)
    return UseCases(accounts, external, profiles, _sessions(parts))


def _sessions(parts: Parts) -> Sessions:
    rotations = RotationGroups(
        parts.stores.sessions,
        rule=RotationRule(
            grace_ms=int(parts.settings.refresh_grace_s * 1000), burst=parts.settings.refresh_burst
        ),
        refresh_lifetime_s=parts.settings.refresh_token_lifetime_s,
        now_ms=parts.now_ms,
    )
    return Sessions(
        store=parts.stores.sessions,
        rotations=rotations,
        confirmations=Confirmations(parts.stores.sessions),
        tokens=parts.tokens,
        keys=parts.keys,
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
        users=parts.stores.users,
        sessions=parts.stores.sessions,
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
        users=parts.stores.users,
        sessions=parts.stores.sessions,
        external_tokens=tokens,
        tokens=parts.tokens,
        limits=limits,
        feed=parts.feed,
        metrics=parts.metrics,
        records=records,
    )


def _limits(parts: Parts) -> Limits:
    settings = parts.settings

    login_s = settings.login_window_s
    limits = LimitSet(
        Limit("sign_ups", settings.sign_ups_per_address, settings.sign_up_window_s),
        Limit("logins_by_address", settings.login_attempts_per_address, login_s),
        Limit(
            "logins_by_account_and_address",
            settings.login_attempts_per_account_and_address,
            login_s,
        ),
        Limit("logins_by_account", settings.login_attempts_per_account, login_s),
        Limit("external_sessions", settings.external_sessions_per_person, login_s),
    )
    return Limits(
        limits,
        parts.stores.throttle,
        audit=parts.stores.sessions,
        metrics=parts.metrics,
        now_ms=parts.now_ms,
    )
