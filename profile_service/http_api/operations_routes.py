"""Routes for those who run or embed the service: health, metrics, keys, documentation."""

import importlib.resources
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from starlette.responses import Response

from profile_service.http_api.bodies import Health, JsonWebKeySet
from profile_service.http_api.operation import JSON, Call, Handler, Operation, json_response
from profile_service.http_api.problems import ProblemError
from profile_service.metrics import CONTENT_TYPE, Metrics
from profile_service.ports import SessionStore
from profile_service.tokens import TokenAuthority
from shared.client_address import Networks

__all__ = ["OperationsRoutes"]

JWKS_MAX_AGE_S = 300

_DOCS_PAGE = b"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>Duet profile service</title>
<link rel="stylesheet" href="/docs/swagger-ui.css">
</head>
<body>
<div id="swagger-ui"></div>
<script src="/docs/swagger-ui-bundle.js"></script>
<script src="/docs/start.js"></script>
</body>
</html>
"""
_DOCS_START = b"""SwaggerUIBundle({url: "/openapi.json", dom_id: "#swagger-ui", deepLinking: true});
"""
_DOCS_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; connect-src 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_BUNDLED = {
    "swagger-ui.css": "text/css; charset=utf-8",
    "swagger-ui-bundle.js": "text/javascript; charset=utf-8",
}


class OperationsRoutes:
    """Handlers of what is neither about people nor for other services."""

    def __init__(
        self,
        store: SessionStore,
        tokens: TokenAuthority,
        metrics: Metrics,
        metrics_networks: Networks,
        describe: Callable[[Sequence[Operation]], dict[str, object]],
    ) -> None:
        self._store = store
        self._tokens = tokens
        self._metrics = metrics
        self._metrics_networks = metrics_networks
        self._describe = describe
        self._document: bytes | None = None
        self.described: Sequence[Operation] = ()
        """The whole route table, once it is complete."""

    def operations(self) -> list[Operation]:
        """The rows of the route table."""
        return [
            _get("/healthz", "Whether the process is alive.", self.is_alive, Health),
            _get(
                "/readyz",
                "Whether requests can be served: the database answers.",
                self.is_ready,
                Health,
                problems=("unavailable",),
            ),
            _get(
                "/metrics",
                "Prometheus metrics, for addresses that may see them.",
                self.show_metrics,
                str,
                CONTENT_TYPE,
                problems=("not_found",),
            ),
            _get(
                "/.well-known/jwks.json",
                "The keys that verify access tokens offline.",
                self.show_keys,
                JsonWebKeySet,
            ),
            _get("/openapi.json", "This document.", self.show_document, dict[str, Any]),
            _get("/docs", "This document, for people.", self.show_docs, str, "text/html"),
            _get(
                "/docs/{file}",
                "What the page consists of.",
                self.show_docs_file,
                str,
                "*/*",
                problems=("not_found",),
            ),
        ]

    async def is_alive(self, _call: Call) -> Response:
        return json_response(Health())

    async def is_ready(self, _call: Call) -> Response:
        await self._store.ping()
        return json_response(Health())

    async def show_metrics(self, call: Call) -> Response:
        """Whoever comes through a proxy comes from outside, whatever the proxy's own address is."""
        client = call.request.client
        is_direct = "x-forwarded-for" not in call.request.headers
        if not (is_direct and client is not None and client.host in self._metrics_networks):
            raise ProblemError("not_found")
        return Response(self._metrics.render(), headers={"Content-Type": CONTENT_TYPE})

    async def show_keys(self, _call: Call) -> Response:
        return json_response(
            self._tokens.keys.jwks(),
            headers={"Cache-Control": f"public, max-age={JWKS_MAX_AGE_S}"},
        )

    async def show_document(self, _call: Call) -> Response:
        if self._document is None:
            self._document = msgspec.json.encode(self._describe(self.described))
        return Response(self._document, media_type="application/json")

    async def show_docs(self, _call: Call) -> Response:
        headers = {"Content-Security-Policy": _DOCS_POLICY}
        return Response(_DOCS_PAGE, headers=headers, media_type="text/html")

    async def show_docs_file(self, call: Call) -> Response:
        name = call.request.path_params["file"]
        if name == "start.js":
            return Response(_DOCS_START, media_type="text/javascript")
        if name not in _BUNDLED:
            raise ProblemError("not_found")
        folder = importlib.resources.files("swagger_ui_bundle") / "vendor"
        (version,) = folder.iterdir()
        return Response(
            (version / name).read_bytes(),
            headers={"Content-Type": _BUNDLED[name], "Cache-Control": "public, max-age=86400"},
        )


def _get(
    path: str,
    summary: str,
    handler: Handler,
    reply: object,
    reply_type: str = JSON,
    *,
    problems: Sequence[str] = (),
) -> Operation:
    return Operation(
        method="GET",
        path=path,
        summary=summary,
        handler=handler,
        replies={200: reply},
        reply_type=reply_type,
        problems=problems,
    )
