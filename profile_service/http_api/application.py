"""The ASGI application: the route table, the guard in front of it, and what surrounds both."""

import itertools
from collections.abc import Sequence

from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from profile_service.http_api.observed import Observed
from profile_service.http_api.operation import Guard, Operation, Resource
from profile_service.http_api.problems import problem_response
from profile_service.http_api.web_client import WebClient
from profile_service.metrics import Metrics

__all__ = ["build_application"]

_CORS_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
_CORS_REQUEST_HEADERS = ("Authorization", "Content-Type", "If-Match", "If-None-Match")
_CORS_EXPOSED_HEADERS = ("ETag", "Location", "Retry-After", "X-Request-ID")
_CORS_MAX_AGE_S = 600


def build_application(
    operations: Sequence[Operation],
    guard: Guard,
    metrics: Metrics,
    *,
    allowed_origins: Sequence[str],
    access_log: bool,
    web_client: WebClient | None = None,
) -> ASGIApp:
    """Make the application that serves the route table; earlier rows win.

    `allowed_origins` are the origins of the web pages that may call it from a browser.
    """
    by_path = itertools.groupby(operations, lambda operation: operation.path)
    routes = [Route(path, Resource(list(group), guard, metrics)) for path, group in by_path]
    if web_client is not None:
        routes += web_client.routes()
    application: ASGIApp = Router(routes, redirect_slashes=False, default=_nothing_here)
    if allowed_origins:
        application = CORSMiddleware(
            application,
            allow_origins=allowed_origins,
            allow_methods=_CORS_METHODS,
            allow_headers=_CORS_REQUEST_HEADERS,
            expose_headers=_CORS_EXPOSED_HEADERS,
            max_age=_CORS_MAX_AGE_S,
        )
    return Observed(application, metrics, access_log=access_log)


async def _nothing_here(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "http":
        await problem_response("not_found")(scope, receive, send)
