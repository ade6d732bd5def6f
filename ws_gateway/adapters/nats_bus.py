"""The message bus between gateways: core NATS, a subject for each user.

Nothing here is kept, and nothing waits for NATS: the store has the truth. What could not be sent
while NATS was away, or may have been lost just before that showed, is told once it is back, in
short: whose log to look at, and the last receipt and presence of each.

The library's own reconnecting is not used: after some faults it gives up, and a network that is cut
shows too late. A connection that is lost is abandoned, and a new one made.
"""

import asyncio
import collections
import contextlib
import random
import re
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any

import structlog
from nats import errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from shared.batching import Batcher
from shared.ids import UserId
from ws_gateway.adapters.notice_codec import decode, encode, payloads
from ws_gateway.conversations import (
    Evicted,
    Look,
    Notice,
    PeersChanged,
    PresenceNotice,
    Published,
    Receipt,
    SettingChanged,
    TypingNotice,
)
from ws_gateway.metrics import Metrics
from ws_gateway.ports.bus import Receiver

__all__ = ["NatsBus"]

_SUBJECT = "duet.user."
_NAMES_A_SUBJECT = re.compile(r"[A-Za-z0-9_-]+").fullmatch
_MAX_OUTGOING_BYTES = 16 * 1024 * 1024
_MAX_UNTOLD = 100_000
_MAX_BACKOFF_S = 2.0
_LISTEN_TIMEOUT_S = 1.0
_FAULTS = (errors.Error, OSError, RuntimeError, AttributeError, ValueError)
"""What the library raises when a connection goes at the wrong moment."""

_log = structlog.get_logger(__name__)


class _Link:
    """One connection to NATS, from its beginning to its loss."""

    def __init__(self, timeout_s: float) -> None:
        self.client = Client()
        self.lost: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()
        """Says why, when the connection fails."""
        self.cause: Exception | None = None
        """What the library reported last: what it raises may hide it."""
        self._timeout_s = timeout_s
        self._round_trips: Batcher[None, None] = Batcher(self._ping, max_batch=1_000_000)

    async def connect(self, servers: list[str]) -> None:
        async def failed(error: Exception) -> None:
            self.cause = error
            if self.client.is_connected:  # else `connect` says so
                self.fail(error)

        async def closed() -> None:
            self.fail(errors.ConnectionClosedError())

        await self.client.connect(
            servers,
            name="duet gateway",
            no_echo=True,
            allow_reconnect=False,
            max_reconnect_attempts=1,
            reconnect_time_wait=0,
            connect_timeout=self._timeout_s,  # type: ignore[arg-type]
            ping_interval=3600,  # ours is stricter
            error_cb=failed,
            closed_cb=closed,
        )
        is_encrypted = self._writer().get_extra_info("sslcontext") is not None
        if servers[0].startswith("tls:") and not is_encrypted:
            raise errors.Error("the server does not speak TLS")

    async def round_trip(self) -> None:
        """Wait for an answer of the server; those who do so at the same time share one."""
        await self._round_trips.submit(None)

    def fail(self, error: Exception) -> None:
        if not self.lost.done():
            self.lost.set_result(error)

    async def abandon(self) -> None:
        """Close it; without a word when the network is cut, for then the library would wait."""
        with contextlib.suppress(*_FAULTS, TimeoutError):
            async with asyncio.timeout(1):
                await self.client.close()
        with contextlib.suppress(AttributeError):  # it has not come so far
            self._writer().transport.abort()

    def _writer(self) -> asyncio.StreamWriter:
        writer: asyncio.StreamWriter = self.client._transport._io_writer  # type: ignore[union-attr]
        return writer

    async def _ping(self, questions: Sequence[None]) -> Sequence[None]:
        # Not `flush`: that returns at once when the library's reading task has died.
        try:
            await self.client.rtt(self._timeout_s)  # type: ignore[arg-type]
        except _FAULTS as error:
            self.fail(error)
            raise
        return questions


class _Inbox(asyncio.Future[Msg]):
    """Takes the messages of every subscription, in the library's reading task itself.

    A callback would cost a task and a queue each, and a change of tasks for each message (ADR 18).
    """

    def __init__(self, take: Callable[[Msg], None]) -> None:
        super().__init__()
        self._take = take

    def set_result(self, result: Msg) -> None:
        self._take(result)


