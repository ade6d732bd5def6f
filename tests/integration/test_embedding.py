"""The guide to embedding works: the proxy files, the settings and the product that it shows."""

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from websockets.exceptions import InvalidStatus

from tests.support.client import Client
from tests.support.embedding import PROXIES, Embedded, embedded, proxy_path

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=PROXIES)
async def shop(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Embedded]:
    if proxy_path(request.param) is None:
        pytest.skip(f"{request.param} is not installed: apt-get install {request.param}")
    async with embedded(tmp_path_factory.mktemp(request.param), request.param) as running:
        yield running


@contextlib.asynccontextmanager
async def visiting(shop: Embedded, **options: Any) -> AsyncIterator[httpx.AsyncClient]:
    """Somebody's browser, so to speak."""
    async with httpx.AsyncClient(
        base_url=shop.origin,
        transport=httpx.AsyncHTTPTransport(verify=shop.trust, **options),
        timeout=20,
    ) as client:
        yield client


async def sign_in(browser: httpx.AsyncClient, login: str) -> dict[str, Any]:
    """Sign in at the product, and exchange its token."""
    entered = await browser.get(f"/login/{login}")
    assert entered.status_code == 303
    shown = (await browser.get("/chat-token")).json()
    answer = await browser.post("/duet/v1/sessions/external", json={"token": shown["token"]})
    assert answer.status_code == 201, answer.text
    granted: dict[str, Any] = answer.json()
    return granted


def talking(shop: Embedded, granted: dict[str, Any]) -> Any:
    return Client.talking(
        f"wss://localhost:{shop.port}/duet/v1/ws",
        granted["access_token"],
        origin=shop.origin,
        ssl=shop.trust,
    )


async def test_two_of_the_products_people_talk_through_the_proxy(shop: Embedded) -> None:
    async with visiting(shop) as browser:
        ann = await sign_in(browser, "ann")
        bob = await sign_in(browser, "bob")
    assert (ann["user"]["username"], ann["user"]["display_name"]) == ("ann", "Ann Lee")
    async with talking(shop, ann) as of_ann, talking(shop, bob) as of_bob:
        await of_ann.say(bob["user"]["id"], "hello", "m-1")
        message = await of_bob.expect("message", text="hello")
        assert message["from"] == ann["user"]["id"]
        await of_bob.say(ann["user"]["id"], "x" * 4000, "m-1")
        await of_ann.expect("message", text="x" * 4000)


async def test_a_person_stays_the_same_and_the_product_is_all_else(shop: Embedded) -> None:
    async with visiting(shop) as browser:
        first, second = await sign_in(browser, "ann"), await sign_in(browser, "ann")
        assert first["user"] == second["user"]
        page = await browser.get("/")
        module = await browser.get("/duet/duet.js")
        keys = await browser.get("/duet/.well-known/jwks.json")
    assert "/duet/duet.js" in page.text
    assert module.headers["content-type"] == "text/javascript; charset=utf-8"
    assert "export class Duet" in module.text
    assert keys.json()["keys"]


async def test_passwords_are_switched_off(shop: Embedded) -> None:
    async with visiting(shop) as browser:
        body = {"username": "carol", "password": "correct horse battery staple"}
        answer = await browser.post("/duet/v1/users", json=body)
        assert (answer.status_code, answer.json()["code"]) == (403, "sign_up_closed")


async def test_a_refusal_before_the_body_was_read_comes_through(shop: Embedded) -> None:
    async with visiting(shop) as browser:
        for _ in range(20):  # a proxy that ends its connections loses some of them
            refused = await browser.post("/duet/v1/sessions/external", content=b" " * 60_000)
            assert (refused.status_code, refused.json()["code"]) == (415, "unsupported_media_type")


@pytest.mark.parametrize(
    "path",
    [
        "/duet/internal/introspect",
        "/duet/internal/revocations",
        "/duet/metrics",
        "/duet/healthz",
        "/duet/readyz",
        "/duet/docs",
        "/duet/openapi.json",
        "/duet/",
        "/duet/v1/../internal/introspect",
        "/duet/v1/%2e%2e/metrics",
        "/duet/v1/..%2fmetrics",
        "/duet//metrics",
        "/duet/duet.js/../metrics",
        "/internal/introspect",
        "/metrics",
        "/v1/users/me",
    ],
)
async def test_the_rest_of_duet_is_not_there_from_outside(shop: Embedded, path: str) -> None:
    for method in ("GET", "POST"):
        assert await status_of(shop, method, path) == 404


async def status_of(shop: Embedded, method: str, path: str) -> int:
    """Ask for a path exactly as it stands, which no HTTP library does."""
    reader, writer = await asyncio.open_connection("localhost", shop.port, ssl=shop.trust)
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost:{shop.port}\r\n"
    writer.write(f"{head}Content-Length: 0\r\nConnection: close\r\n\r\n".encode())
    answer = await reader.read()
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return int(answer.split()[1])


async def test_a_page_of_another_origin_cannot_connect(shop: Embedded) -> None:
    url = f"wss://localhost:{shop.port}/duet/v1/ws"
    with pytest.raises(InvalidStatus) as refused:
        async with Client.open(url, origin="https://evil.example", ssl=shop.trust):
            pass
    assert refused.value.response.status_code == 403


async def test_the_services_see_the_clients_address_and_no_invented_one(shop: Embedded) -> None:
    async with visiting(shop, local_address="127.0.0.9") as browser:
        browser.headers["X-Forwarded-For"] = "203.0.113.7"
        granted = await sign_in(browser, "bob")
    with contextlib.closing(_read_only(shop.data_dir / "users.db")) as database:
        (address,) = database.execute(
            "SELECT address FROM audit WHERE session_id = ?", (granted["session_id"],)
        ).fetchone()
    assert address == "127.0.0.9"


async def test_no_token_is_in_the_proxys_log(shop: Embedded) -> None:
    async with visiting(shop) as browser:
        granted = await sign_in(browser, "ann")
        async with talking(shop, granted):
            pass
        await browser.get("/duet/v1/users/me", headers={"Authorization": "Bearer eyJhbGci.x.y"})
    assert "eyJ" not in "".join(log.read_text() for log in shop.folder.glob("*.log"))


def _read_only(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{path}?mode=ro", uri=True)
