"""One row of the route table, and how a request gets to its handler.

The table drives the router and the OpenAPI document, so that neither can say what the other does
not do.
"""

import asyncio
import dataclasses
import enum
import functools
import ipaddress
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, get_origin, get_type_hints

import msgspec
import structlog
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from profile_service.errors import Fault, Overloaded
from profile_service.http_api.problems import ProblemError, problem_response, response_to
from profile_service.metrics import Metrics
from profile_service.server import WHOLE_BODY
from profile_service.sessions import Caller, Sessions
from shared.service_auth import ServiceAuthError, ServiceCredentials

__all__ = [
    "JSON",
    "MERGE_PATCH",
    "ROUTE_KEY",
    "Auth",
    "Call",
    "Guard",
    "Handler",
    "Operation",
    "Resource",
    "json_response",
]

MAX_BODY_BYTES = 16 * 1024
BODY_TIMEOUT_S = 10.0
ROUTE_KEY = "duet.route"
"""Where in the ASGI scope the route's template is, for the metrics."""

JSON = "application/json"
MERGE_PATCH = "application/merge-patch+json"

_log = structlog.get_logger(__name__)


class Auth(enum.Enum):
    """Who may call an operation."""

    NOBODY = "nobody"
    BEARER = "bearer"
    SERVICE = "service"


@dataclasses.dataclass(frozen=True)
class Call:
    """A request that has passed the guard, decoded."""

    request: Request
    body: Any = None
    query: Any = None
    authenticated: Caller | None = None

    @property
    def caller(self) -> Caller:
        """Who calls. There is one in an operation with `Auth.BEARER`."""
        if self.authenticated is None:
            raise AssertionError("the operation does not ask for an access token")
        return self.authenticated

    @property
    def address(self) -> str:
        """The client's address, from the socket or from a trusted proxy."""
        client = self.request.client
        try:
            return str(ipaddress.ip_address(client.host)) if client else "unknown"
        except ValueError:  # whatever a proxy was told
            return "unknown"


