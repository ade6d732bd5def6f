"""The gateway's port: the WebSocket endpoint, and health and metrics beside it."""

import asyncio
import collections
import http
import logging
import random
import urllib.parse
from collections.abc import Awaitable, Callable, Sequence
from typing import cast

import msgspec
import structlog
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import NegotiationError
from websockets.http11 import Request, Response
from websockets.typing import Origin, Subprotocol

from shared.client_address import Networks, client_address, counted_as
from ws_gateway.connection import Connection
from ws_gateway.delivery.outbox import Departures, OutboxLimits, SharedBacklog
from ws_gateway.intake import Intake
from ws_gateway.metrics import CONTENT_TYPE
from ws_gateway.protocol import frames
from ws_gateway.protocol.errors import CloseCode
from ws_gateway.protocol.rate_limit import RateLimit
from ws_gateway.protocol.requests import is_token
from ws_gateway.services import ConnectionServices
from ws_gateway.websocket import GatewayWebSocket

__all__ = ["PATH", "GatewayServer", "ServerLimits"]

PATH = "/v1/ws"
SUBPROTOCOL = Subprotocol("duet.v1")

_MAX_CURSOR_CHARACTERS = 128

_log = structlog.get_logger(__name__)


class ServerLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What the endpoint accepts, and how long it waits."""

    allowed_origins: tuple[str, ...]
    max_connections: int
    max_connections_per_address: int
    trusted_proxies: Networks
    metrics_networks: Networks
    max_frame_bytes: int
    handshake_timeout_s: float
    ping_interval_s: float
    ping_timeout_s: float
    close_timeout_s: float
    outbox: OutboxLimits
    received_bytes: RateLimit
    """What is taken from one client."""


class GatewayServer:
    """Accepts connections on one port until it is drained. For one event loop."""

    def __init__(
        self,
        services: ConnectionServices,
        limits: ServerLimits,
        departures: Departures,
        is_ready: Callable[[], Awaitable[str | None]],
    ) -> None:
        """`is_ready` returns what is missing, or nothing when the gateway can serve."""
        self._services = services
        self._limits = limits
        self._departures = departures
        self._is_ready = is_ready
        self._open: set[Connection] = set()
        self._opening: set[GatewayWebSocket] = set()
        self._by_address: collections.Counter[str] = collections.Counter()
        self._draining = False
        self._server: Server | None = None

    @property
    def connections(self) -> int:
        """How many WebSockets are open, verified or not."""
        return len(self._open)

    async def start(self, host: str, port: int) -> tuple[str, int]:
        """Listen. Returns the address that was bound.

        Raises:
            OSError: the address is in use, or not this machine's.
        """
        limits = self._limits

        class WebSocket(GatewayWebSocket):
            __slots__ = ()

        WebSocket.limits, WebSocket.backlog = limits.outbox, SharedBacklog()
        WebSocket.departures = self._departures
        WebSocket.opening = self._opening
        WebSocket.intake = Intake(asyncio.get_running_loop())
        WebSocket.received_bytes = limits.received_bytes
        self._server = await serve(
            cast("Callable[[ServerConnection], Awaitable[None]]", self._handle),
            host,
            port,
            origins=[None, *map(Origin, limits.allowed_origins)],
            subprotocols=[SUBPROTOCOL],
            select_subprotocol=_select_subprotocol,
            compression=None,  # 50 KB a connection, and a way to make us unpack bombs
            process_request=self._process_request,
            server_header=None,
            open_timeout=limits.handshake_timeout_s,
            ping_interval=limits.ping_interval_s,
            ping_timeout=limits.ping_timeout_s,
            close_timeout=limits.close_timeout_s,
            max_size=limits.max_frame_bytes,
            max_queue=16,
            write_limit=limits.outbox.max_buffered_bytes,
            logger=_library_logger(),
            create_connection=WebSocket,
            backlog=1024,
        )
        bound = self._server.sockets[0].getsockname()
        return bound[0], bound[1]

    async def drain(self, settled: Callable[[], Awaitable[None]], timeout_s: float) -> None:
        """Announce the restart, let `settled` finish what was taken, then close every connection.

        Whoever has not closed by `timeout_s` is aborted; this returns at most a second later.
        """
        self._draining = True
        if self._server is None:
            return
        deadline = asyncio.get_running_loop().time() + timeout_s
        self._server.close(close_connections=False)
        for connection in list(self._open):
            retry_after_ms = random.randint(500, 3000)  # noqa: S311 - spreads the reconnects
            connection.send(frames.Draining(retry_after_ms=retry_after_ms))
        try:
            async with asyncio.timeout_at(
                deadline - min(self._limits.close_timeout_s, timeout_s) / 2
            ):
                await settled()
        except TimeoutError:
            _log.error("the store did not finish in time; what waited was not acknowledged")
        for connection in list(self._open):
            connection.end(CloseCode.SERVICE_RESTART, reason="restarting")
        for unfinished in list(self._opening):  # or one that says nothing is waited for to the end
            unfinished.transport.close()
        try:
            async with asyncio.timeout_at(deadline):
                await self._server.wait_closed()
        except TimeoutError:
            stuck = [*self._server.all_connections, *self._opening]
            _log.warning("aborting connections that did not close", count=len(stuck))
            for websocket in stuck:
                websocket.transport.abort()
            try:
                async with asyncio.timeout(1):
                    await self._server.wait_closed()
            except TimeoutError:
                _log.warning("left without waiting for the last handlers")

    async def _handle(self, websocket: GatewayWebSocket) -> None:
        websocket.forget_handshake()
        connection = Connection(websocket, self._services)
        self._open.add(connection)
        address = websocket.counted_as
        if address is not None:
            self._by_address[address] += 1
        try:
            await connection.run()
        finally:
            self._open.discard(connection)
            if address is not None:
                self._by_address[address] -= 1
                if not self._by_address[address]:
                    del self._by_address[address]

    async def _process_request(
        self, websocket: ServerConnection, request: Request
    ) -> Response | None:
        response = await self._answer(websocket, request)
        if response is not None and request.method == "HEAD":
            response.body = b""  # `Content-Length` says what GET would bring
        return response

    async def _answer(self, websocket: ServerConnection, request: Request) -> Response | None:
        path = request.path.partition("?")[0]
        if request.method not in ("GET", "HEAD"):
            return _plain(http.HTTPStatus.METHOD_NOT_ALLOWED, "Use GET.\n", Allow="GET")
        if path == PATH:
            if request.method == "HEAD":  # the library would answer that GET is the only method
                return _plain(
                    http.HTTPStatus.UPGRADE_REQUIRED,
                    "Use a WebSocket client.\n",
                    Upgrade="websocket",
                )
            return self._process_upgrade(cast(GatewayWebSocket, websocket), request)
        if path == "/healthz":
            return _plain(http.HTTPStatus.OK, "ok\n")
        if path == "/readyz":
            missing = "restarting" if self._draining else await self._is_ready()
            if missing is None:
                return _plain(http.HTTPStatus.OK, "ready\n")
            return _plain(http.HTTPStatus.SERVICE_UNAVAILABLE, f"not ready: {missing}\n")
        if path == "/metrics" and self._may_see_metrics(websocket, request):
            body = self._services.metrics.exposition()
            return _response(http.HTTPStatus.OK, body, CONTENT_TYPE)
        return _plain(http.HTTPStatus.NOT_FOUND, f"The WebSocket endpoint is {PATH}\n")

    def _may_see_metrics(self, websocket: ServerConnection, request: Request) -> bool:
        """Whoever comes through a proxy comes from outside, whatever the proxy's own address is."""
        is_direct = not request.headers.get_all("X-Forwarded-For")
        return is_direct and websocket.remote_address[0] in self._limits.metrics_networks

    def _process_upgrade(self, websocket: GatewayWebSocket, request: Request) -> Response | None:
        if self._draining or len(self._open) >= self._limits.max_connections:
            return _busy("Try again later.\n")
        websocket.counted_as = counted_as(
            client_address(
                websocket.remote_address[0],
                request.headers.get_all("X-Forwarded-For"),
                self._limits.trusted_proxies,
            )
        )
        if self._by_address[websocket.counted_as or ""] >= self._limits.max_connections_per_address:
            return _busy("Too many connections from your address. Try again later.\n")
        offered = request.headers.get_all("Authorization")
        if offered:
            scheme, _, token = offered[0].partition(" ")
            del request.headers["Authorization"]
            token = token.strip()
            if len(offered) > 1 or scheme.lower() != "bearer" or not is_token(token):
                return _plain(
                    http.HTTPStatus.UNAUTHORIZED,
                    "Authorization must be: Bearer <access token>\n",
                    **{"WWW-Authenticate": "Bearer"},
                )
            websocket.authorization = token
            cursors = urllib.parse.parse_qs(request.path.partition("?")[2]).get("resume", [])
            websocket.resume = cursors[0][:_MAX_CURSOR_CHARACTERS] if cursors else None
        return None


