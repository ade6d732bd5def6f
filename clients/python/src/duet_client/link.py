"""The connection, kept up: opens, verifies, reads and writes, renews tokens, and comes back."""

import asyncio
import contextlib
import logging
import ssl
import time
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.typing import Subprotocol

from duet_client.errors import DuetError, LoginRequired, ServiceUnreachable, TryAgainLater
from duet_client.frames import (
    Connected,
    Draining,
    Expiring,
    Frame,
    InvalidFrame,
    Refreshed,
    decode,
    encode,
)
from duet_client.lifecycle import Lifecycle, Phase, Reconnect, Stop, Verdict
from duet_client.message_ids import new_id
from duet_client.tokens import TokenKeeper

__all__ = ["DEFAULT_GATEWAY_URL", "Link", "LinkOptions", "LinkOwner"]

DEFAULT_GATEWAY_URL = "ws://127.0.0.1:8765/v1/ws"
_SUBPROTOCOL = Subprotocol("duet.v1")
_MAX_FRAME_BYTES = 4 * 1024 * 1024
_RENEW_AGAIN_S = 5.0

_log = logging.getLogger("duet_client")
_websocket_log = logging.getLogger("duet_client.websocket")
_websocket_log.setLevel(logging.INFO)  # at DEBUG it shows frames, and so tokens and texts


class LinkOptions:
    """How a link reaches the gateway, and how long it waits. Times are in seconds."""

    def __init__(
        self,
        url: str = DEFAULT_GATEWAY_URL,
        *,
        ssl_context: ssl.SSLContext | None = None,
        trust_env: bool = True,
        open_timeout_s: float = 10.0,
        ping_interval_s: float = 20.0,
        ping_timeout_s: float = 15.0,
        close_timeout_s: float = 0.5,
    ) -> None:
        self.url = url
        self.ssl_context = ssl_context
        self.trust_env = trust_env
        self.open_timeout_s = open_timeout_s
        self.ping_interval_s = ping_interval_s
        self.ping_timeout_s = ping_timeout_s
        self.close_timeout_s = close_timeout_s


class LinkOwner(Protocol):
    """Who gets what the link receives. Nothing here may block or raise."""

    def resume_from(self) -> str | None:
        """Return the cursor that a new connection resumes from."""
        ...

    def connected(self, frame: Connected) -> None:
        """The connection is live: send again what has no answer."""
        ...

    def received(self, frame: Frame) -> None:
        """A frame came that is not about the connection itself."""
        ...

    def lost(self, reason: str, retry_in_s: float) -> None:
        """The connection is gone, or none came about."""
        ...


