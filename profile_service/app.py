"""The composition root: builds every part from the settings, runs them, and stops them in order."""

import asyncio
import contextlib
import dataclasses
import functools
import time
from collections.abc import AsyncIterator, Callable

import argon2
import structlog
from starlette.types import ASGIApp

from profile_service.accounts import Accounts
from profile_service.adapters.key_directory import KeyDirectory, KeysUnusable
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
from profile_service.limits import Limits
from profile_service.metrics import Metrics
from profile_service.passwords import BoundedExecutor, Passwords
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
                shutdown_timeout_s=settings.shutdown_timeout_s,
                before_shutdown=service.feed.close,
            )
            host, port = listener.getsockname()[:2]
            _log.info("listening", url=f"http://{f'[{host}]' if ':' in host else host}:{port}")
            await server.serve([listener])
    _log.info("stopped")


@contextlib.asynccontextmanager
async def open_service(
    settings: Settings, *, now: Callable[[], float] = time.time
) -> AsyncIterator[Service]:
    """Build the service and take it down again. `now` gives seconds since the epoch.

    Raises:
        DatabaseInUse, DatabaseUnavailable, KeysUnusable: the data directory cannot be used.
        ValueError, OSError: the service secret cannot be used.
    """
    async with contextlib.AsyncExitStack() as stack:
        database = await Database.open(settings.data_dir / "users.db", MIGRATIONS)
        stack.push_async_callback(database.close)
        hashing, judging = _executors(settings)
        stack.callback(hashing.close)
        stack.callback(judging.close)
        keys = keys_of(settings, now)
        tokens = TokenAuthority(
            keys.load(),
            issuer=settings.issuer,
            audience=settings.audience,
            access_lifetime_s=settings.access_token_lifetime_s,
            refresh_lifetime_s=settings.refresh_token_lifetime_s,
            now=now,
        )
        feed = RevocationFeed(SqliteSessionStore(database))
        stack.callback(feed.close)
        service = _assemble(
            settings,
            database=database,
            tokens=tokens,
            feed=feed,
            executors=(hashing, judging),
            now=now,
        )
        housekeeping = Housekeeping(
            SqliteSessionStore(database),
            keys,
            tokens,
            refresh_lifetime_s=settings.refresh_token_lifetime_s,
            audit_retention_s=settings.audit_retention_days * 86_400,
            now=now,
        )
        task = asyncio.create_task(housekeeping.run())
        stack.push_async_callback(_cancel, task)
        yield service


def _executors(settings: Settings) -> tuple[BoundedExecutor, BoundedExecutor]:
    hashing = BoundedExecutor(
        "hash", threads=settings.hash_threads, max_waiting=settings.hash_max_waiting
    )
    return hashing, BoundedExecutor("judge", threads=1, max_waiting=MAX_WAITING_JUDGEMENTS)


def _assemble(
    settings: Settings,
    *,
    database: Database,
    tokens: TokenAuthority,
    feed: RevocationFeed,
    executors: tuple[BoundedExecutor, BoundedExecutor],
    now: Callable[[], float],
) -> Service:
    now_ms = functools.partial(_milliseconds, now)
    metrics = Metrics()
    store = SqliteSessionStore(database)
    hashing, judging = executors
    metrics.watch_hashing(lambda: hashing.pending)
    if settings.argon2_memory_kib < SAFE_ARGON2_MEMORY_KIB:
        _log.warning("weak_hashing", argon2_memory_kib=settings.argon2_memory_kib)
    rotations = RotationGroups(
        store,
        grace_s=settings.refresh_grace_s,
        refresh_lifetime_s=settings.refresh_token_lifetime_s,
        now_ms=now_ms,
    )
    sessions = Sessions(
        store=store,
        rotations=rotations,
        confirmations=Confirmations(store),
        tokens=tokens,
        feed=feed,
        metrics=metrics,
        now_ms=now_ms,
    )
    accounts = Accounts(
        users=SqliteUserStore(database),
        sessions=store,
        passwords=Passwords(_hasher(settings), hashing, judging),
        tokens=tokens,
        limits=_limits(settings, store, metrics, now_ms),
        feed=feed,
        metrics=metrics,
        refresh_lifetime_s=settings.refresh_token_lifetime_s,
        now_ms=now_ms,
    )
    profiles = Profiles(SqliteUserStore(database), now_ms=now_ms)
    for_operators = OperationsRoutes(store, tokens, metrics, describe)
    operations = [
        *AccountRoutes(accounts, profiles).operations(),
        *SessionRoutes(accounts, sessions).operations(),
        *InternalRoutes(sessions, profiles, feed, metrics).operations(),
        *for_operators.operations(),
    ]
    for_operators.described = operations
    guard = Guard(sessions, ServiceCredentials(settings.shared_secret(), SERVICE_NAME, now=now))
    application = build_application(
        operations,
        guard,
        metrics,
        allowed_origins=settings.profile_allowed_origins,
        access_log=settings.access_log,
    )
    return Service(application, feed)


def _hasher(settings: Settings) -> argon2.PasswordHasher:
    return argon2.PasswordHasher(
        time_cost=settings.argon2_time_cost, memory_cost=settings.argon2_memory_kib, parallelism=1
    )


def _limits(
    settings: Settings, store: SqliteSessionStore, metrics: Metrics, now_ms: Callable[[], int]
) -> Limits:
    def throttle(attempts: int, window_s: float) -> Throttle:
        return Throttle(attempts, window_s, now=lambda: now_ms() / 1000)

    return Limits(
        sign_ups_by_address=throttle(settings.sign_ups_per_address, settings.sign_up_window_s),
        logins_by_address=throttle(settings.login_attempts_per_address, settings.login_window_s),
        logins_by_account_and_address=throttle(
            settings.login_attempts_per_account_and_address, settings.login_window_s
        ),
        logins_by_account=throttle(settings.login_attempts_per_account, settings.login_window_s),
        audit=store,
        metrics=metrics,
        now_ms=now_ms,
    )


def _milliseconds(now: Callable[[], float]) -> int:
    return int(now() * 1000)


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
