"""uvicorn, told to bind, to stop and to believe proxies the way this service needs it."""

import asyncio
import contextlib
import errno
import ipaddress
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

__all__ = ["WHOLE_BODY", "AddressUnusable", "BoundedProtocol", "Server", "bind"]

BACKLOG = 2048
WHOLE_BODY = "duet.whole_body"
"""The ASGI extension of a request of which all is here: to read it needs no clock, and one costs
more than the reading."""


class AddressUnusable(Exception):
    """The service cannot listen there. The message says why and what to do."""


class _OneWriteATurn:
    """A transport that sends at the end of a turn of the event loop what was written in it.

    An answer's head and body are one system call, and whoever gets the first of several answers
    does not ask again while the others are made: more requests come together, which is cheaper.
    """

    _MAX_HELD_BYTES = 65_536
    """More is sent at once, so that who writes much is told when it does not go out."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._held: list[bytes] = []
        self._held_bytes = 0
        self.is_closing = transport.is_closing

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        if not self._held:
            self._loop.call_soon(self._send)
        self._held.append(data)
        self._held_bytes += len(data)
        if self._held_bytes > self._MAX_HELD_BYTES:
            self._send()

    def close(self) -> None:
        self._send()
        self._transport.close()

    def _send(self) -> None:
        if self._held:
            data = b"".join(self._held)
            self._held.clear()
            self._held_bytes = 0
            self._transport.write(data)


class BoundedProtocol(HttpToolsProtocol):
    """Ends connections that do not say in time, or in few enough bytes, what they want, or that do
    not take their answers.

    uvicorn waits for ever for the end of a request's head, and keeps however much of it arrives: a
    few thousand connections that send a byte a minute, or one that sends headers without end, would
    take the service down. It waits for ever, too, for somebody to read what it has written. Bodies
    have their own bounds (`http_api.operation`).
    """

    head_timeout_s = 10.0
    max_head_bytes = 65_536
    answer_timeout_s = 60.0
    """From when an answer does not go out as fast as it is written until it has gone out."""

    _deadline: asyncio.TimerHandle | None = None
    _head_bytes = 0
    _answer_deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """The first request's head is due."""
        super().connection_made(cast(asyncio.Transport, _OneWriteATurn(transport, self.loop)))
        self._expect_head()

    def data_received(self, data: bytes) -> None:
        """Take bytes; only those of a head count, and only a request keeps the connection."""
        if self._deadline is not None:
            self._head_bytes += len(data)
        request, kept_alive = self.cycle, self.timeout_keep_alive_task
        super().data_received(data)
        if self._deadline is not None and self._head_bytes > self.max_head_bytes:
            self._give_up()
        if kept_alive is not None and self._deadline is None and self.cycle is request:
            # uvicorn stops its clock at any byte: an empty line, or a body that nobody waits for
            self.timeout_keep_alive_task = self.loop.call_at(
                kept_alive.when(), self.timeout_keep_alive_handler
            )

    def on_message_begin(self) -> None:
        """A further request on this connection begins."""
        super().on_message_begin()
        if self._deadline is None:
            self._expect_head()

    def on_headers_complete(self) -> None:
        """The head is here.

        Raises:
            ValueError: with more than may be in one; uvicorn answers that it is no HTTP.
        """
        self._forget_head()
        fields = sum(len(name) + len(value) for name, value in self.headers)
        if len(self.url) + fields > self.max_head_bytes:
            raise ValueError("the head is too long")
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """All of a request is here: mostly before its handler begins."""
        super().on_message_complete()
        self.scope["extensions"] = {WHOLE_BODY: {}}

    def pause_writing(self) -> None:
        """More is written than has gone out."""
        super().pause_writing()
        self._expect_reading()

    def resume_writing(self) -> None:
        """Almost all has gone out."""
        if not self.transport.is_closing():
            self._forget_answer()
        super().resume_writing()

    def on_response_complete(self) -> None:
        """The answer is written, and the connection perhaps closed: once it has gone out."""
        super().on_response_complete()
        if self.transport.is_closing():
            self._expect_reading()

    def timeout_keep_alive_handler(self) -> None:
        """No other request came. The last answer may still be unread."""
        super().timeout_keep_alive_handler()
        self._expect_reading()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP; earlier answers may still be unread."""
        super().send_400_response(msg)
        self._expect_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clocks with the connection."""
        self._forget_head()
        self._forget_answer()
        super().connection_lost(exc)

    def _expect_head(self) -> None:
        self._head_bytes = 0
        self._deadline = self.loop.call_later(self.head_timeout_s, self._give_up)

    def _forget_head(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _expect_reading(self) -> None:
        if self._answer_deadline is None:
            self._answer_deadline = self.loop.call_later(
                self.answer_timeout_s, self.transport.abort
            )

    def _forget_answer(self) -> None:
        if self._answer_deadline is not None:
            self._answer_deadline.cancel()
            self._answer_deadline = None

    def _give_up(self) -> None:
        self._forget_head()
        self.transport.abort()


class Server(uvicorn.Server):
    """Serves an application on a bound socket until SIGTERM or SIGINT, then ends normally.

    uvicorn's own way with a signal is to raise it again afterwards, so that a clean stop exits
    with status 143 and looks like a crash. `before_shutdown` ends the streams, which would
    otherwise be waited for.
    """

    def __init__(
        self,
        application: ASGIApp,
        *,
        trusted_proxies: Sequence[str],
        shutdown_timeout_s: int,
        before_shutdown: Callable[[], None],
    ) -> None:
        super().__init__(
            uvicorn.Config(
                application,
                loop="uvloop",
                http=BoundedProtocol,
                ws="none",
                lifespan="off",
                interface="asgi3",
                log_config=None,
                log_level="error",  # below, a port scan fills the log
                access_log=False,
                server_header=False,
                proxy_headers=bool(trusted_proxies),
                # in full: uvicorn takes 10.0.0.1/8 for the name of a host, and believes nobody
                forwarded_allow_ips=[
                    str(ipaddress.ip_network(network, strict=False)) for network in trusted_proxies
                ],
                backlog=BACKLOG,
                timeout_keep_alive=75,
                timeout_graceful_shutdown=shutdown_timeout_s,
            )
        )
        self._before_shutdown = before_shutdown

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._before_shutdown()
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        signals = (signal.SIGTERM, signal.SIGINT)
        for number in signals:
            loop.add_signal_handler(number, self.handle_exit, number, None)
        try:
            yield
        finally:
            for number in signals:
                loop.remove_signal_handler(number)


def bind(host: str, port: int) -> socket.socket:
    """Take an address. Port 0 takes any free one.

    Raises:
        AddressUnusable: it is in use, not of this machine, or not allowed.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.create_server(address[:2], family=family, backlog=BACKLOG)
        # Connections inherit it: a small write after another must not wait for an ACK.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listener
    except OSError as error:
        taken = error.errno == errno.EADDRINUSE
        reason = "is in use" if taken else f"cannot be used ({error.strerror or error})"
        raise AddressUnusable(
            f"address {host}:{port} {reason}; set DUET_PROFILE_HOST and DUET_PROFILE_PORT to "
            "another one" + (", or stop what uses it" if taken else "")
        ) from error
