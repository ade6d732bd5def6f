"""The web page that the profile service serves: what is there, and what is not."""

from pathlib import Path

import pytest

from profile_service.app import Settings
from tests.support.profile_service import fast_settings, running_service


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    web = tmp_path / "web"
    (web / "app").mkdir(parents=True)
    (web / "index.html").write_text("<!doctype html><title>Duet</title>")
    (web / "app" / "main.js").write_text("export {};")
    (web / ".hidden.js").write_text("no")
    (web / "notes.txt").write_text("no")
    (tmp_path / "secret.js").write_text("no")
    return web


@pytest.fixture
def settings(tmp_path: Path, folder: Path) -> Settings:
    return fast_settings(tmp_path / "data", web_client_dir=folder)


async def test_page_is_served_at_the_root_and_by_name(settings: Settings) -> None:
    async with running_service(settings) as service:
        for path in ("/", "/index.html"):
            page = await service.client.get(path)
            assert page.status_code == 200
            assert page.headers["content-type"] == "text/html; charset=utf-8"
            assert "<title>Duet</title>" in page.text
        script = await service.client.get("/app/main.js")
        assert script.headers["content-type"] == "text/javascript; charset=utf-8"


async def test_policy_lets_the_page_reach_this_service_and_the_gateway_alone(
    settings: Settings,
) -> None:
    async with running_service(settings) as service:
        policy = (await service.client.get("/")).headers["content-security-policy"]
    directives = dict(part.strip().partition(" ")[::2] for part in policy.split(";"))
    assert directives["default-src"] == "'none'"
    assert directives["script-src"] == "'self'"
    assert directives["img-src"] == "'self' data:"
    assert directives["connect-src"] == "'self' ws://127.0.0.1:8765 ws://localhost:8765"
    assert directives["frame-ancestors"] == "'none'"


async def test_browser_that_holds_the_file_is_told_so(settings: Settings) -> None:
    async with running_service(settings) as service:
        first = await service.client.get("/app/main.js")
        assert first.headers["cache-control"] == "no-cache"
        tag = first.headers["etag"]
        for held in (tag, f"W/{tag}", f'"other", {tag}'):
            again = await service.client.get("/app/main.js", headers={"If-None-Match": held})
            assert (again.status_code, again.content) == (304, b"")
            assert again.headers["etag"] == tag
        other = await service.client.get("/app/main.js", headers={"If-None-Match": '"other"'})
        assert other.status_code == 200


async def test_only_get_and_head_are_answered(settings: Settings) -> None:
    async with running_service(settings) as service:
        head = await service.client.head("/")
        assert (head.status_code, head.content) == (200, b"")
        refused = await service.client.post("/", content=b"x")
        assert refused.status_code == 405
        assert refused.headers["allow"] == "GET, HEAD"
        assert refused.json()["code"] == "method_not_allowed"


@pytest.mark.parametrize(
    "path", ["/../secret.js", "/%2e%2e/secret.js", "/.hidden.js", "/notes.txt", "/app/", "/app"]
)
async def test_nothing_else_of_the_disk_is_served(settings: Settings, path: str) -> None:
    async with running_service(settings) as service:
        assert (await service.client.get(path)).status_code == 404


async def test_page_learns_where_the_gateway_is(settings: Settings) -> None:
    async with running_service(settings) as service:
        asked = await service.client.get("/client-config.json")
        assert asked.json() == {
            "gateway_url": "ws://127.0.0.1:8765/v1/ws",
            "image_origins": [],
        }
        by_name = await service.client.get("/client-config.json", headers={"Host": "localhost:1"})
        assert by_name.json()["gateway_url"] == "ws://localhost:8765/v1/ws"


async def test_settings_name_another_gateway_and_origins_of_pictures(
    tmp_path: Path, folder: Path
) -> None:
    settings = fast_settings(
        tmp_path / "data",
        web_client_dir=folder,
        web_gateway_urls="wss://chat.example/v1/ws",
        web_image_origins="https://pictures.example",
    )
    async with running_service(settings) as service:
        asked = (await service.client.get("/client-config.json")).json()
        policy = (await service.client.get("/")).headers["content-security-policy"]
    assert asked == {
        "gateway_url": "wss://chat.example/v1/ws",
        "image_origins": ["https://pictures.example"],
    }
    assert "connect-src 'self' wss://chat.example;" in policy
    assert "img-src 'self' data: https://pictures.example;" in policy


async def test_setting_leaves_the_page_out(tmp_path: Path, folder: Path) -> None:
    settings = fast_settings(tmp_path / "data", web_client=False, web_client_dir=folder)
    async with running_service(settings) as service:
        for path in ("/", "/client-config.json"):
            answer = await service.client.get(path)
            assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


@pytest.mark.parametrize(
    "faulty",
    [
        {"web_gateway_urls": "http://chat.example"},
        {"web_gateway_urls": "wss://chat.example/; script-src *"},
        {"web_image_origins": "https://pictures.example/a b"},
    ],
)
def test_setting_that_could_loosen_the_policy_is_refused(
    tmp_path: Path, faulty: dict[str, str]
) -> None:
    with pytest.raises(ValueError, match="is not a"):
        fast_settings(tmp_path, **faulty)
