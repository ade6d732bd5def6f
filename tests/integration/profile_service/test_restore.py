"""A profile service whose database was replaced by a backup: old sessions stay dead."""

import asyncio
from pathlib import Path

import pytest

from profile_service.__main__ import main
from tests.support.profile_service import (
    PASSWORD,
    RunningService,
    bearer,
    fast_settings,
    running_service,
)


@pytest.fixture(autouse=True)
def _data_dir(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DUET_DATA_DIR", str(tmp_path / "data"))


async def feed_event(service: RunningService, last_id: str | None = None) -> tuple[str, str]:
    """The kind and the id of the first event for a follower that resumes there."""
    headers = service.as_service | ({} if last_id is None else {"Last-Event-ID": last_id})
    async with (
        asyncio.timeout(10),
        service.client.stream("GET", "/internal/revocations", headers=headers) as answer,
    ):
        lines = answer.aiter_lines()
        kind, event_id = [await anext(lines) for _ in range(2)]
    return kind.removeprefix("event: "), event_id.removeprefix("id: ")


async def test_sessions_that_ended_after_the_backup_do_not_come_back(tmp_path: Path) -> None:
    settings = fast_settings(tmp_path / "data")
    async with running_service(settings) as service:
        kept, ended = await service.sign_up("kept"), await service.sign_up("ended")
        assert main(["backup", str(tmp_path / "backup")]) == 0
        await service.client.delete("/v1/sessions", headers=bearer(ended))
    assert main(["restore", str(tmp_path / "backup")]) == 0
    async with running_service(settings) as service:
        for granted in (kept, ended):
            tokens = {name: granted[name] for name in ("access_token", "refresh_token")}
            assert await service.introspect(tokens) == [{"active": False}]
            refused = await service.client.post(
                "/v1/token", json={"refresh_token": granted["refresh_token"]}
            )
            assert refused.json()["code"] == "invalid_grant"
        again = await service.client.post(
            "/v1/sessions", json={"username": "ended", "password": PASSWORD}
        )
        assert again.status_code == 201


async def test_followers_of_the_feed_notice(tmp_path: Path) -> None:
    settings = fast_settings(tmp_path / "data")
    async with running_service(settings) as service:
        at_the_start = (await feed_event(service))[1]
        granted = await service.sign_up()
        await service.client.delete("/v1/sessions", headers=bearer(granted))
        after_one = (await feed_event(service))[1]
        assert (await feed_event(service, after_one))[0] == "ready"
        assert main(["backup", str(tmp_path / "backup")]) == 0
    assert main(["restore", str(tmp_path / "backup")]) == 0
    async with running_service(settings) as service:
        for place in (at_the_start, after_one):
            assert (await feed_event(service, place))[0] == "reset"


async def test_running_service_is_not_restored_under_its_feet(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with running_service(fast_settings(tmp_path / "data")):
        assert main(["backup", str(tmp_path / "backup")]) == 0
        assert main(["restore", str(tmp_path / "backup")]) == 1
    assert "stop the profile service first" in capsys.readouterr().err
