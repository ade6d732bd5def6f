"""The composition root: builds the gateway from its settings, runs it, and stops it in order."""

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator

import structlog

from shared.service_auth import ServiceCredentials
from ws_gateway.adapters.local_bus import LocalBus
from ws_gateway.adapters.profile_client import ProfileClient
from ws_gateway.adapters.sqlite_store import SqliteMessageStore
from ws_gateway.connection import Connection, ConnectionServices
from ws_gateway.conversations import MAX_TEXT_CHARACTERS
from ws_gateway.delivery.connection_map import ConnectionMap, LiveConnection
from ws_gateway.delivery.outbox import OutboxLimits
from ws_gateway.messenger import Messenger
from ws_gateway.metrics import Metrics
from ws_gateway.protocol import frames
from ws_gateway.protocol.cursor import Cursors
from ws_gateway.protocol.errors import CloseCode, ErrorCode
from ws_gateway.protocol.session import SessionLimits
from ws_gateway.recipients import Recipients
from ws_gateway.revocations import RevocationWatch
from ws_gateway.server import GatewayServer, ServerLimits
from ws_gateway.settings import Settings

__all__ = ["Gateway", "run"]

_log = structlog.get_logger(__name__)


class Gateway:
    """A running gateway: where it listens, and the parts that tests look into."""

    def __init__(
        self,
        host: str,
        port: int,
        *,
        connections: ConnectionMap,
        metrics: Metrics,
        revocations: RevocationWatch,
    ) -> None:
        self.host = host
        self.port = port
        self.connections = connections
        self.metrics = metrics
        self.revocations = revocations

    @property
    def url(self) -> str:
        """Where clients connect."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"ws://{host}:{self.port}/v1/ws"


async def run(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT, then stop in order.

    Raises:
        OSError: the port is taken.
        DatabaseInUse, DatabaseUnavailable: the database is.
        ValueError: the service secret is unusable.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with serving(settings) as gateway:
        _log.info("listening", url=gateway.url)
        hint = asyncio.create_task(_say_what_to_do_next(gateway, settings))
        await stop.wait()
        hint.cancel()
        _log.info("stopping", connections=len(gateway.connections))
    _log.info("stopped")


@contextlib.asynccontextmanager
async def serving(settings: Settings) -> AsyncIterator[Gateway]:
    """Build the gateway, serve while the context lasts, then drain and close everything."""
    metrics = Metrics()
    credentials = ServiceCredentials(settings.shared_secret(), "ws_gateway")
    store = await SqliteMessageStore.open(
        settings.data_dir / "messages.db", busy_timeout_s=settings.database_busy_timeout_s
    )
    profile = ProfileClient(
        settings.profile_url, credentials, metrics, timeout_s=settings.profile_timeout_s
    )
    try:
        cursors = Cursors(store.epoch)
        bus = LocalBus()
        connections = ConnectionMap(
            cursors, max_connections_per_user=settings.max_connections_per_user
        )
        bus.subscribe(connections.deliver)
        recipients = Recipients(profile, remember_s=settings.recipient_cache_s)
        messenger = Messenger(
            store,
            recipients,
            bus,
            metrics,
            max_batch=settings.commit_max_batch,
            max_waiting=settings.commit_max_waiting,
        )
        revocations = RevocationWatch(
            profile,
            connections,
            recipients,
            metrics,
            _end_revoked,
            poll_interval_s=settings.revocation_poll_interval_s,
        )
        services = ConnectionServices(
            verifier=profile,
            messenger=messenger,
            connections=connections,
            revocations=revocations,
            cursors=cursors,
            metrics=metrics,
            limits=frames.Limits(
                max_text_characters=MAX_TEXT_CHARACTERS,
                max_frame_bytes=settings.max_frame_bytes,
                max_connections=settings.max_connections_per_user,
            ),
            session_limits=SessionLimits(
                connect_timeout_s=settings.connect_timeout_s,
                expiring_lead_s=settings.expiring_lead_s,
                expiry_grace_s=settings.expiry_grace_s,
            ),
        )

        async def is_ready() -> str | None:
            if not revocations.connected.is_set():
                return "the profile service cannot be reached"
            return None if await store.is_available() else "the database does not answer"

        server = GatewayServer(services, _server_limits(settings), is_ready)
        metrics.gauge(
            "duet_gateway_connections", "WebSockets open now.", lambda: server.connections
        )
        metrics.gauge("duet_gateway_users", "People with a connection.", lambda: connections.users)
        metrics.gauge(
            "duet_gateway_commit_waiting_messages",
            "Messages that wait for the next transaction.",
            lambda: messenger.waiting,
        )
        metrics.gauge(
            "duet_gateway_delivered_messages",
            "Message frames written to connections since the start.",
            lambda: connections.delivered,
        )
        committer = asyncio.create_task(messenger.run(), name="committer")
        watchers = [
            asyncio.create_task(revocations.run(), name="revocation feed"),
            asyncio.create_task(revocations.poll(), name="revocation poll"),
        ]

        async def settled() -> None:
            await messenger.drain()
            await asyncio.shield(committer)

        try:
            host, port = await server.start(settings.gateway_host, settings.gateway_port)
            yield Gateway(
                host, port, connections=connections, metrics=metrics, revocations=revocations
            )
        finally:
            for watcher in watchers:
                watcher.cancel()
            await server.drain(settled, settings.shutdown_timeout_s)
            await asyncio.gather(*watchers, return_exceptions=True)
            await settled()
    finally:
        await profile.close()
        await store.close()


def _end_revoked(connection: LiveConnection) -> None:
    if isinstance(connection, Connection):
        connection.end(CloseCode.UNAUTHORIZED, ErrorCode.SESSION_ENDED)


def _server_limits(settings: Settings) -> ServerLimits:
    return ServerLimits(
        allowed_origins=settings.allowed_origins,
        max_connections=settings.max_connections,
        max_frame_bytes=settings.max_frame_bytes,
        handshake_timeout_s=settings.handshake_timeout_s,
        ping_interval_s=settings.ping_interval_s,
        ping_timeout_s=settings.ping_timeout_s,
        close_timeout_s=settings.close_timeout_s,
        outbox=OutboxLimits(settings.outbox_max_bytes, settings.outbox_grace_s),
    )


async def _say_what_to_do_next(gateway: Gateway, settings: Settings) -> None:
    await gateway.revocations.connected.wait()
    _log.info(
        "Duet is ready: sign up at the profile service, then connect here (README, first message)",
        profile_service=settings.profile_url,
        gateway=gateway.url,
    )
