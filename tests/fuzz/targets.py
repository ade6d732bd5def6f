"""What is fuzzed: functions that take any bytes, and raise when something is wrong.

A target raises `AssertionError` for an outcome that is not documented, and lets any other exception
out: both are findings. Memory is checked by who runs the target.
"""

import asyncio
import contextlib
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from profile_service.app import open_service
from shared.ids import SessionId, UserId
from shared.service_auth import ServiceCredentials
from tests.support.profile_service import PASSWORD, SERVICE_SECRET, fast_settings
from ws_gateway.identity import Identity
from ws_gateway.protocol import codec
from ws_gateway.protocol.actions import Authenticate, Close, Reply, Rest
from ws_gateway.protocol.cursor import Cursors, ForeignCursor
from ws_gateway.protocol.rate_limit import RateLimit, TokenBucket
from ws_gateway.protocol.session import Session, SessionLimits, State
from ws_gateway.protocol.wire import text_frame

__all__ = ["TARGETS", "Target", "seeds"]

Target = Callable[[bytes], None]

_UNLIMITED = RateLimit(1e9, 10**9)
_LIMITS = SessionLimits(requests=_UNLIMITED, messages=_UNLIMITED)
_IDENTITY = Identity(UserId("u_ann"), "ann", SessionId("s_1"), 1, 1e9, None)
_SEPARATOR = b"\x1e"
"""Between the frames of one input."""


def _session_target() -> Target:
    cursors = Cursors("abcdefabcdef")

    def run(data: bytes) -> None:
        session = Session(_LIMITS, 0.0)
        frames = data.split(_SEPARATOR)[:16]
        for now, raw in enumerate(frames):
            was_closed = session.state is State.CLOSED
            action = session.receive(raw, float(now))
            assert (action is None) == was_closed
            if isinstance(action, Authenticate):
                if action.resume is not None:
                    with contextlib.suppress(ForeignCursor):
                        assert cursors.decode(action.resume) >= 0
                session.verified(_IDENTITY, TokenBucket(_UNLIMITED, 0.0), float(now))
            elif isinstance(action, Close | Reply | Rest):
                frame = action.frame
                if frame is not None:
                    msgspec.json.decode(codec.encode(frame))
                    assert len(text_frame(codec.encode(frame))) < 4096
                assert not isinstance(action, Close) or session.state is State.CLOSED

    return run


