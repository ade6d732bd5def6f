"""The composition root: builds every part from the settings, runs them, and stops them in order."""

import asyncio
import contextlib
import dataclasses
import time
from collections.abc import AsyncIterator, Callable

import argon2
import structlog
from starlette.types import ASGIApp

from profile_service.accounts import Accounts
from profile_service.adapters.key_directory import KeyDirectory, KeysUnusable
from profile_service.adapters.sqlite_life import DATABASE_NAME
from profile_service.adapters.sqlite_sessions import SqliteSessionStore
from profile_service.adapters.sqlite_users import SqliteUserStore
from profile_service.housekeeping import Housekeeping
from profile_service.http_api.account_routes import AccountRoutes
from profile_service.http_api.application import build_application
from profile_service.http_api.internal_routes import InternalRoutes
from profile_service.http_api.openapi import describe
from profile_service.http_api.operation import Guard
from profile_service.http_api.operations_routes import OperationsRoutes
from profile_service.http_api.session_routes import SessionRoutes
from profile_service.http_api.web_client import WebClient
from profile_service.limits import Limits
from profile_service.metrics import Metrics
from profile_service.passwords import BoundedExecutor, Passwords
from profile_service.ports import SessionStore, UserStore
from profile_service.profiles import Profiles
from profile_service.revocations import RevocationFeed
from profile_service.rotations import Confirmations, RotationGroups
from profile_service.server import Server, bind
from profile_service.sessions import Sessions
from profile_service.settings import Settings
from profile_service.throttle import Throttle
from profile_service.tokens import TokenAuthority
from shared.service_auth import ServiceCredentials
from shared.sqlite import Database

__all__ = [
    "SERVICE_NAME",
    "KeysUnusable",
    "Service",
    "Settings",
    "keys_of",
    "open_service",
    "serve",
]

SERVICE_NAME = "profile"
MIGRATIONS = "profile_service.adapters.migrations"
SAFE_ARGON2_MEMORY_KIB = 19_456
"""The least that OWASP's password storage cheat sheet allows for argon2id."""
MAX_WAITING_JUDGEMENTS = 64

_log = structlog.get_logger(__name__)


@dataclasses.dataclass(frozen=True)
class Service:
    """The running service without its socket."""

    application: ASGIApp
    feed: RevocationFeed


def keys_of(settings: Settings, now: Callable[[], float] = time.time) -> KeyDirectory:
    """Where the signing keys are."""
    return KeyDirectory(settings.data_dir / "keys", now=now)


async def serve(settings: Settings) -> None:
    """Run the service until SIGTERM or SIGINT.

    Raises:
        AddressUnusable: the port is taken, or the address is not this machine's.
        DatabaseInUse, DatabaseUnavailable, KeysUnusable: the data directory cannot be used.
        ValueError, OSError: the service secret cannot be used.
    """
    with contextlib.closing(bind(settings.profile_host, settings.profile_port)) as listener:
        async with open_service(settings) as service:
            server = Server(
                service.application,
                trusted_proxies=settings.profile_trusted_proxies,
                shutdown_timeout_s=settings.profile_shutdown_timeout_s,
                before_shutdown=service.feed.close,
            )
            host, port = listener.getsockname()[:2]
            _log.info("listening", url=f"http://{f'[{host}]' if ':' in host else host}:{port}")
            await server.serve([listener])
    _log.info("stopped")


@contextlib.asynccontextmanager
async def open_service(
    settings: Settings,
    *,
    now: Callable[[], float] = time.time,
    monotonic: Callable[[], float] = time.monotonic,
) -> AsyncIterator[Service]:
    """Build the service and take it down again.

    `now` gives seconds since the epoch; `monotonic` seconds of a clock that is never set back.

    Raises:
        DatabaseInUse, DatabaseUnavailable, KeysUnusable: the data directory cannot be used.
        ValueError, OSError: the service secret cannot be used.
    """
    async with contextlib.AsyncExitStack() as stack:
        database = await Database.open(settings.data_dir / DATABASE_NAME, MIGRATIONS)
        stack.push_async_callback(database.close)
        keys = keys_of(settings, now)
        parts = _parts(settings, database, keys, now, monotonic)
        stack.callback(parts.hashing.close)
        stack.callback(parts.judging.close)
        stack.callback(parts.feed.close)
        application = _application(parts)
        housekeeping = Housekeeping(
            parts.sessions,
            keys,
            parts.tokens,
            refresh_lifetime_s=settings.refresh_token_lifetime_s,
            audit_retention_s=settings.audit_retention_days * 86_400,
            now=now,
        )
        task = asyncio.create_task(housekeeping.run())
        stack.push_async_callback(_cancel, task)
        yield Service(application, parts.feed)


@dataclasses.dataclass(frozen=True)
class _Parts:
    """What the use cases and the routes are made of."""

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
        return int(self.now() * 1000)


def _parts(
    settings: Settings,
    database: Database,
    keys: KeyDirectory,
    now: Callable[[], float],
    monotonic: Callable[[], float],
) -> _Parts:
    sessions = SqliteSessionStore(database)
    hashing = BoundedExecutor(
        "hash", threads=settings.hash_threads, max_waiting=settings.hash_max_waiting
    )
    metrics = Metrics()
    metrics.watch_hashing(lambda: hashing.pending)
    return _Parts(
        settings=settings,
        now=now,
        monotonic=monotonic,
        users=SqliteUserStore(database),
        sessions=sessions,
        tokens=TokenAuthority(
            keys.load(),
            issuer=settings.issuer,
            audience=settings.audience,
            access_lifetime_s=settings.access_token_lifetime_s,
            refresh_lifetime_s=settings.refresh_token_lifetime_s,
            now=now,
        ),
        feed=RevocationFeed(sessions),
        metrics=metrics,
        hashing=hashing,
        judging=BoundedExecutor("judge", threads=1, max_waiting=MAX_WAITING_JUDGEMENTS),
    )


def _application(parts: _Parts) -> ASGIApp:
    settings = parts.settings
    sessions, accounts = _sessions(parts), _accounts(parts)
    profiles = Profiles(parts.users, now_ms=parts.now_ms)
    for_operators = OperationsRoutes(parts.sessions, parts.tokens, parts.metrics, describe)
    operations = [
        *AccountRoutes(accounts, profiles).operations(),
        *SessionRoutes(accounts, sessions).operations(),
        *InternalRoutes(sessions, profiles, parts.feed, parts.metrics).operations(),
        *for_operators.operations(),
    ]
    for_operators.described = operations
    services = ServiceCredentials(settings.shared_secret(), SERVICE_NAME, now=parts.now)
    return build_application(
        operations,
        Guard(sessions, services),
        parts.metrics,
        allowed_origins=settings.profile_allowed_origins,
        access_log=settings.access_log,
        web_client=_web_client(settings),
    )


def _web_client(settings: Settings) -> WebClient | None:
    if not settings.web_client:
        return None
    if not (settings.web_client_dir / "index.html").is_file():
        _log.warning("web_client_missing", folder=str(settings.web_client_dir))
        return None
    return WebClient(settings.web_client_dir, settings.gateway_urls(), settings.web_image_origins)


def _sessions(parts: _Parts) -> Sessions:
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


def _accounts(parts: _Parts) -> Accounts:
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
        limits=_limits(parts),
        feed=parts.feed,
        metrics=parts.metrics,
        refresh_lifetime_s=settings.refresh_token_lifetime_s,
        now_ms=parts.now_ms,
    )


def _limits(parts: _Parts) -> Limits:
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
        audit=parts.sessions,
        metrics=parts.metrics,
        now_ms=parts.now_ms,
    )


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
