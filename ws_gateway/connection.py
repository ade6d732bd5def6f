"""One client's connection: its session's actions become I/O, and I/O its input."""

import asyncio
import time
from collections.abc import Callable

import structlog
from websockets.exceptions import ConnectionClosed

from shared.ids import ConnectionId, new_connection_id
from shared.introspection import TokenPair
from ws_gateway.delivery.connection_map import ConnectionMap
from ws_gateway.identity import Identity
from ws_gateway.messenger import Messenger
from ws_gateway.metrics import Metrics
from ws_gateway.ports import IdentityVerifier, ProfileServiceUnavailable
from ws_gateway.protocol import codec, frames
from ws_gateway.protocol.cursor import Cursors
from ws_gateway.protocol.errors import CloseCode, ErrorCode
from ws_gateway.protocol.session import (
    Action,
    Authenticate,
    Close,
    Renew,
    Reply,
    Session,
    SessionLimits,
    Submit,
)
from ws_gateway.protocol.wire import text_frame
from ws_gateway.revocations import RevocationWatch
from ws_gateway.websocket import GatewayWebSocket

__all__ = ["Connection", "ConnectionServices"]

_RETRY_AFTER_MS = 2000
_MAX_UNANSWERED = 512
"""Drafts of one connection that may wait for their answer before it is read no further."""
_COUNTED_CLOSES = frozenset([*CloseCode, 1002])

_log = structlog.get_logger(__name__)