class _HttpTarget:
    """The whole HTTP application, called as a server calls it, on a database of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._directory = tempfile.TemporaryDirectory()
        settings = fast_settings(Path(self._directory.name), **_UNTHROTTLED)
        self._context = open_service(settings)
        self._application = self._loop.run_until_complete(self._context.__aenter__()).application
        sent = self._call("POST", "/v1/users", _SIGN_UP, b"application/json", None)
        granted = msgspec.json.decode(sent[1])
        self._bearer = f"Bearer {granted['access_token']}".encode()
        self._service = ServiceCredentials(SERVICE_SECRET.encode(), "fuzz")

    def __call__(self, data: bytes) -> None:
        """Use the first byte for the operation and the second for the content type."""
        method, path, auth = _OPERATIONS[(data[0] if data else 0) % len(_OPERATIONS)]
        kind = _CONTENT_TYPES[(data[1] if len(data) > 1 else 0) % len(_CONTENT_TYPES)]
        authorization = {
            "user": self._bearer,
            "service": self._service.authorization().encode(),
            "": None,
        }[auth]
        status, body = self._call(method, path, data[2:], kind, authorization)
        assert status < 500 or status == 503, (status, body)
        if status >= 400:
            problem = msgspec.json.decode(body)
            assert problem["status"] == status, problem
            assert problem["code"], problem

    def close(self) -> None:
        """Stop the service."""
        self._loop.run_until_complete(self._context.__aexit__(None, None, None))
        self._loop.close()
        self._directory.cleanup()

    def _call(
        self, method: str, path: str, body: bytes, content_type: bytes, authorization: bytes | None
    ) -> tuple[int, bytes]:
        headers = [(b"host", b"x"), (b"content-type", content_type)]
        headers.append((b"content-length", str(len(body)).encode()))
        if authorization is not None:
            headers.append((b"authorization", authorization))
        scope: dict[str, Any] = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": headers,
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 8000),
        }
        sent: list[Any] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Any) -> None:
            sent.append(message)

        self._loop.run_until_complete(self._application(scope, receive, send))
        answer = b"".join(message.get("body", b"") for message in sent[1:])
        return int(sent[0]["status"]), answer


_UNTHROTTLED = {
    "sign_ups_per_address": 10**9,
    "refresh_burst": 10**9,
    "login_attempts_per_address": 10**9,
    "login_attempts_per_account": 10**9,
    "login_attempts_per_account_and_address": 10**9,
    "access_token_lifetime_s": 86_400,
}
"""Or nearly all of what a long run tries is refused unexamined."""
_SIGN_UP = msgspec.json.encode({"username": "fuzzer", "password": PASSWORD})
_OPERATIONS = [
    ("POST", "/v1/users", ""),
    ("POST", "/v1/sessions", ""),
    ("POST", "/v1/token", ""),
    ("PATCH", "/v1/users/me", "user"),
    ("PUT", "/v1/users/me", "user"),
    ("PUT", "/v1/users/me/password", "user"),
    ("DELETE", "/v1/users/me", "user"),
    ("POST", "/internal/introspect", "service"),
    ("POST", "/internal/sessions/status", "service"),
]
_CONTENT_TYPES = [b"application/json", b"application/merge-patch+json", b"text/plain", b"\xff;x"]

TARGETS: dict[str, Callable[[], Target]] = {"session": _session_target, "http": _HttpTarget}


def seeds(target: str) -> Iterator[bytes]:
    """Inputs to begin with: each kind of frame, or a plausible body of each operation."""
    if target == "session":
        connect = b'{"type":"connect","access_token":"a.b.c","resume":"abcdefabcdef.7"}'
        for rest in _FRAMES:
            yield connect + _SEPARATOR + rest
        yield _SEPARATOR.join([connect, *_FRAMES])
    else:
        for number in range(len(_OPERATIONS)):
            for body in _BODIES:
                yield bytes([number, 0]) + body


_FRAMES = [
    b'{"type":"send","id":"1","to":"u_bob","text":"hello"}',
    b'{"type":"edit","id":"2","conversation":"c_1","seq":1,"text":"hi"}',
    b'{"type":"delete","id":"3","conversation":"c_1","seq":1}',
    b'{"type":"received","conversation":"c_1","seq":1}',
    b'{"type":"read","conversation":"c_1","seq":1,"id":"4"}',
    b'{"type":"typing","to":"u_bob","active":true}',
    b'{"type":"history","id":"5","with":"u_bob","before":9,"limit":20}',
    b'{"type":"conversations","id":"6","after":"abcdefabcdef.9"}',
    b'{"type":"search","id":"7","query":"hello","with":"u_bob"}',
    b'{"type":"trace","id":"8","conversation":"c_1","seq":1}',
    b'{"type":"block","id":"9","user":"u_bob"}',
    b'{"type":"preferences","id":"10","share_reads":false}',
    b'{"type":"export","id":"11"}',
    b'{"type":"refresh","id":"12","access_token":"a.b.c"}',
]
_BODIES = [
    _SIGN_UP,
    b'{"username":"fuzzer","password":"wrong","device_name":"phone"}',
    b'{"refresh_token":"a.b.c"}',
    b'{"bio":"x","display_name":null,"avatar_url":"https://x.example/a.png","locale":"de"}',
    b'{"current_password":"a","new_password":"b"}',
    b'[{"access_token":"a.b.c","refresh_token":"d.e.f"}]',
    b'{"sessions":[{"sid":"s_1","sub":"u_1","ver":1}]}',
]
