"""A profile service whose database was replaced by a backup: old sessions stay dead."""

import asyncio
import json
from pathlib import Path
from typing import NamedTuple

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


class FeedEvent(NamedTuple):
    kind: str
    id: str
    data: str


async def feed_events(
    service: RunningService, last_id: str | None = None, count: int = 1
) -> list[FeedEvent]:
    """The first events for a follower that resumes there."""
    headers = service.as_service | ({} if last_id is None else {"Last-Event-ID": last_id})
    async with (
        asyncio.timeout(10),
        service.client.stream("GET", "/internal/revocations", headers=headers) as answer,
    ):
        lines = (line async for line in answer.aiter_lines() if line.partition(":")[0])
        return [
            FeedEvent(*[(await anext(lines)).partition(": ")[2] for _ in range(3)])
            for _ in range(count)
        ]


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


async def test_followers_of_the_feed_hear_of_it(tmp_path: Path) -> None:
    settings = fast_settings(tmp_path / "data")
    async with running_service(settings) as service:
        granted = await service.sign_up()
        await service.client.delete("/v1/sessions", headers=bearer(granted))
        kept = (await service.log_in(granted["user"]["username"]))["user"]["id"]
        in_the_backup = (await feed_events(service))[0].id
        assert main(["backup", str(tmp_path / "backup")]) == 0
        other = await service.sign_up()
        await service.client.delete("/v1/sessions", headers=bearer(other))
        lost = (await feed_events(service))[0].id
    assert main(["restore", str(tmp_path / "backup")]) == 0
    async with running_service(settings) as service:
        assert (await feed_events(service, lost))[0].kind == "reset"
        ready, told = await feed_events(service, in_the_backup, count=2)
        assert (ready.kind, told.kind) == ("ready", "revocation")
        revocation = json.loads(told.data)
        assert revocation == {"kind": "all_sessions", "user_id": kept, "token_version": 3}


async def test_running_service_is_not_restored_under_its_feet(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with running_service(fast_settings(tmp_path / "data")):
        assert main(["backup", str(tmp_path / "backup")]) == 0
        assert main(["restore", str(tmp_path / "backup")]) == 1
    assert "stop the profile service first" in capsys.readouterr().err