def _select_subprotocol(
    _websocket: ServerConnection, offered: Sequence[Subprotocol]
) -> Subprotocol | None:
    """Speak `duet.v1` to who offers it, and to who offers nothing, as tools for people do."""
    if not offered:
        return None
    if SUBPROTOCOL in offered:
        return SUBPROTOCOL
    raise NegotiationError(f"the subprotocol is {SUBPROTOCOL}")


def _plain(status: http.HTTPStatus, text: str, **headers: str) -> Response:
    return _response(status, text.encode(), "text/plain; charset=utf-8", **headers)


def _busy(text: str) -> Response:
    return _plain(http.HTTPStatus.SERVICE_UNAVAILABLE, text, **{"Retry-After": "2"})


def _response(status: http.HTTPStatus, body: bytes, content_type: str, **headers: str) -> Response:
    fields = Headers(
        {
            "Content-Type": content_type,
            "Content-Length": str(len(body)),
            "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff",
            "Connection": "close",
            **headers,
        }
    )
    return Response(status.value, status.phrase, fields, body)


def _library_logger() -> logging.Logger:
    """The logger for `websockets`: its INFO is a line for each connection, its errors carry
    tracebacks of whatever a client did on the wire. Closes are counted in the metrics instead."""
    logger = logging.getLogger("ws_gateway.websockets")
    logger.addFilter(_without_client_faults)
    return logger


def _without_client_faults(record: logging.LogRecord) -> bool:
    return record.levelno > logging.INFO and record.exc_info is None
