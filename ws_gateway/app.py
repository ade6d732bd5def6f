"""The composition root: builds the gateway from its settings, runs it, and stops it in order."""

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

import structlog

from shared.client_address import Networks
from shared.garbage import spare_the_start
from shared.ids import UserId
from shared.service_auth import ServiceCredentials
from ws_gateway.adapters.profile_client import ProfileClient
from ws_gateway.connection import Connection
from ws_gateway.conversations import MAX_TEXT_CHARACTERS, Evicted, Notice
from ws_gateway.delivery.broadcast import Broadcast
from ws_gateway.delivery.connection_map import ConnectionMap, LiveConnection
from ws_gateway.delivery.following import Following
from ws_gateway.delivery.outbox import Departures, OutboxLimits
from ws_gateway.delivery.rendering import Rendering
from ws_gateway.engines import Engines, open_engines
from ws_gateway.enquiries import Enquiries
from ws_gateway.erasure import Eraser
from ws_gateway.heartbeat import Heartbeat
from ws_gateway.messenger import Messenger
from ws_gateway.metrics import Metrics
from ws_gateway.ports import ProfileService, SharedLogs, StoreUnavailable
from ws_gateway.presence import Presence
from ws_gateway.protocol import frames
from ws_gateway.protocol.cursor import Cursors
from ws_gateway.protocol.errors import CloseCode, ErrorCode
from ws_gateway.protocol.rate_limit import BucketsByUser, RateLimit
from ws_gateway.protocol.session import SessionLimits
from ws_gateway.recipients import Recipients
from ws_gateway.revocations import RevocationWatch
from ws_gateway.server import PATH, GatewayServer, ServerLimits
from ws_gateway.services import ConnectionServices
from ws_gateway.settings import Settings

__all__ = ["Gateway", "run", "serving"]

_TIDY_UP_INTERVAL_S = 0.2
_BEGIN_ANEW_AFTER_S = 5.0
_PRESENCE_WORKERS = 3
"""Of a shared database's connections, which messages need, too."""
_PRESENCE_WORKERS_EMBEDDED = 32
"""They share a read of the embedded one."""
_BYTES_PER_REQUEST = 2048
"""More than requests take on average: whoever keeps to the limit on requests never meets this."""

_log = structlog.get_logger(__name__)