class NatsBus:
    """A `UserBus` over NATS. For one event loop; `run` must be running.

    `keepalive_s` and `timeout_s` say how soon a connection that says nothing is given up.
    """

    def __init__(
        self,
        servers: Sequence[str],
        metrics: Metrics,
        *,
        keepalive_s: float = 2.0,
        timeout_s: float = 3.0,
    ) -> None:
        self._servers = list(servers)
        self._metrics = metrics
        self._keepalive_s = keepalive_s
        self._timeout_s = timeout_s
        self._receivers: list[Receiver] = []
        self._watchers: list[Callable[[], None]] = []
        self._link: _Link | None = None
        """While it is connected and every user is listened for."""
        self._inbox = _Inbox(self._take)
        self._listened: dict[UserId, Subscription | None] = {}
        self._ignored: list[Subscription] = []
        self._outgoing: collections.deque[tuple[UserId, bytes]] = collections.deque()
        self._outgoing_bytes = 0
        self._wake = asyncio.Event()
        self._untold: dict[Hashable, tuple[UserId, Notice]] = {}
        """In short, what was told since the server answered last, or not told."""
        self._hardly_told: dict[Hashable, tuple[UserId, Notice]] = {}
        """What was told between its last two answers: a ping may overtake what was told before."""

    @property
    def is_connected(self) -> bool:
        """Whether NATS answered lately, and knows of whom to send us news."""
        return self._link is not None

    def publish(self, notices: Sequence[Notice]) -> None:
        """Hand the notices to every receiver here, and send them to every gateway they concern."""
        for receive in self._receivers:
            receive(notices)
        by_viewer: dict[UserId, list[bytes]] = {}
        for notice in notices:
            encoded = b""
            for viewer in _viewers(notice):
                if not _NAMES_A_SUBJECT(viewer):
                    continue  # somebody's invention; nobody has such an id
                encoded = encoded or encode(notice)
                by_viewer.setdefault(viewer, []).append(encoded)
                self._note(viewer, notice)
        for viewer, encoded_notices in by_viewer.items():
            self._send(viewer, encoded_notices)

    def subscribe(self, receive: Receiver) -> None:
        """Add a receiver."""
        self._receivers.append(receive)

    def watch(self, changed: Callable[[], None]) -> None:
        """Add somebody who is told of changes."""
        self._watchers.append(changed)

    async def listen(self, user_id: UserId) -> None:
        """Subscribe for a user; see `UserBus`."""
        if user_id in self._listened or not _NAMES_A_SUBJECT(user_id):
            return
        self._listened[user_id] = None
        link = self._link
        if link is None:
            return
        try:
            async with asyncio.timeout(_LISTEN_TIMEOUT_S):
                await self._subscribe(link, user_id)
                await link.round_trip()
        except (*_FAULTS, TimeoutError) as error:
            _log.debug("listening for a user has to wait", reason=repr(error))

    def ignore(self, user_id: UserId) -> None:
        """Unsubscribe for a user, soon."""
        subscription = self._listened.pop(user_id, None)
        if subscription is not None and self._link is not None:
            self._ignored.append(subscription)
            self._wake.set()

    async def run(self) -> None:
        """Stay connected, for ever."""
        failures = 0
        while True:
            link = _Link(self._timeout_s)
            try:
                reason = await self._serve(link)
                failures = 0
            except Exception as error:  # whatever the library stumbles over, the bus must be back
                reason = repr(link.cause or error)
            finally:
                await link.abandon()
            if failures == 0:
                _log.warning("NATS is away; news of other gateways come late", reason=reason)
            longest_s = min(_MAX_BACKOFF_S, 0.1 * 2**failures)
            failures = min(failures + 1, 16)
            await asyncio.sleep(random.uniform(longest_s / 2, longest_s))  # noqa: S311

    async def flush(self) -> None:
        """Wait until the server has what was published, for a second at most."""
        with contextlib.suppress(*_FAULTS, TimeoutError):
            async with asyncio.timeout(1):
                while self._link is not None and self._outgoing:
                    await self._link.round_trip()
                if self._link is not None:
                    await self._link.round_trip()

    async def _serve(self, link: _Link) -> str:
        """Connect and be connected. Returns why that ended; raises when it did not begin."""
        async with asyncio.timeout(2 * self._timeout_s):
            await link.connect(self._servers)
            await self._subscribe_all(link)
            await link.round_trip()
        self._found(link)
        work: list[asyncio.Task[None]] = [
            asyncio.create_task(self._send_outgoing(link)),
            asyncio.create_task(self._keep_alive(link)),
        ]
        try:
            ended: list[asyncio.Future[Any]] = [link.lost, *work]
            await asyncio.wait(ended, return_when=asyncio.FIRST_COMPLETED)
            failed = [repr(task.exception()) for task in work if task.done()]
            return failed[0] if failed else repr(link.lost.result())
        finally:
            self._lost()
            for task in work:
                task.cancel()
                task.add_done_callback(_retrieve_exception)

    async def _subscribe_all(self, link: _Link) -> None:
        self._listened = dict.fromkeys(self._listened)
        while missing := [u for u, subscription in self._listened.items() if subscription is None]:
            for user_id in missing:
                await self._subscribe(link, user_id)

    async def _subscribe(self, link: _Link, user_id: UserId) -> None:
        subscription = await link.client.subscribe(_SUBJECT + user_id, future=self._inbox)
        if user_id in self._listened and self._listened[user_id] is None:
            self._listened[user_id] = subscription
        else:
            self._ignored.append(subscription)
            self._wake.set()

    def _found(self, link: _Link) -> None:
        self._link = link
        _log.info("NATS is connected", users=len(self._listened))
        untold, self._untold = self._untold, {}
        for viewer, notice in untold.values():
            self._note(viewer, notice)
            self._send(viewer, [encode(notice)])
        for changed in self._watchers:
            changed()

    def _lost(self) -> None:
        self._link = None
        self._untold = {**self._hardly_told, **self._untold}
        self._hardly_told = {}
        self._metrics.bus_dropped.inc(len(self._outgoing))
        self._outgoing.clear()
        self._outgoing_bytes = 0
        self._ignored.clear()
        for changed in self._watchers:
            changed()

    def _note(self, viewer: UserId, notice: Notice) -> None:
        """Remember, in short, what this person was told, or not: until NATS has answered twice."""
        key: Hashable
        match notice:
            case Published() | Look():
                key, notice = viewer, Look(viewer)
            case Receipt():
                key = (viewer, notice.conversation, notice.user)
            case PresenceNotice() | PeersChanged():
                key = (viewer, type(notice), notice.user)
            case SettingChanged():
                key = (viewer, notice.what, notice.origin)
            case Evicted():
                key = (viewer, notice.connection)
            case TypingNotice():
                return
        if key in self._untold or len(self._untold) < _MAX_UNTOLD:
            self._untold[key] = (viewer, notice)

    def _send(self, viewer: UserId, encoded: Sequence[bytes]) -> None:
        if self._link is None or self._outgoing_bytes > _MAX_OUTGOING_BYTES:
            self._metrics.bus_dropped.inc(len(encoded))
            return
        for payload in payloads(encoded):
            self._outgoing.append((viewer, payload))
            self._outgoing_bytes += len(payload)
        self._wake.set()

    async def _send_outgoing(self, link: _Link) -> None:
        # The library may swallow a cancellation: so this looks whether its connection is gone.
        while True:
            await self._wake.wait()
            if self._link is not link:
                return
            self._wake.clear()
            while self._outgoing and self._link is link:
                viewer, payload = self._outgoing.popleft()
                self._outgoing_bytes -= len(payload)
                await link.client.publish(_SUBJECT + viewer, payload)
            while self._ignored and self._link is link:
                await self._ignored.pop().unsubscribe()

    async def _keep_alive(self, link: _Link) -> None:
        while True:
            await asyncio.sleep(self._keepalive_s)
            await link.round_trip()
            self._hardly_told, self._untold = self._untold, {}

    def _take(self, message: Msg) -> None:
        try:
            viewer = UserId(message.subject.removeprefix(_SUBJECT))
            notices = decode(message.data)
            for receive in self._receivers:
                receive(notices, viewer)
        except Exception:  # it would end the library's reading task
            _log.exception("taking notices from the bus failed")


def _retrieve_exception(task: "asyncio.Task[None]") -> None:
    """Keep the event loop from reporting what a lost connection ended with."""
    if not task.cancelled():
        task.exception()


def _viewers(notice: Notice) -> Iterable[UserId]:
    """Return whom a notice is for."""
    match notice:
        case Published(event):
            return event.message.sender, event.message.recipient
        case Receipt():
            return (notice.user,) if notice.is_private else (notice.peer, notice.user)
        case TypingNotice(_, to):
            return (to,)
        case PresenceNotice():
            return notice.to
        case PeersChanged() | SettingChanged() | Evicted() | Look():
            return (notice.user,)