class ConnectionServices:
    """What every connection of a gateway works with."""

    def __init__(
        self,
        *,
        verifier: IdentityVerifier,
        messenger: Messenger,
        connections: ConnectionMap,
        revocations: RevocationWatch,
        cursors: Cursors,
        metrics: Metrics,
        limits: frames.Limits,
        session_limits: SessionLimits,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.verifier = verifier
        self.messenger = messenger
        self.connections = connections
        self.revocations = revocations
        self.cursors = cursors
        self.metrics = metrics
        self.limits = limits
        self.session_limits = session_limits
        self.now = now


class Connection:
    """Lives from handshake to close. `run` returns when the WebSocket is closed.

    For one event loop. Every method but `run` returns at once.
    """

    def __init__(self, websocket: GatewayWebSocket, services: ConnectionServices) -> None:
        self.connection_id: ConnectionId = new_connection_id()
        self._websocket = websocket
        self._services = services
        self._session = Session(services.session_limits, services.now())
        self._timer: asyncio.TimerHandle | None = None
        self._renewals: set[asyncio.Task[None]] = set()
        self._unanswered = 0

    @property
    def identity(self) -> Identity:
        """Who this connection belongs to. Only once it is verified."""
        if self._session.identity is None:
            raise AssertionError("the connection is not verified")
        return self._session.identity

    async def run(self) -> None:
        """Serve until the connection is closed. This never raises for what a client does."""
        self._set_timer()
        try:
            if self._websocket.authorization is not None:
                await self._perform(self._session.present(self._websocket.authorization))
            while True:
                raw = await self._websocket.recv()
                if isinstance(raw, bytes):
                    action: Action | None = self._session.receive_binary()
                else:
                    action = self._session.receive(raw)
                await self._perform(action)
        except ConnectionClosed:
            pass
        finally:
            self._ended()

    def deliver(self, wire: bytes) -> None:
        """Send wire bytes of whole frames."""
        self._websocket.write(wire)

    def answer(self, frame: frames.Ack | frames.Error) -> None:
        """Answer one submitted draft."""
        self._unanswered -= 1
        if self._unanswered == _MAX_UNANSWERED // 2:
            self._websocket.resume_reading()
        self._websocket.write(text_frame(codec.encode(frame)))

    def end(self, code: CloseCode, error: ErrorCode | None = None, reason: str = "") -> None:
        """Close the connection because the gateway wants it."""
        action = self._session.end(code, error, reason)
        if action is not None:
            self._close(action)

    def announce(self, frame: frames.ServerFrame) -> None:
        """Send a frame that answers nothing."""
        self._websocket.write(text_frame(codec.encode(frame)))

    async def _perform(self, action: Action | None) -> None:
        """Do what the session wants; only checking tokens takes time, and reading waits for it."""
        if isinstance(action, Authenticate):
            await self._authenticate(action)
        else:
            self._perform_now(action)

    def _perform_now(self, action: Action | None) -> None:
        match action:
            case Submit(draft):
                self._unanswered += 1
                if self._unanswered == _MAX_UNANSWERED:
                    self._websocket.pause_reading()
                self._services.messenger.submit(draft, self)
            case Reply(frame):
                self.announce(frame)
            case Renew():
                renewal = self._websocket.loop.create_task(self._renew(action))
                self._renewals.add(renewal)
                renewal.add_done_callback(self._renewals.discard)
            case Close():
                self._close(action)
            case Authenticate() | None:
                pass

    def _on_text(self, raw: bytes | bytearray) -> None:
        """Take a text frame straight from the socket's callback, where nothing may be raised."""
        try:
            self._perform_now(self._session.receive(raw))
        except Exception:
            _log.exception("handling a frame failed", connection_id=self.connection_id)
            self.end(CloseCode.INTERNAL_ERROR, ErrorCode.INTERNAL)

    async def _authenticate(self, action: Authenticate) -> None:
        services = self._services
        self._set_timer()
        try:
            identity = await services.verifier.verify(
                TokenPair(action.access_token, action.refresh_token)
            )
        except ProfileServiceUnavailable:
            services.metrics.handshakes.labels("unverifiable").inc()
            self._close(self._session.not_verifiable(_RETRY_AFTER_MS))
            return
        if identity is None or services.revocations.has_ended(identity):
            services.metrics.handshakes.labels("refused").inc()
            self._close(self._session.refused())
        elif self._websocket.is_open:
            services.metrics.handshakes.labels("accepted").inc()
            self._accept(identity)

    def _accept(self, identity: Identity) -> None:
        """Join the ConnectionMap and confirm. No await in between: no message can slip through."""
        services = self._services
        self._session.verified(identity)
        evicted = services.connections.add(self)
        if isinstance(evicted, Connection):
            services.metrics.evictions.inc()
            evicted.end(CloseCode.POLICY_VIOLATION, ErrorCode.EVICTED)
        self.announce(
            frames.Connected(
                connection_id=self.connection_id,
                user=frames.ConnectedUser(identity.user_id, identity.username),
                expires_at=codec.timestamp(int(identity.expires_at * 1000)),
                cursor=services.cursors.encode(services.messenger.published_position),
                limits=services.limits,
                tokens=identity.tokens,
            )
        )
        self._websocket.on_text = self._on_text
        self._set_timer()

    async def _renew(self, action: Renew) -> None:
        services = self._services
        identity, verifiable = None, True
        try:
            identity = await services.verifier.verify(TokenPair(action.access_token))
        except ProfileServiceUnavailable:
            verifiable = False
        if identity is None or services.revocations.has_ended(identity):
            result: Action | None = self._session.not_renewed(
                action.request_id, verifiable=verifiable
            )
        else:
            result = self._session.renewed(action.request_id, identity)
        self._perform_now(result)
        self._set_timer()

    def _close(self, action: Close) -> None:
        if action.frame is not None:
            self.announce(action.frame)
        self._websocket.begin_close(action.code, action.reason)
        if self._session.identity is not None:
            self._services.connections.remove(self)

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        deadline = self._session.deadline
        if deadline is not None:
            delay_s = max(0.0, deadline - self._services.now())
            self._timer = self._websocket.loop.call_later(delay_s, self._wake)

    def _wake(self) -> None:
        self._timer = None
        self._perform_now(self._session.wake(self._services.now()))
        self._set_timer()

    def _ended(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        for renewal in self._renewals:
            renewal.cancel()
        self._websocket.on_text = None
        if self._session.identity is not None:
            self._services.connections.remove(self)
        received, sent = self._websocket.close_codes()
        metrics = self._services.metrics
        metrics.closes.labels(_close_label(sent or received)).inc()
        if self._websocket.aborted_slow:
            metrics.slow_readers.inc()
            _log.info("aborted a connection that fell behind", connection_id=self.connection_id)


def _close_label(code: int | None) -> str:
    """Name a close code in the metrics; clients must not make up label values."""
    if code is None:
        return "1006"
    return str(code) if code in _COUNTED_CLOSES else "other"
