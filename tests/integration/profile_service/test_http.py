"""What every route does with requests that are not as they should be."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import httpx
import pytest

from profile_service.http_api import operation
from profile_service.http_api.application import build_application
from profile_service.http_api.operation import Call, Guard, Operation
from profile_service.metrics import Metrics
from profile_service.server import BoundedProtocol
from tests.support.profile_service import (
    PASSWORD,
    RunningService,
    bearer,
    fast_settings,
    running_service,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")

SIGN_UP = "/v1/users"
JSON = {"Content-Type": "application/json"}


def problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    assert (body["status"], body["code"]) == (status, code)
    assert body["type"] == f"urn:duet:problem:{code}"
    return body


@pytest.mark.parametrize("path", ["/v1", "/v1/users/", "/v1/nothing", "/internal", "/docs/x"])
async def test_unknown_paths_are_problems(service: RunningService, path: str) -> None:
    problem(await service.client.get(path), 404, "not_found")


async def test_a_wrong_method_is_told_the_right_ones(service: RunningService) -> None:
    answer = await service.client.delete("/v1/token")
    problem(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == "OPTIONS, POST"
    odd = await service.client.request("TRACE", "/v1/users/me")
    assert odd.headers["allow"] == "DELETE, GET, HEAD, OPTIONS, PATCH, PUT"


async def test_options_and_head(service: RunningService) -> None:
    options = await service.client.options("/v1/sessions")
    assert (options.status_code, options.headers["allow"]) == (
        204,
        "DELETE, GET, HEAD, OPTIONS, POST",
    )
    head = await service.client.head("/healthz")
    assert (head.status_code, head.content) == (200, b"")
    feed = await service.client.head("/internal/revocations", headers=service.as_service)
    assert feed.status_code == 405


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"nonsense",
        b'{"username": "bob", "password": NaN}',
        b'{"username": "\\ud800", "password": "x"}',
        b"\xff\xfe",
        b'"\xff"',
        b"[" * 15_000,
        b'{"username": "bob"} trailing',
    ],
)
async def test_what_is_not_json_is_malformed(service: RunningService, body: bytes) -> None:
    answer = await service.client.post(SIGN_UP, content=body, headers=JSON)
    assert answer.status_code in {400, 422}
    problem(
        answer,
        answer.status_code,
        "malformed_json" if answer.status_code == 400 else "validation_failed",
    )


async def test_body_in_another_encoding_is_told_so(service: RunningService) -> None:
    answer = await service.client.post(
        SIGN_UP, content='{"bio": "é"}'.encode("latin-1"), headers=JSON
    )
    assert problem(answer, 400, "malformed_json")["detail"] == "It is not UTF-8."


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ([], ""),
        ({}, "/username"),
        ({"username": "bob"}, "/password"),
        ({"username": 5, "password": PASSWORD}, "/username"),
        ({"username": "bob", "password": None}, "/password"),
        ({"username": "bob", "password": PASSWORD, "admin/~": True}, "/admin~1~0"),
        ({"username": "bob", "password": PASSWORD, "bio": {"x": 1}}, "/bio"),
    ],
)
async def test_a_wrong_shape_is_pointed_at(
    service: RunningService, body: object, pointer: str
) -> None:
    answer = await service.client.post(SIGN_UP, json=body)
    errors = problem(answer, 422, "validation_failed")["errors"]
    assert [error["pointer"] for error in errors] == [pointer]
    assert errors[0]["detail"]


async def test_a_wrong_item_of_a_list_is_pointed_at(service: RunningService) -> None:
    answer = await service.client.post(
        "/internal/introspect",
        json=[{"access_token": "x"}, {"access_token": 5}],
        headers=service.as_service,
    )
    errors = problem(answer, 422, "validation_failed")["errors"]
    assert errors[0]["pointer"] == "/1/access_token"


@pytest.mark.parametrize(
    "query", ["", "prefix=", "prefix=%00", "prefix=a&limit=0", "prefix=a&limit=x", "prefix=é"]
)
async def test_a_wrong_query_is_pointed_at(service: RunningService, query: str) -> None:
    me = bearer(await service.sign_up())
    answer = await service.client.get(f"/v1/users?{query}", headers=me)
    errors = problem(answer, 422, "validation_failed")["errors"]
    assert errors[0]["pointer"].startswith("/query")


@pytest.mark.parametrize("media_type", [None, "text/plain", "application/xml", "json"])
async def test_other_media_types_are_refused(
    service: RunningService, media_type: str | None
) -> None:
    headers = {} if media_type is None else {"Content-Type": media_type}
    answer = await service.client.post(SIGN_UP, content=b"{}", headers=headers)
    assert "application/json" in problem(answer, 415, "unsupported_media_type")["detail"]


async def test_a_charset_on_json_is_fine(service: RunningService) -> None:
    headers = {"Content-Type": "Application/JSON; charset=utf-8"}
    answer = await service.client.post(SIGN_UP, content=b"{}", headers=headers)
    problem(answer, 422, "validation_failed")


async def test_a_body_over_16_kib_is_refused_declared_or_chunked(service: RunningService) -> None:
    fits = b'{"username":"' + b"x" * (16_384 - 15) + b'"}'
    assert len(fits) == 16_384
    problem(
        await service.client.post(SIGN_UP, content=fits, headers=JSON), 422, "validation_failed"
    )

    async def chunks() -> AsyncIterator[bytes]:
        yield fits
        yield b" "

    declared = await service.client.post(SIGN_UP, content=fits + b" ", headers=JSON)
    problem(declared, 413, "content_too_large")
    chunked = await service.client.post(SIGN_UP, content=chunks(), headers=JSON)
    problem(chunked, 413, "content_too_large")


async def test_a_client_that_leaves_in_the_middle_of_a_body_harms_nobody(
    service: RunningService,
) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", service.port)
    head = "POST /v1/users HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    writer.write(f"{head}Content-Length: 100\r\n\r\n".encode() + b"{")
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    assert (await service.client.get("/healthz")).status_code == 200


async def test_a_body_that_does_not_arrive_is_not_waited_for(
    service: RunningService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operation, "BODY_TIMEOUT_S", 0.05)
    reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
    head = "POST /v1/users HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    writer.write(f"{head}Content-Length: 100\r\n\r\n{{".encode())
    answer = await reader.readuntil(b"request_timeout")
    assert answer.startswith(b"HTTP/1.1 408")
    writer.close()
    await writer.wait_closed()


async def test_an_answer_is_one_write_and_whole_before_its_connection_is_closed(
    service: RunningService, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, writes = BoundedProtocol.connection_made, 0

    class Counted:
        def __init__(self, transport: asyncio.Transport) -> None:
            self._transport = transport

        def __getattr__(self, name: str) -> Any:
            return getattr(self._transport, name)

        def write(self, data: bytes) -> None:
            nonlocal writes
            writes += 1
            self._transport.write(data)

    def counted(protocol: BoundedProtocol, transport: asyncio.Transport) -> None:
        made(protocol, cast(asyncio.Transport, Counted(transport)))

    monkeypatch.setattr(BoundedProtocol, "connection_made", counted)
    reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
    for number, connection in enumerate([b"keep-alive", b"keep-alive", b"close"], start=1):
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: " + connection + b"\r\n\r\n")
        assert (await reader.readuntil(b"}")).startswith(b"HTTP/1.1 200")
        assert writes == number
    assert await reader.read() == b""
    writer.close()
    await writer.wait_closed()


async def test_what_is_not_http_is_refused(service: RunningService) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
    writer.write(b"\x16\x03\x01 nonsense\r\n\r\n")
    assert (await reader.read()).startswith(b"HTTP/1.1 400")
    writer.close()
    await writer.wait_closed()


async def test_every_answer_carries_the_safe_headers(service: RunningService) -> None:
    for path in ("/healthz", "/nothing", "/v1/users/me", "/openapi.json"):
        headers = (await service.client.get(path)).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cache-control"] == "no-store"
        assert "default-src 'none'" in headers["content-security-policy"]
        assert len(headers["x-request-id"]) == 16
        assert "server" not in headers


async def test_browsers_of_other_origins_are_not_answered_by_default(
    service: RunningService,
) -> None:
    answer = await service.client.get("/healthz", headers={"Origin": "https://evil.example"})
    assert "access-control-allow-origin" not in answer.headers


async def test_browsers_of_allowed_origins_may_call_and_see_refusals(tmp_path: Path) -> None:
    settings = fast_settings(tmp_path, profile_allowed_origins=("https://chat.example",))
    async with running_service(settings) as service:
        origin = {"Origin": "https://chat.example"}
        refused = await service.client.get("/v1/users/me", headers=origin)
        assert refused.status_code == 401
        assert refused.headers["access-control-allow-origin"] == "https://chat.example"
        assert "Retry-After" in refused.headers["access-control-expose-headers"]
        for method in ("PATCH", "HEAD"):
            preflight = await service.client.options(
                "/v1/users/me",
                headers=origin
                | {
                    "Access-Control-Request-Method": method,
                    "Access-Control-Request-Headers": "authorization,if-match",
                },
            )
            assert preflight.status_code == 200
            assert method in preflight.headers["access-control-allow-methods"]
        other = await service.client.get("/healthz", headers={"Origin": "https://evil.example"})
        assert "access-control-allow-origin" not in other.headers


async def test_health_metrics_and_keys(service: RunningService) -> None:
    assert (await service.client.get("/healthz")).json() == {"status": "ok"}
    assert (await service.client.get("/readyz")).json() == {"status": "ok"}
    await service.sign_up()
    await service.client.get("/v1/users/someone-or-other")
    await service.client.get("/no/such/path")
    metrics = (await service.client.get("/metrics")).text
    assert "duet_profile_sign_ups_total" in metrics
    assert 'route="/v1/users/{username}",status="401"' in metrics
    assert 'route="unmatched",status="404"' in metrics
    assert "someone-or-other" not in metrics
    keys = await service.client.get("/.well-known/jwks.json")
    assert keys.headers["cache-control"].startswith("public")
    assert [sorted(key) for key in keys.json()["keys"]] == [
        ["alg", "crv", "kid", "kty", "use", "x"]
    ]


async def test_the_documentation_page_needs_nothing_from_elsewhere(
    service: RunningService,
) -> None:
    page = await service.client.get("/docs")
    assert "'self'" in page.headers["content-security-policy"]
    assert "http" not in page.text
    for file in ("swagger-ui.css", "swagger-ui-bundle.js", "start.js"):
        assert f"/docs/{file}" in page.text
        part = await service.client.get(f"/docs/{file}")
        assert part.status_code == 200
        assert part.headers["content-type"].startswith("text/")


async def test_a_locked_database_is_503_and_readable_and_recovers(tmp_path: Path) -> None:
    async with running_service(fast_settings(tmp_path)) as service:
        created = await service.sign_up("locked")
        other = sqlite3.connect(tmp_path / "users.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        body = {"refresh_token": created["refresh_token"]}
        refused = await service.client.post("/v1/token", json=body)
        problem(refused, 503, "unavailable")
        assert int(refused.headers["retry-after"]) >= 1
        own = await service.client.get("/v1/users/me", headers=bearer(created))
        assert own.status_code == 200
        other.execute("ROLLBACK")
        other.close()
        assert (await service.client.post("/v1/token", json=body)).status_code == 200


async def test_a_bug_is_a_500_with_an_id_and_is_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def fail(_call: Call) -> Any:
        raise RuntimeError("a bug")

    buggy = Operation(method="GET", path="/bug", summary="", handler=fail, replies={200: None})
    guard = Guard(None, None)  # type: ignore[arg-type]  # nobody is asked for credentials
    application = build_application([buggy], guard, Metrics(), allowed_origins=(), access_log=True)
    transport = httpx.ASGITransport(application)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        answer = await client.get("/bug?token=secret")
    body = problem(answer, 500, "internal_error")
    assert "a bug" not in answer.text
    errors = [record for record in caplog.records if record.levelname == "ERROR"]
    assert len(errors) == 1
    assert body["instance"] in errors[0].getMessage()
    assert "secret" not in caplog.text