class Gateway:
    """A gateway's parts, wired together. `serving` makes one and gives it life."""

    def __init__(
        self,
        settings: Settings,
        engines: Engines,
        profile: ProfileService,
        metrics: Metrics,
        *,
        now: Callable[[], float],
    ) -> None:
        stores, bus = engines.stores, engines.bus
        cursors = Cursors(stores.messages.epoch)
        rendering = Rendering(cursors)
        departures = Departures(asyncio.get_running_loop())
        recipients = Recipients(profile, remember_s=settings.recipient_cache_s)
        session_limits = _session_limits(settings)
        buckets = BucketsByUser(session_limits.messages)
        self.stores = stores
        self.metrics = metrics
        self.connections = ConnectionMap(
            rendering,
            lambda deliveries: stores.messages.note_deliveries(deliveries, int(now() * 1000)),
            max_connections_per_user=settings.max_connections_per_user,
        )
        self.messenger = Messenger(
            stores.messages,
            recipients,
            bus,
            metrics,
            now=now,
            depart=departures.leave,
            begin_anew=self._close_all,
            max_batch=settings.commit_max_batch,
            max_waiting=settings.commit_max_waiting,
        )
        self.presence = Presence(
            self.connections,
            stores.people,
            engines.attendance,
            bus,
            rendering,
            offline_after_s=settings.offline_after_s,
            workers=_PRESENCE_WORKERS if engines.shared_logs else _PRESENCE_WORKERS_EMBEDDED,
            now=now,
        )
        self.eraser = Eraser(self.messenger, stores.people)

        def user_deleted(user_id: UserId) -> None:
            recipients.forget(user_id)
            self.eraser.user_deleted(user_id)

        self.revocations = RevocationWatch(
            profile,
            self.connections,
            stores.people,
            metrics,
            end_connection=lambda connection: _end(
                connection, CloseCode.UNAUTHORIZED, ErrorCode.SESSION_ENDED
            ),
            user_deleted=user_deleted,
            poll_interval_s=settings.revocation_poll_interval_s,
        )
        self.background: dict[str, Callable[[], Awaitable[None]]] = {
            "revocation feed": self.revocations.run,
            "revocation poll": self.revocations.poll,
            "presence": self.presence.run,
            "erasure": self.eraser.run,
            "tidying up": self.tidy_up,
        }
        self.heartbeat: Heartbeat | None = None
        self.live: Broadcast | Following
        if engines.shared_logs is None:
            self.live = self._broadcast(engines)
        else:
            self.live = self._follow(engines, engines.shared_logs, settings)
        self.enquiries = Enquiries(
            stores.archive, stores.people, profile, self.presence, bus, now=now
        )
        services = ConnectionServices(
            live=self.live,
            verifier=profile,
            store=stores.messages,
            messenger=self.messenger,
            enquiries=self.enquiries,
            presence=self.presence,
            connections=self.connections,
            revocations=self.revocations,
            rendering=rendering,
            cursors=cursors,
            metrics=metrics,
            limits=_limits(settings),
            session_limits=session_limits,
            bucket_of=lambda user_id: buckets.of(user_id, now()),
            now=now,
        )
        self.server = GatewayServer(
            services, _server_limits(settings), departures, self._what_is_missing
        )
        self._read_gauges(engines)
        self.host, self.port = settings.gateway_host, settings.gateway_port

    def _broadcast(self, engines: Engines) -> Broadcast:
        """Have what this gateway does told to its people."""
        live = Broadcast(self.connections, engines.position)
        engines.bus.subscribe(live.receive)
        engines.bus.subscribe(self.presence.observe)
        return live

    def _follow(self, engines: Engines, logs: SharedLogs, settings: Settings) -> Following:
        """Have what any gateway does told to the people of this one."""

        def deliver(notices: Sequence[Notice], viewer: UserId | None = None) -> None:
            self.connections.deliver(notices, viewer)
            self.presence.observe(notices, viewer)
            self._evict(notices)

        following = Following(
            logs,
            engines.bus,
            self.connections,
            deliver=deliver,
            settled=self.messenger.settled,
            metrics=self.metrics,
            check_interval_s=settings.bus_check_interval_s,
        )
        self.heartbeat = Heartbeat(
            engines.attendance,
            engines.bus,
            self.connections,
            self.presence,
            following,
            hears_others=engines.hears_others,
        )
        self.background["following"] = following.run
        self.background["heartbeat"] = self.heartbeat.run
        return following

    def _evict(self, notices: Sequence[Notice]) -> None:
        """Close connections that make room, wherever the newer one is."""
        for notice in notices:
            if isinstance(notice, Evicted):
                for connection in self.connections.of_user(notice.user):
                    if connection.connection_id == notice.connection:
                        self.metrics.evictions.inc()
                        _end(connection, CloseCode.POLICY_VIOLATION, ErrorCode.EVICTED)

    def _close_all(self) -> None:
        """Have every client come back, and resume."""
        for connection in self.connections:
            _end(connection, CloseCode.INTERNAL_ERROR, ErrorCode.INTERNAL)

    @property
    def url(self) -> str:
        """Where clients connect."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"ws://{host}:{self.port}{PATH}"

    async def tidy_up(self) -> None:
        """Let what follows the log catch up, for ever."""
        last_reason: str | None = None
        while True:
            await asyncio.sleep(_TIDY_UP_INTERVAL_S)
            try:
                await self.stores.tidy_up(self._is_waited_for)
                last_reason = None
            except StoreUnavailable as error:
                if str(error) != last_reason:
                    _log.warning("search and traces could not catch up", reason=str(error))
                last_reason = str(error)

    def _is_waited_for(self) -> bool:
        return self.messenger.waiting > 0 or self.enquiries.waiting > 0

    async def _what_is_missing(self) -> str | None:
        if not self.revocations.connected.is_set():
            return "the profile service cannot be reached"
        return None if await self.stores.messages.is_available() else "the database"

    def _read_gauges(self, engines: Engines) -> None:
        gauge = self.metrics.gauge
        gauge(
            "duet_gateway_bus_connected",
            "1 while what other gateways do is heard at once.",
            lambda: float(engines.bus.is_connected),
        )
        gauge("duet_gateway_connections", "WebSockets open.", lambda: self.server.connections)
        gauge("duet_gateway_users", "People with a connection.", lambda: self.connections.users)
        gauge(
            "duet_gateway_commit_waiting_changes",
            "Changes that wait for the next transaction.",
            lambda: self.messenger.waiting,
        )
        gauge(
            "duet_gateway_delivered_messages",
            "Message frames written to connections since the start.",
            lambda: self.connections.frames_delivered,
        )


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
        spare_the_start()
        _log.info("listening", url=gateway.url)
        hint = asyncio.create_task(_say_what_to_do_next(gateway, settings))
        await stop.wait()
        hint.cancel()
        _log.info("stopping", connections=gateway.server.connections)
    _log.info("stopped")


@contextlib.asynccontextmanager
async def serving(
    settings: Settings,
    *,
    profile: ProfileService | None = None,
    now: Callable[[], float] = time.time,
) -> AsyncIterator[Gateway]:
    """Serve while the context lasts; then announce the restart, finish what was taken, and close.

    `profile` stands in for the profile service over HTTP. Raises as `run` does.
    """
    metrics = Metrics()
    async with contextlib.AsyncExitStack() as stack:
        if profile is None:
            credentials = ServiceCredentials(settings.shared_secret(), "ws_gateway")
            client = ProfileClient(
                settings.profile_url, credentials, metrics, timeout_s=settings.profile_timeout_s
            )
            stack.push_async_callback(client.close)
            profile = client
        engines = await stack.enter_async_context(open_engines(settings, metrics))
        gateway = Gateway(settings, engines, profile, metrics, now=now)
        async with _running(gateway, settings.gateway_shutdown_timeout_s):
            if gateway.heartbeat is not None:
                await gateway.heartbeat.beat()
            gateway.host, gateway.port = await gateway.server.start(gateway.host, gateway.port)
            yield gateway


@contextlib.asynccontextmanager
async def _running(gateway: Gateway, shutdown_timeout_s: float) -> AsyncIterator[None]:
    """Run the gateway's tasks; at the end stop them in the order that loses nothing."""
    committer = asyncio.create_task(gateway.messenger.run(), name="committer")
    background = [
        asyncio.create_task(_go_on(part, work)) for part, work in gateway.background.items()
    ]

    async def settled() -> None:
        await gateway.messenger.drain()
        await asyncio.shield(committer)

    try:
        yield
    finally:
        await gateway.server.drain(settled, shutdown_timeout_s)
        for task in background:
            task.cancel()
        await asyncio.gather(*background, return_exceptions=True)
        gateway.messenger.abandon()
        await asyncio.shield(committer)
        if isinstance(gateway.live, Following):
            gateway.live.close()


