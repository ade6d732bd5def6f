"""The composition root: builds every part from the settings, runs them, and stops them in order."""

import asyncio
import contextlib
import dataclasses
import time
from collections.abc import AsyncIterator, Callable

import structlog
from starlette.types import ASGIApp

from profile_service.adapters.external_keys import KeySetUnreadable, open_keys
from profile_service.adapters.sqlite_life import DATABASE_NAME
from profile_service.adapters.sqlite_stores import open_sqlite_stores
from profile_service.housekeeping import Housekeeping
from profile_service.http_api.account_routes import AccountRoutes
from profile_service.http_api.application import build_application
from profile_service.http_api.internal_routes import InternalRoutes
from profile_service.http_api.openapi import describe
from profile_service.http_api.operation import Guard
from profile_service.http_api.operations_routes import OperationsRoutes
from profile_service.http_api.session_routes import SessionRoutes
from profile_service.http_api.web_client import WebClient
from profile_service.key_watch import KeyWatch
from profile_service.metrics import Metrics
from profile_service.passwords import BoundedExecutor
from profile_service.ports import ExternalKeys, KeysUnusable, Stores
from profile_service.revocations import RevocationFeed
from profile_service.server import Server, bind
from profile_service.settings import Settings
from profile_service.tokens import TokenAuthority
from profile_service.use_cases import Parts, build_use_cases
from shared.client_address import Networks
from shared.garbage import spare_the_start
from shared.service_auth import ServiceCredentials

__all__ = [
    "SERVICE_NAME",
    "KeySetUnreadable",
    "KeysUnusable",
    "Service",
    "Settings",
    "open_service",
    "open_stores",
    "serve",
]

SERVICE_NAME = "profile"
MAX_WAITING_JUDGEMENTS = 64

_log = structlog.get_logger(__name__)


@dataclasses.dataclass(frozen=True)
class Service:
    """The running service without its socket."""

    application: ASGIApp
    feed: RevocationFeed


async def serve(settings: Settings) -> None:
    """Run the service until SIGTERM or SIGINT.

    Raises:
        AddressUnusable: the port is taken, or the address is not this machine's.
        DatabaseInUse, DatabaseUnavailable, StoreUnavailable, KeysUnusable: the data directory or
            the database cannot be used.
        KeySetUnreadable: the identity provider's key set is in a file, and is not readable.
        ValueError, OSError: the service secret or the database's URL cannot be used.
    """
    with contextlib.closing(bind(settings.profile_host, settings.profile_port)) as listener:
        async with open_service(settings) as service:
            server = Server(
                service.application,
                trusted_proxies=settings.profile_trusted_proxies,
                shutdown_timeout_s=settings.profile_shutdown_timeout_s,
                before_shutdown=service.feed.close,
            )
            spare_the_start()
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
        DatabaseInUse, DatabaseUnavailable, StoreUnavailable, KeysUnusable: the data directory or
            the database cannot be used.
        KeySetUnreadable: the identity provider's key set is in a file, and is not readable.
        ValueError, OSError: the service secret or the database's URL cannot be used.
    """
    async with contextlib.AsyncExitStack() as stack:
        stores = await stack.enter_async_context(open_stores(settings, now, monotonic))
        parts = await _parts(settings, stores, now, monotonic)
        stack.callback(parts.hashing.close)
        stack.callback(parts.judging.close)
        stack.callback(parts.feed.close)
        await stack.enter_async_context(stores.news(parts.feed.notify))
        external_keys = await _external_keys(parts, stack)
        application = _application(parts, external_keys)
        housekeeping = Housekeeping(
            stores.sessions,
            parts.keys,
            refresh_lifetime_s=settings.refresh_token_lifetime_s,
            audit_retention_s=settings.audit_retention_days * 86_400,
            now=now,
        )
        task = asyncio.create_task(housekeeping.run())
        stack.push_async_callback(_cancel, task)
        yield Service(application, parts.feed)


def open_stores(
    settings: Settings, now: Callable[[], float], monotonic: Callable[[], float]
) -> contextlib.AbstractAsyncContextManager[Stores]:
    """Open what the settings name; see `open_sqlite_stores` and `open_postgres_stores`."""
    url = settings.postgresql_url()
    if url is None:
        return open_sqlite_stores(settings.data_dir, now=now, monotonic=monotonic)
    if (settings.data_dir / DATABASE_NAME).exists():
        _log.warning("users_db_is_not_used", folder=str(settings.data_dir))
    # only now: who uses SQLite need not wait for these to be imported
    from profile_service.adapters.postgres_stores import open_postgres_stores  # noqa: PLC0415

    return open_postgres_stores(url, settings.shared_secret(), now=now)


async def _parts(
    settings: Settings,
    stores: Stores,
    now: Callable[[], float],
    monotonic: Callable[[], float],
) -> Parts:
    hashing = BoundedExecutor(
        "hash", threads=settings.hash_threads, max_waiting=settings.hash_max_waiting
    )
    metrics = Metrics()
    metrics.watch_hashing(lambda: hashing.pending)
    tokens = TokenAuthority(
        await stores.keys.load(),
        issuer=settings.issuer,
        audience=settings.audience,
        access_lifetime_s=settings.access_token_lifetime_s,
        refresh_lifetime_s=settings.refresh_token_lifetime_s,
        now=now,
    )
    return Parts(
        settings=settings,
        now=now,
        monotonic=monotonic,
        stores=stores,
        tokens=tokens,
        keys=KeyWatch(stores.keys, tokens, monotonic=monotonic),
        feed=RevocationFeed(stores.sessions),
        metrics=metrics,
        hashing=hashing,
        judging=BoundedExecutor("judge", threads=1, max_waiting=MAX_WAITING_JUDGEMENTS),
    )


def _application(parts: Parts, external_keys: ExternalKeys | None) -> ASGIApp:
    settings = parts.settings
    built = build_use_cases(parts, external_keys)
    for_operators = OperationsRoutes(
        parts.stores.sessions,
        parts.tokens,
        parts.metrics,
        Networks(settings.metrics_networks),
        describe,
    )
    operations = [  # gateways ask most, and a path that comes first is found first
        *InternalRoutes(built.sessions, built.profiles, parts.feed, parts.metrics).operations(),
        *AccountRoutes(built.accounts, built.profiles, built.external).operations(),
        *SessionRoutes(built.accounts, built.sessions, built.external).operations(),
        *for_operators.operations(),
    ]
    for_operators.described = operations
    services = ServiceCredentials(settings.shared_secret(), SERVICE_NAME, now=parts.now)
    return build_application(
        operations,
        Guard(built.sessions, services),
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


async def _external_keys(parts: Parts, stack: contextlib.AsyncExitStack) -> ExternalKeys | None:
    settings = parts.settings
    source = settings.external_jwks_file or settings.external_jwks_url
    if source is None:
        return None
    keys = open_keys(
        source,
        timeout_s=settings.external_jwks_timeout_s,
        refetch_s=settings.external_jwks_refetch_s,
        max_age_s=settings.external_jwks_max_age_s,
        monotonic=parts.monotonic,
        on_read=lambda succeeded: parts.metrics.fetched_external_keys(succeeded=succeeded),
    )
    return await stack.enter_async_context(keys)


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
