"""What happens to every request and response: an id, headers, metrics, the access log."""

import random
import time

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from profile_service.http_api.operation import ROUTE_KEY
from profile_service.metrics import Metrics

__all__ = ["Observed"]

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

_DEFAULT_HEADERS = {  # as ASGI wants them: bytes, names in lower case
    b"cache-control": b"no-store",
    b"content-security-policy": b"default-src 'none'; frame-ancestors 'none'",
    b"referrer-policy": b"no-referrer",
    b"x-content-type-options": b"nosniff",
}

_log = structlog.get_logger(__name__)


class Observed:
    """ASGI middleware, the outermost. It never looks at a body, a query or a credential."""

    def __init__(self, app: ASGIApp, metrics: Metrics, *, access_log: bool) -> None:
        self._app = app
        self._metrics = metrics
        self._access_log = access_log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        request_id = random.randbytes(8).hex()  # noqa: S311 - a name for logs, no secret
        structlog.contextvars.bind_contextvars(request=request_id)
        started = time.perf_counter()
        status = 0
        is_stream = False

        async def send_observed(message: Message) -> None:
            nonlocal status, is_stream
            if message["type"] == "http.response.start":
                status = message["status"]
                given = dict(message["headers"])
                added = (item for item in _DEFAULT_HEADERS.items() if item[0] not in given)
                message["headers"] = [
                    *message["headers"],
                    *added,
                    (b"x-request-id", request_id.encode()),
                ]
                is_stream = given.get(b"content-type", b"").startswith(b"text/event-stream")
            await send(message)

        try:
            await self._app(scope, receive, send_observed)
        finally:
            self._finish(scope, status, None if is_stream else time.perf_counter() - started)

    def _finish(self, scope: Scope, status: int, duration_s: float | None) -> None:
        method = scope["method"] if scope["method"] in _METHODS else "other"
        route = scope.get(ROUTE_KEY, "unmatched")
        self._metrics.requested(method, route, status, duration_s)
        if self._access_log:
            _log.info(
                "request",
                method=method,
                route=route,
                status=status,
                ms=None if duration_s is None else round(duration_s * 1000, 1),
            )