async def _go_on(part: str, work: Callable[[], Awaitable[None]]) -> None:
    """Begin a part anew when something ends it that nobody thought of: a bug, or a damaged file."""
    while True:
        try:
            await work()
        except Exception:
            _log.exception("a part of the gateway failed, and begins anew", part=part)
        await asyncio.sleep(_BEGIN_ANEW_AFTER_S)


def _end(connection: LiveConnection, code: CloseCode, error: ErrorCode) -> None:
    if isinstance(connection, Connection):
        connection.end(code, error)


def _limits(settings: Settings) -> frames.Limits:
    return frames.Limits(
        max_text_characters=MAX_TEXT_CHARACTERS,
        max_frame_bytes=settings.max_frame_bytes,
        max_connections=settings.max_connections_per_user,
        messages_per_s=settings.messages_per_s,
        message_burst=settings.message_burst,
    )


def _session_limits(settings: Settings) -> SessionLimits:
    return SessionLimits(
        connect_timeout_s=settings.connect_timeout_s,
        expiring_lead_s=settings.expiring_lead_s,
        expiry_grace_s=settings.expiry_grace_s,
        requests=RateLimit(settings.requests_per_s, settings.request_burst),
        messages=RateLimit(settings.messages_per_s, settings.message_burst),
    )


def _server_limits(settings: Settings) -> ServerLimits:
    return ServerLimits(
        allowed_origins=settings.allowed_origins,
        max_connections=settings.max_connections,
        max_connections_per_address=settings.max_connections_per_address,
        trusted_proxies=Networks(settings.gateway_trusted_proxies),
        metrics_networks=Networks(settings.metrics_networks),
        max_frame_bytes=settings.max_frame_bytes,
        handshake_timeout_s=settings.handshake_timeout_s,
        ping_interval_s=settings.ping_interval_s,
        ping_timeout_s=settings.ping_timeout_s,
        close_timeout_s=settings.close_timeout_s,
        outbox=OutboxLimits(settings.outbox_max_bytes, settings.outbox_grace_s),
        received_bytes=RateLimit(
            settings.requests_per_s * _BYTES_PER_REQUEST, settings.max_frame_bytes
        ),
    )


async def _say_what_to_do_next(gateway: Gateway, settings: Settings) -> None:
    await gateway.revocations.connected.wait()
    _log.info(
        "Duet is ready: sign up at the profile service, then connect here (README, first message)",
        profile_service=settings.profile_url,
        gateway=gateway.url,
    )