Handler = Callable[[Call], Awaitable[Response]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Operation:
    """A method on a path: what it takes, what it gives, who may call it."""

    method: str
    path: str
    summary: str
    handler: Handler
    replies: Mapping[int, Any]
    """Type of the body by status of success; None where there is no body."""
    auth: Auth = Auth.NOBODY
    body: Any = None
    query: type[msgspec.Struct] | None = None
    problems: Sequence[str] = ()
    """Codes that are this operation's own; those that come with `auth` and `body` are known."""
    body_types: Sequence[str] = (JSON,)
    reply_type: str = JSON
    max_body_bytes: int = MAX_BODY_BYTES
    request_headers: Mapping[str, str] = dataclasses.field(default_factory=dict)
    reply_headers: Mapping[str, str] = dataclasses.field(default_factory=dict)
    is_stream: bool = False

    @functools.cached_property
    def decode_body(self) -> Callable[[bytes], Any]:
        """Decode and validate a body. Made once: to look its type up costs more."""
        return msgspec.json.Decoder(self.body).decode


class Guard:
    """Checks who calls."""

    def __init__(self, sessions: Sessions, services: ServiceCredentials) -> None:
        self._sessions = sessions
        self._services = services

    async def admit(self, auth: Auth, request: Request) -> Caller | None:
        """Return the person who calls, or None where it is nobody or a service.

        Raises:
            ProblemError: the credentials that the operation asks for are absent or not good.
            InvalidAccessToken: the access token is not valid.
        """
        offered = request.headers.getlist("authorization")
        authorization = offered[0] if len(offered) == 1 else None  # a proxy may have checked either
        if auth is Auth.SERVICE:
            try:
                self._services.verify(authorization)
            except ServiceAuthError:
                raise ProblemError(
                    "invalid_token",
                    "This route is for Duet's own services.",
                    headers={"WWW-Authenticate": 'Bearer realm="duet-internal"'},
                ) from None
        if auth is not Auth.BEARER:
            return None
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise ProblemError(
                "authentication_required",
                "Send the header `Authorization: Bearer <access token>`, once.",
                headers={"WWW-Authenticate": 'Bearer realm="duet"'},
            )
        return await self._sessions.authenticate(token.strip())


class Resource:
    """All operations on one path, as an ASGI application."""

    def __init__(self, operations: Sequence[Operation], guard: Guard, metrics: Metrics) -> None:
        self._path = operations[0].path
        self._operations = {operation.method: operation for operation in operations}
        get = self._operations.get("GET")
        if get and not get.is_stream:
            self._operations["HEAD"] = get  # the server leaves out the body
        self._allowed = ", ".join(sorted({*self._operations, "OPTIONS"}))
        self._guard = guard
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope[ROUTE_KEY] = self._path
        request = Request(scope, receive)
        try:
            response = await self._respond(request)
        except ClientDisconnect:
            return
        except Exception as error:  # the last stop before the server's own 500
            if isinstance(error, Overloaded):
                self._metrics.overloaded()
            response = response_to(error) or self._unexpected(error)
        await response(scope, receive, send)

    async def _respond(self, request: Request) -> Response:
        if request.method == "OPTIONS":
            return Response(status_code=204, headers={"Allow": self._allowed})
        operation = self._operations.get(request.method)
        if operation is None:
            raise ProblemError(
                "method_not_allowed",
                f"Use one of: {self._allowed}.",
                headers={"Allow": self._allowed},
            )
        caller = await self._guard.admit(operation.auth, request)
        query = None if operation.query is None else _query(request, operation.query)
        body = None if operation.body is None else await _body(request, operation)
        return await operation.handler(Call(request, body, query, caller))

    def _unexpected(self, error: Exception) -> Response:
        incident = f"urn:duet:incident:{secrets.token_hex(8)}"
        self._metrics.met_a_bug()
        _log.error("unhandled_error", incident=incident, route=self._path, exc_info=error)
        return problem_response(
            "internal_error",
            "It was logged. Quote the instance when you report it.",
            instance=incident,
        )


def json_response(
    body: object, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """Make the response that carries this body."""
    return Response(msgspec.json.encode(body), status, dict(headers or {}), JSON)


async def _body(request: Request, operation: Operation) -> Any:
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type not in operation.body_types:
        raise ProblemError("unsupported_media_type", f"Send {' or '.join(operation.body_types)}.")
    reading = _read(request, operation.max_body_bytes)
    is_here = WHOLE_BODY in (request.scope.get("extensions") or ())
    raw = await (reading if is_here else _in_time(reading))
    try:
        return operation.decode_body(raw)
    except msgspec.ValidationError as error:
        raise ProblemError("validation_failed", faults=[_fault(error)]) from None
    except msgspec.DecodeError as error:
        raise ProblemError("malformed_json", str(error)) from None
    except UnicodeDecodeError:
        raise ProblemError("malformed_json", "It is not UTF-8.") from None
    except RecursionError:
        raise ProblemError("malformed_json", "Nested too deeply.") from None


async def _in_time(reading: Awaitable[bytes]) -> bytes:
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            return await reading
    except TimeoutError:
        raise ProblemError("request_timeout", f"Send it within {BODY_TIMEOUT_S:.0f} s.") from None


async def _read(request: Request, max_bytes: int) -> bytes:
    too_large = ProblemError("content_too_large", f"Send at most {max_bytes} bytes.")
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > max_bytes:
        raise too_large
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > max_bytes:
            raise too_large
    return bytes(body)


def _query(request: Request, wanted: type[msgspec.Struct]) -> Any:
    given = request.query_params
    hints = get_type_hints(wanted)
    values = {
        name: given.getlist(name) if get_origin(hints[name]) is list else given[name]
        for name in wanted.__struct_fields__
        if name in given
    }
    try:
        return msgspec.convert(values, wanted, strict=False)
    except msgspec.ValidationError as error:
        fault = _fault(error)
        raise ProblemError(
            "validation_failed",
            "The query is not acceptable.",
            faults=[Fault(f"/query{fault.pointer}", fault.detail)],
        ) from None


def _fault(error: msgspec.ValidationError) -> Fault:
    """Turn msgspec's message, such as "Expected `str`, got `int` - at `$.username`", around."""
    detail, _, path = str(error).partition(" - at `$")
    pointer = path.rstrip("`").replace("[", "/").replace("]", "").replace(".", "/")
    for marker in ("unknown field `", "missing required field `"):
        _, found, rest = detail.partition(marker)
        if found:
            pointer += "/" + rest.partition("`")[0].replace("~", "~0").replace("/", "~1")
    return Fault(pointer, detail)