class Link:
    """Runs connections one after the other. `run` goes on until it is cancelled or must stop."""

    def __init__(
        self,
        options: LinkOptions,
        tokens: TokenKeeper,
        lifecycle: Lifecycle,
        owner: LinkOwner,
        *,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._options = options
        self._tokens = tokens
        self._lifecycle = lifecycle
        self._owner = owner
        self._now = now
        self._socket: ClientConnection | None = None
        self._outgoing: deque[str] = deque()
        self._outgoing_ready = asyncio.Event()
        self._retry_now = asyncio.Event()
        self._used_token = ""
        self._renewals: set[asyncio.Task[None]] = set()

    @property
    def is_live(self) -> bool:
        """Whether frames can be sent."""
        return self._lifecycle.phase is Phase.LIVE

    @property
    def unwritten(self) -> int:
        """How many frames wait for the socket to take them."""
        return len(self._outgoing)

    def transmit(self, frame: str) -> None:
        """Send a frame on the present connection; with it, it may be lost."""
        self._outgoing.append(frame)
        self._outgoing_ready.set()

    def restart(self, reason: str) -> None:
        """Break off the connection and connect again at once."""
        _log.info("connecting anew: %s", reason)
        self._lifecycle.restarting()
        if self._socket is not None:
            self._socket.transport.abort()

    def retry_now(self) -> None:
        """Do not wait any longer before the next try."""
        self._retry_now.set()

    async def run(self) -> None:
        """Keep a connection up.

        Raises:
            LoginRequired, ConnectionEnded: there is no point in trying again.
        """
        try:
            while True:
                verdict = await self._connection()
                if isinstance(verdict, Reconnect) and verdict.renew_tokens:
                    verdict = await self._renewed(verdict)
                if isinstance(verdict, Stop):
                    raise verdict.error
                self._owner.lost(verdict.reason, verdict.after_s)
                _log.info("no connection: %s; next try in %.1f s", verdict.reason, verdict.after_s)
                await self._pause(verdict.after_s)
        finally:
            for renewal in self._renewals:
                renewal.cancel()

    async def _connection(self) -> Verdict:
        """Open, verify and use one connection."""
        self._lifecycle.opening()
        try:
            self._used_token = await self._tokens.access_token()
        except LoginRequired as error:
            return Stop(error)
        except TryAgainLater as error:
            return self._lifecycle.failed(str(error), error.retry_after_s)
        except DuetError as error:
            return self._lifecycle.failed(str(error))
        try:
            socket = await self._dial()
        except InvalidStatus as error:
            asked = error.response.headers.get("Retry-After", "")
            wait_s = float(asked) if asked.isascii() and asked.isdigit() else 0.0
            return self._lifecycle.failed(
                f"the gateway answers HTTP {error.response.status_code}", wait_s
            )
        except (OSError, InvalidHandshake, TimeoutError, EOFError) as error:
            return self._lifecycle.failed(f"cannot connect: {str(error) or 'no answer in time'}")
        self._socket = socket
        try:
            code, reason = await self._use(socket)
        finally:
            self._socket = None
            await self._close(socket)
        return self._lifecycle.closed(code, reason, self._now())

    async def _dial(self) -> ClientConnection:
        options = self._options
        return await connect(
            options.url,
            subprotocols=[_SUBPROTOCOL],
            compression=None,
            ssl=options.ssl_context,
            proxy=True if options.trust_env else None,
            open_timeout=options.open_timeout_s,
            ping_interval=options.ping_interval_s,
            ping_timeout=options.ping_timeout_s,
            close_timeout=options.close_timeout_s,
            max_size=_MAX_FRAME_BYTES,
            user_agent_header="duet-client",
            logger=_websocket_log,
        )

    async def _use(self, socket: ClientConnection) -> tuple[int | None, str]:
        """Read until the connection ends. Returns the gateway's close code and reason."""
        self._outgoing.clear()
        fields = {"access_token": self._used_token, "resume": self._owner.resume_from()}
        self.transmit(encode("connect", fields))
        writer = asyncio.create_task(self._write(socket), name="duet: write")
        try:
            async with asyncio.timeout(self._options.open_timeout_s) as until_connected:
                while True:
                    frame = decode(await socket.recv())
                    if isinstance(frame, Connected):
                        until_connected.reschedule(None)
                    if frame is not None:
                        self._receive(frame)
        except ConnectionClosed as closed:
            if closed.rcvd is None:
                return None, "the connection broke off"
            return closed.rcvd.code, closed.rcvd.reason
        except InvalidFrame as error:
            return None, f"not a frame of duet.v1: {error}"
        except TimeoutError:
            return None, "the gateway did not confirm in time"
        finally:
            writer.cancel()
            await asyncio.wait([writer])

    async def _write(self, socket: ClientConnection) -> None:
        with contextlib.suppress(ConnectionClosed):  # the reader tells
            while True:
                while self._outgoing:
                    await socket.send(self._outgoing.popleft())
                self._outgoing_ready.clear()
                await self._outgoing_ready.wait()

    def _receive(self, frame: Frame) -> None:
        self._lifecycle.received(frame, self._now())
        match frame:
            case Connected():
                self._owner.connected(frame)
            case Expiring():
                self._start(self._renew_in_band())
            case Refreshed() | Draining():
                pass
            case _:
                self._owner.received(frame)

    async def _renew_in_band(self) -> None:
        """Get a new token and show it on this connection; without one, it ends at expiry."""
        used = self._used_token
        while self.is_live and self._used_token == used:
            try:
                tokens = await self._tokens.renew(used)
            except LoginRequired:
                return
            except DuetError as error:
                _log.info("the token could not be renewed: %s", error)
                await asyncio.sleep(_RENEW_AGAIN_S)
                continue
            if self.is_live and self._used_token == used:
                self._used_token = tokens.access_token
                fields = {"id": new_id(), "access_token": tokens.access_token}
                self.transmit(encode("refresh", fields))

    async def _renewed(self, verdict: Reconnect) -> Verdict:
        try:
            await self._tokens.renew(self._used_token)
        except LoginRequired as error:
            return Stop(error)
        except TryAgainLater as error:
            return self._lifecycle.failed(str(error), error.retry_after_s)
        except ServiceUnreachable as error:
            return self._lifecycle.failed(str(error))
        self._lifecycle.renewed()
        return verdict

    async def _pause(self, seconds: float) -> None:
        self._retry_now.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._retry_now.wait()

    async def _close(self, socket: ClientConnection) -> None:
        """Close politely within the time for it, else break off; a stuck peer cannot hold us."""
        try:
            async with asyncio.timeout(self._options.close_timeout_s):
                await socket.close()
        except TimeoutError:
            pass
        finally:
            socket.transport.abort()

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._renewals.add(task)
        task.add_done_callback(self._renewals.discard)
