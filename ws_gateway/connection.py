"""One client's connection: its session's actions become I/O, and I/O its input."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import structlog
from websockets.exceptions import ConnectionClosed

from shared.ids import ConnectionId, UserId, new_connection_id
from shared.introspection import TokenPair
from ws_gateway.delivery.replay import Replay
from ws_gateway.enquiry_queue import EnquiryQueue
from ws_gateway.identity import Identity
from ws_gateway.ports import (
    ProfileServiceUnavailable,
    StoreUnavailable,
)
from ws_gateway.protocol import codec, frames
from ws_gateway.protocol.actions import (
    Action,
    Ask,
    Authenticate,
    Close,
    Renew,
    Reply,
    Rest,
    Submit,
    Type,
    error_frame,
)
from ws_gateway.protocol.cursor import ForeignCursor
from ws_gateway.protocol.errors import CloseCode, ErrorCode
from ws_gateway.protocol.session import Session
from ws_gateway.protocol.timestamps import timestamp
from ws_gateway.protocol.wire import text_frame
from ws_gateway.services import ConnectionServices
from ws_gateway.websocket import GatewayWebSocket, Pause

__all__ = ["Connection"]

_RETRY_AFTER_MS = 2000
_REST_S = 0.25
_MAX_UNANSWERED = 512
"""Changes of one connection that may wait for their answer before it is read no further: so many,
or one when much waits in all. A disk that stands still slows people down, and refuses nobody."""

_log = structlog.get_logger(__name__)


class Connection:
    """Lives from handshake to close. `run` returns when the WebSocket is closed.

    For one event loop. Every method but `run` returns at once.
    """

    __slots__ = (
        "_enquiries",
        "_follows",
        "_is_held",
        "_replay",
        "_replayed_to",
        "_resting",
        "_services",
        "_session",
        "_tasks",
        "_timer",
        "_unanswered",
        "_websocket",
        "connection_id",
    )

    def __init__(self, websocket: GatewayWebSocket, services: ConnectionServices) -> None:
        self.connection_id: ConnectionId = new_connection_id()
        self._websocket = websocket
        self._services = services
        self._session = Session(services.session_limits, services.now())
        self._timer: asyncio.TimerHandle | None = None
        self._resting: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._replay: Replay | None = None
        self._replayed_to = 0
        """A replay may read what is committed before it is published: that is not sent twice."""
        self._enquiries = EnquiryQueue(
            services.enquiries,
            self.connection_id,
            self.send,
            websocket.drained,
            websocket.outbox.pacing,
        )
        self._unanswered = 0
        self._is_held = False
        self._follows = False

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
                await self._perform(
                    self._session.present(self._websocket.authorization, self._websocket.resume)
                )
            while True:
                raw = await self._websocket.recv()
                if isinstance(raw, bytes):
                    action: Action | None = self._session.receive_binary()
                else:
                    action = self._session.receive(raw, self._services.now())
                await self._perform(action)
        except ConnectionClosed:
            pass
        except Exception as error:
            self._fail("serving a connection failed", error)
        finally:
            self._ended()

    def deliver(self, wire: bytes, position: int | None) -> None:
        """Send wire bytes of a whole frame; while a replay runs, after it."""
        if self._replay is not None:
            self._replay.hold(wire, position)
        elif position is None or position > self._replayed_to:
            self._websocket.write(wire)

    def deliver_ephemeral(self, wire: bytes) -> None:
        """Send wire bytes that may be lost."""
        if self._replay is None and self._websocket.is_open:
            self._websocket.outbox.write_ephemeral(wire)

    def answer(self, frame: frames.ServerFrame) -> None:
        """Answer one submitted change."""
        self._unanswered -= 1
        if self._is_held and (
            self._unanswered == 0
            or (self._unanswered <= _MAX_UNANSWERED // 2 and self._services.messenger.has_room)
        ):
            self._is_held = False
            self._websocket.resume_reading(Pause.UNANSWERED)
        self._websocket.write(text_frame(codec.encode(frame)))

    def end(self, code: CloseCode, error: ErrorCode | None = None, reason: str = "") -> None:
        """Close the connection because the gateway wants it."""
        action = self._session.end(code, error, reason)
        if action is not None:
            self._close(action)

    def send(self, frame: frames.ServerFrame) -> None:
        """Send a frame."""
        self._websocket.write(text_frame(codec.encode(frame)))

    async def _perform(self, action: Action | None) -> None:
        """Do what the session wants; only checking tokens takes time, and reading waits for it."""
        if isinstance(action, Authenticate):
            await self._authenticate(action)
        else:
            self._perform_now(action)

    def _perform_now(self, action: Action | None) -> None:
        if isinstance(action, Submit):  # nearly always, and a pattern costs twenty times as much
            self._unanswered += 1
            may_go_on = self._services.messenger.submit(action.change, self)
            if not may_go_on or self._unanswered >= _MAX_UNANSWERED:
                self._hold()
            return
        match action:
            case Reply(frame):
                self.send(frame)
            case Rest(frame):
                if frame is not None:
                    self.send(frame)
                self._rest()
            case Ask(enquiry):
                if self._enquiries.put(self.identity.user_id, enquiry):
                    self._start(self._enquiries.work_off())
            case Type(to, active):
                self._services.presence.typing(self.identity.user_id, to, active)
            case Renew():
                self._start(self._renew(action))
            case Close():
                self._close(action)
            case Authenticate() | None:
                pass

    def _on_text(self, raw: bytes | bytearray) -> None:
        """Take a text frame straight from the socket's callback, where nothing may be raised."""
        try:
            self._perform_now(self._session.receive(raw, self._services.now()))
        except Exception as error:
            self._fail("handling a frame failed", error)

    def _on_ping(self) -> None:
        """Count a ping, which the library answers by itself."""
        self._perform_now(self._session.receive_ping(self._services.now()))

    def _fail(self, what: str, error: BaseException) -> None:
        """Say that something went wrong here: to us what it was, to the client that it may retry.

        The library's logger is no help: it cannot tell our faults from its clients'.
        """
        _log.error(what, connection_id=self.connection_id, exc_info=error)
        self.end(CloseCode.INTERNAL_ERROR, ErrorCode.INTERNAL)

    async def _authenticate(self, action: Authenticate) -> None:
        services = self._services
        self._set_timer()
        try:
            identity = await services.verifier.verify(
                TokenPair(action.access_token, action.refresh_token)
            )
        except ProfileServiceUnavailable as error:
            services.metrics.connects.labels("unverifiable").inc()
            asked_for = error.retry_after_s
            after_ms = _RETRY_AFTER_MS if asked_for is None else int(asked_for * 1000)
            self._close(self._session.not_verifiable(after_ms))
            return
        if identity is None:
            self._refuse()
        else:
            await self._follow(identity, action.resume)

    def _refuse(self) -> None:
        self._services.metrics.connects.labels("refused").inc()
        self._close(self._session.refused())

    async def _follow(self, identity: Identity, resume: str | None) -> None:
        """Have the user's log followed here, and find out where the client stands in it."""
        services = self._services
        try:
            await services.live.follow(identity.user_id)
        except StoreUnavailable:
            self.end(CloseCode.TRY_AGAIN_LATER, ErrorCode.STORE_UNAVAILABLE)
            return
        try:
            after = await self._resume_after(identity.user_id, resume)
            if services.revocations.has_ended(identity):
                self._refuse()
            elif self._websocket.is_open:
                self._follows = True
                services.metrics.connects.labels("accepted").inc()
                self._accept(identity, resume, after)
        except StoreUnavailable:
            self.end(CloseCode.TRY_AGAIN_LATER, ErrorCode.STORE_UNAVAILABLE)
        finally:
            if not self._follows:
                services.live.unfollow(identity.user_id)

    def _accept(self, identity: Identity, resume: str | None, after: int | None) -> None:
        """Join the ConnectionMap and confirm. No await in between: no message can slip through."""
        services = self._services
        self._session.verified(identity, services.bucket_of(identity.user_id), services.now())
        evicted = services.connections.add(self)
        if isinstance(evicted, Connection):
            services.metrics.evictions.inc()
            evicted.end(CloseCode.POLICY_VIOLATION, ErrorCode.EVICTED)
        here = services.cursors.encode(services.live.position_of(identity.user_id))
        self.send(
            frames.Connected(
                connection_id=self.connection_id,
                user=frames.ConnectedUser(identity.user_id, identity.username),
                expires_at=timestamp(int(identity.expires_at * 1000)),
                cursor=here if after is None else services.cursors.encode(after),
                limits=services.limits,
                tokens=identity.tokens,
            )
        )
        if after is not None:
            self._replay = Replay(services.store, services.rendering, identity.user_id)
            self._start(self._resume(self._replay, after))
        elif resume is not None:
            self.send(frames.Resync(here))
        services.presence.joined(identity.user_id, self.connection_id)
        if after is None:
            services.presence.greet(self)
        self._websocket.on_text, self._websocket.on_ping = self._on_text, self._on_ping
        self._set_timer()

    async def _resume_after(self, user_id: UserId, resume: str | None) -> int | None:
        if resume is None:
            return None
        try:
            position = self._services.cursors.decode(resume)
        except ForeignCursor:
            return None
        return position if position <= await self._services.store.position_of(user_id) else None

    async def _resume(self, replay: Replay, after: int) -> None:
        websocket, services = self._websocket, self._services
        with websocket.outbox.pacing():
            try:
                self._replayed_to = await replay.run(
                    after, websocket.write, websocket.drained, lambda: int(services.now() * 1000)
                )
            except StoreUnavailable:
                self.send(error_frame(ErrorCode.STORE_UNAVAILABLE, retry_after_ms=_RETRY_AFTER_MS))
                self.end(CloseCode.TRY_AGAIN_LATER)
                return
            self._replay = None
            self.send(frames.Resumed(services.cursors.encode(self._replayed_to)))
            services.presence.greet(self)  # while the log was replayed, that was not told
            await websocket.drained()

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
            result = self._session.renewed(action.request_id, identity, services.now())
        self._perform_now(result)
        self._set_timer()

    def _hold(self) -> None:
        """Read no further until enough is answered."""
        if not self._is_held:
            self._is_held = True
            self._websocket.pause_reading(Pause.UNANSWERED)

    def _rest(self) -> None:
        """Leave a client that is too fast unread for a moment: refusing costs as much as serving,
        and everybody else would wait for it."""
        if self._resting is None:
            self._websocket.pause_reading(Pause.TOO_FAST)
            self._resting = self._websocket.loop.call_later(_REST_S, self._rested)

    def _rested(self) -> None:
        self._resting = None
        self._websocket.resume_reading(Pause.TOO_FAST)

    def _start(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Run a task that ends with the connection."""
        task = self._websocket.loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._task_ended)

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._fail("a connection's task failed", error)

    def _close(self, action: Close) -> None:
        if action.frame is not None:
            self.send(action.frame)
        self._websocket.begin_close(action.code, action.reason)
        self._leave()

    def _leave(self) -> None:
        identity, services = self._session.identity, self._services
        if identity is not None and self._follows:
            self._follows = False
            services.live.unfollow(identity.user_id)
            was_last = services.connections.remove(self)
            services.presence.left(identity.user_id, self.connection_id, was_last=was_last)

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
        for timer in (self._timer, self._resting):
            if timer is not None:
                timer.cancel()
        for task in self._tasks:
            task.cancel()
        self._websocket.on_text = self._websocket.on_ping = None
        self._leave()
        received, sent = self._websocket.close_codes()
        metrics = self._services.metrics
        metrics.closed(sent or received)
        if self._websocket.aborted_slow:
            metrics.slow_readers.inc()
            _log.info("aborted a connection that fell behind", connection_id=self.connection_id)
