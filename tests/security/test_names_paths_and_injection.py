"""Look-alike names, crooked paths, and text that wants to be a header or a line of a log."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from tests.support.client import Client
from tests.support.gateway import running_gateway
from tests.support.profile_postgres import migrated_url
from tests.support.profile_service import (
    PASSWORD,
    RunningService,
    bearer,
    fast_settings,
    running_service,
    spawned_service,
)

_LOOK_ALIKES = [
    "аlice",  # Cyrillic а
    "alicе",  # Cyrillic е
    "αlice",  # Greek α
    "ａlice",  # full width
    "aliсe",  # Cyrillic с
    "al\u0131ce",  # dotless i
    "al\u00adice",  # soft hyphen
    "alice\u200b",  # zero width space
    "\u202ealice",  # right-to-left override
    "alice\u0301",  # combining accent
    "alice ",
    " alice",
    "alice\x00",
    "alice\n",
]
_SAME_NAME = ["Alice", "ALICE", "aLiCe"]


@pytest.fixture(params=["sqlite", "postgresql"])
async def service(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[RunningService]:
    changes: dict[str, Any] = {}
    if request.param == "postgresql":
        changes["database_url"] = migrated_url(request.getfixturevalue("postgres_databases"))
    async with running_service(fast_settings(tmp_path, **changes)) as service:
        yield service


async def test_nobody_can_sign_up_as_a_look_alike(service: RunningService) -> None:
    await service.sign_up("alice")
    for name in [*_LOOK_ALIKES, *_SAME_NAME]:
        body = {"username": name, "password": PASSWORD}
        answer = await service.client.post("/v1/users", json=body)
        assert answer.status_code == (409 if name in _SAME_NAME else 422), name
    for name in _LOOK_ALIKES:  # nor log in as one
        body = {"username": name, "password": PASSWORD}
        assert (await service.client.post("/v1/sessions", json=body)).status_code == 401, name


async def test_what_no_database_can_hold_is_nobody(service: RunningService) -> None:
    for path in ("/v1/users/a%00b", "/internal/users/u%00", "/internal/users?id=%00&id=u_x"):
        answer = await service.client.get(path, headers=service.as_service)
        assert answer.status_code in {200, 401, 404}, answer.text
    held = {"sid": "\0", "sub": "\0", "ver": 2**62}
    answer = await service.client.post(
        "/internal/sessions/status", json={"sessions": [held]}, headers=service.as_service
    )
    assert answer.json() == {"ended": ["\0"]}
    anna = await service.sign_up("anna")
    for field in ("bio", "display_name"):
        answer = await service.client.patch(
            "/v1/users/me", json={field: "a\0b"}, headers=bearer(anna)
        )
        assert answer.status_code == 422
    answer = await service.client.delete("/v1/sessions/s_%00", headers=bearer(anna))
    assert answer.status_code == 404
    body = {"username": "anna", "password": PASSWORD, "device_name": "a\0b"}
    assert (await service.client.post("/v1/sessions", json=body)).status_code == 422


@pytest.mark.parametrize(
    "path",
    [
        "/v1/users/../../internal/revocations",
        "/v1/users/%2e%2e/%2e%2e/internal/revocations",
        "/v1/..%2finternal/revocations",
        "//internal/revocations",
        "/internal//revocations",
        "/internal/revocations/",
        "/internal/revocations%00",
        "/internal/revocations;x",
        "/INTERNAL/revocations",
        "/%69nternal/revocations",
        "/internal/revocations?x=/v1/users",
        "/docs/../keys/x.pem",
        "/docs/%2e%2e%2fkeys",
        "/docs/..%5c..%5cusers.db",
        "/../users.db",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/users.db",
        "/clients/web/../../pyproject.toml",
    ],
)
async def test_no_path_leads_past_the_guard_or_out_of_a_folder(
    service: RunningService, path: str
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    async with asyncio.timeout(10):
        answer = await reader.read()
    writer.close()
    status = int(answer.split(b" ", 2)[1])
    assert status in {400, 401, 404}, answer
    assert b"root:" not in answer
    assert b"PRIVATE KEY" not in answer


async def test_prefix_search_takes_no_wildcards(service: RunningService) -> None:
    me = bearer(await service.sign_up("wildcard-tester"))
    for prefix in ("%", "_", "*", "w%", "' OR 1=1 --"):
        answer = await service.client.get("/v1/users", params={"prefix": prefix}, headers=me)
        assert answer.status_code == 422 or answer.json()["users"] == [], prefix


_EVIL = 'x\r\nSet-Cookie: a=b\r\n\r\n{"level":"error","event":"forged"}\x1b[2J\u2028\u0085'


def test_no_text_of_a_client_becomes_a_header_or_a_line_of_the_log(tmp_path: Path) -> None:
    with (
        spawned_service(tmp_path, DUET_ACCESS_LOG="true", DUET_LOG_LEVEL="debug") as service,
        httpx.Client(base_url=service.url, trust_env=False) as client,
    ):
        answers = [
            client.post("/v1/users", json={"username": _EVIL, "password": PASSWORD}),
            client.post("/v1/sessions", json={"username": _EVIL, "password": PASSWORD}),
            client.post(
                "/v1/users",
                json={"username": "mallory", "password": PASSWORD, "device_name": _EVIL},
            ),
        ]
        created = client.post("/v1/users", json={"username": "mallory", "password": PASSWORD})
        me = bearer(created.json())
        answers += [
            client.patch("/v1/users/me", json={"bio": _EVIL, "display_name": _EVIL}, headers=me),
            client.get("/v1/users/" + _EVIL.encode().hex(), headers=me),
            client.get("/v1/users/x%0d%0aSet-Cookie:%20a=b", headers=me),
            client.get("/v1/users", params={"prefix": _EVIL}, headers=me),
            client.get("/", headers={"User-Agent": "x\x1b[2J", "X-Request-Id": "a\tb"}),
        ]
        assert service.stop() == 0
    for answer in answers:
        assert "set-cookie" not in answer.headers
    lines = "".join(service.log).splitlines(keepends=False)
    events = [json.loads(line) for line in lines if line]  # one object a line, nothing else
    assert "forged" not in {event["event"] for event in events}
    assert "\x1b" not in "".join(service.log)


async def test_text_of_a_message_is_text(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    text = _EVIL + "<script>alert(1)</script>'; DROP TABLE messages; --"
    async with running_gateway(tmp_path) as gateway:
        ann, bob = gateway.profile.sign_up("ann"), gateway.profile.sign_up("bob")
        async with gateway.talking(ann) as a, gateway.talking(bob) as b:
            await a.say(bob.user_id, text, "'; DROP TABLE messages; --")
            await b.expect("message", text=text)
            await b.send(type="search", id="s", query='"" OR * NEAR( DROP')
            await b.expect("search", id="s")
            await b.send(type="history", id="h", **{"with": ann.user_id})
            history = await b.expect("history", id="h")
            assert [message["text"] for message in history["messages"]] == [text]
    printed = capfd.readouterr()
    assert "forged" not in printed.out + printed.err


async def test_compression_is_not_agreed_to(tmp_path: Path) -> None:
    async with running_gateway(tmp_path) as gateway:
        ann = gateway.profile.sign_up("ann")
        async with connect(gateway.url, proxy=None, compression="deflate") as socket:
            assert socket.protocol.extensions == []
            await Client(socket).connect(ann.access_token)


@pytest.mark.parametrize(
    "origin", ["null", "https://evil.example", "http://127.0.0.1:8000.evil.example", "file://"]
)
async def test_pages_of_other_origins_get_no_connection(tmp_path: Path, origin: str) -> None:
    async with running_gateway(tmp_path) as gateway:
        with pytest.raises(InvalidStatus, match="403"):
            async with Client.open(gateway.url, origin=origin):
                pass


async def test_pages_of_other_origins_may_not_call_the_api(service: RunningService) -> None:
    headers = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
    answer = await service.client.options("/v1/sessions", headers=headers)
    assert "access-control-allow-origin" not in answer.headers
    answer = await service.client.get("/healthz", headers={"Origin": "https://evil.example"})
    assert "access-control-allow-origin" not in answer.headers
