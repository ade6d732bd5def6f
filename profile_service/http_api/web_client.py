"""The web page of clients/web at `/`, and what it needs to know of this installation.

It is no part of the API: it has no entry in the OpenAPI document, and a setting leaves it out.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from profile_service.http_api.operation import ROUTE_KEY, json_response
from profile_service.http_api.problems import problem_response

__all__ = ["WebClient"]

_Respond = Callable[[Request], Response]

CONFIG_PATH = "/client-config.json"

_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".ts": "text/plain; charset=utf-8",
    ".webmanifest": "application/manifest+json",
}
_ROUTE = "web_client"
"""One label for all files in the metrics."""


class WebClient:
    """Serves the files of one folder, as they were when the service started, from memory.

    Only names that were found are routes, so no path leads out of the folder. A browser asks each
    time whether its copy is still good (`ETag`), and so never mixes files of two versions.
    """

    def __init__(
        self, folder: Path, gateway_urls: Sequence[str], image_origins: Sequence[str] = ()
    ) -> None:
        """Read the folder. The page connects to the one of `gateway_urls` whose host is the page's
        own, or else to the first; it shows avatars of its own origin and of `image_origins`.

        Raises:
            OSError: the folder cannot be read.
        """
        self._gateway_urls = gateway_urls
        self._image_origins = image_origins
        sockets = " ".join(dict.fromkeys(map(_origin, gateway_urls)))
        self._policy = "; ".join(
            (
                "default-src 'none'",
                "script-src 'self'",
                "style-src 'self'",
                " ".join(["img-src 'self' data:", *image_origins]),
                f"connect-src 'self' {sockets}",
                "manifest-src 'self'",
                "base-uri 'none'",
                "form-action 'none'",
                "frame-ancestors 'none'",
                "require-trusted-types-for 'script'",
                "trusted-types 'none'",
            )
        )
        self._files = dict(_read(folder))

    def routes(self) -> list[Route]:
        """A route for each file, `/` for `index.html`, and one for the configuration."""
        routes = [
            Route(path, _Page(self._file(body, media_type)))
            for path, (body, media_type) in self._files.items()
        ]
        return [*routes, Route(CONFIG_PATH, _Page(self._configuration))]

    def _file(self, body: bytes, media_type: str) -> _Respond:
        tag = f'"{hashlib.sha256(body).hexdigest()[:20]}"'
        headers = {
            "Cache-Control": "no-cache",
            "Content-Security-Policy": self._policy,
            "Content-Type": media_type,
            "Cross-Origin-Opener-Policy": "same-origin",
            "ETag": tag,
        }

        def respond(request: Request) -> Response:
            held = request.headers.get("if-none-match", "").split(",")
            if tag in (one.strip().removeprefix("W/") for one in held):
                kept = {name: value for name, value in headers.items() if name != "Content-Type"}
                return Response(status_code=304, headers=kept)
            return Response(body, headers=headers)

        return respond

    def _configuration(self, request: Request) -> Response:
        host = request.url.hostname
        same_host = (url for url in self._gateway_urls if urlsplit(url).hostname == host)
        return json_response(
            {
                "gateway_url": next(same_host, self._gateway_urls[0]),
                "image_origins": self._image_origins,
            }
        )


class _Page:
    """An ASGI application that answers GET and HEAD."""

    def __init__(self, respond: _Respond) -> None:
        self._respond = respond

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope[ROUTE_KEY] = _ROUTE
        request = Request(scope, receive)
        response = (
            self._respond(request)
            if request.method in ("GET", "HEAD")
            else problem_response(
                "method_not_allowed", "Use one of: GET, HEAD.", headers={"Allow": "GET, HEAD"}
            )
        )
        await response(scope, receive, send)


def _read(folder: Path) -> Iterator[tuple[str, tuple[bytes, str]]]:
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.suffix in _TYPES and path.is_file() and not name.startswith((".", "node_modules/")):
            found = (path.read_bytes(), _TYPES[path.suffix])
            yield f"/{name}", found
            if name == "index.html":
                yield "/", found


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"
