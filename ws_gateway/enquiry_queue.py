"""One connection's enquiries, answered one after the other."""

import contextlib
from collections.abc import Awaitable, Callable

import structlog

from shared.ids import ConnectionId, UserId
from ws_gateway.enquiries import Enquiries
from ws_gateway.protocol import frames
from ws_gateway.protocol.actions import Enquiry, error_frame
from ws_gateway.protocol.errors import ErrorCode

__all__ = ["EnquiryQueue"]

_MAX_WAITING = 64
_RETRY_AFTER_MS = 2000

_log = structlog.get_logger(__name__)


class EnquiryQueue:
    """Keeps answers in the order of asking, and a reader that is slow from piling them up.

    For one event loop.
    """

    __slots__ = ("_connection_id", "_drained", "_enquiries", "_pacing", "_send", "_waiting")

    def __init__(
        self,
        enquiries: Enquiries,
        connection_id: ConnectionId,
        send: Callable[[frames.ServerFrame], None],
        drained: Callable[[], Awaitable[None]],
        pacing: Callable[[], contextlib.AbstractContextManager[None]],
    ) -> None:
        self._enquiries = enquiries
        self._connection_id = connection_id
        self._send = send
        self._drained = drained
        self._pacing = pacing
        self._waiting: list[tuple[UserId, Enquiry]] = []  # short, and mostly empty

    def put(self, user_id: UserId, enquiry: Enquiry) -> bool:
        """Take an enquiry. Returns whether `work_off` must be run for it."""
        if len(self._waiting) >= _MAX_WAITING:
            self._send(
                error_frame(
                    ErrorCode.OVERLOADED, request_id=enquiry.id, retry_after_ms=_RETRY_AFTER_MS
                )
            )
            return False
        self._waiting.append((user_id, enquiry))
        return len(self._waiting) == 1

    async def work_off(self) -> None:
        """Answer until nothing waits."""
        while self._waiting:
            user_id, enquiry = self._waiting[0]
            try:
                with self._pacing():
                    answer = self._enquiries.answer(user_id, enquiry, self._connection_id)
                    async for frame in answer:
                        self._send(frame)
                        await self._drained()
            except Exception:
                _log.exception("answering a request failed", request=type(enquiry).__name__)
                self._send(error_frame(ErrorCode.INTERNAL, request_id=enquiry.id))
            self._waiting.pop(0)
