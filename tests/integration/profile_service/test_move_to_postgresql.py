"""A service that outgrows its data directory: everything is in PostgreSQL afterwards."""

import asyncio
import contextlib
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

from profile_service import upkeep
from profile_service.__main__ import main
from profile_service.ports import KeysUnusable
from profile_service.settings import Settings
from shared.database import DatabaseUnavailable
from shared.sqlite import lock
from tests.support.postgres import Databases
from tests.support.profile_service import RunningService, bearer, fast_settings, running_service


class Killed(BaseException):
    """As if the process ended."""


@pytest.fixture
def url(postgres_databases: Databases) -> str:
    return postgres_databases.empty()


@pytest.fixture
def before(tmp_path: Path) -> Settings:
    return fast_settings(tmp_path / "data")


@pytest.fixture
def after(tmp_path: Path, url: str) -> Settings:
    return fast_settings(tmp_path / "data", database_url=url)


def content(directory: Path) -> dict[str, str]:
    """The files that hold something."""
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(directory.rglob("*"))
        if path.is_file() and path.suffix in {".db", ".pem"}
    }


async def feed_place(service: RunningService, last_id: str | None = None) -> tuple[str, str]:
    """The first event that a follower gets, and its id."""
    headers = service.as_service | ({} if last_id is None else {"Last-Event-ID": last_id})
    async with service.client.stream("GET", "/internal/revocations", headers=headers) as answer:
        lines = answer.aiter_lines()
        event, place = [await anext(lines) for _ in range(2)]
        return event.removeprefix("event: "), place.removeprefix("id: ")


async def used(settings: Settings) -> dict[str, Any]:
    """Run the service for a while; return what people and services hold of it."""
    async with running_service(settings) as service:
        anna = await service.sign_up("Anna")
        ben = await service.sign_up("ben")
        await service.sign_up("gone")
        other = await service.log_in("ben")
        await service.client.delete("/v1/sessions/current", headers=bearer(other))
        _, place = await feed_place(service)
        keys = (await service.client.get("/.well-known/jwks.json")).json()
        return {"anna": anna, "ben": ben, "other": other, "place": place, "keys": keys}


async def test_everybody_stays_logged_in_and_nothing_is_lost(
    before: Settings, after: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    held = await used(before)
    assert "users_db_is_not_used" not in caplog.text
    files = content(before.data_dir)
    lines = await upkeep.move(after, lambda _table, _rows: None)
    assert [line.partition(", checksum")[0] for line in lines] == [
        "users: 3 rows",
        "sessions: 4 rows",
        "external_identities: 0 rows",
        "revocations: 1 rows",
        "audit: 5 rows",
    ]
    assert content(before.data_dir) == files

    async with running_service(after) as service:
        assert "users_db_is_not_used" in caplog.text
        assert (await service.client.get("/.well-known/jwks.json")).json() == held["keys"]
        pairs = [{"access_token": held[name]["access_token"]} for name in ("anna", "ben", "other")]
        assert [found["active"] for found in await service.introspect(*pairs)] == [
            True,
            True,
            False,
        ]
        answer = await service.client.post(
            "/v1/token", json={"refresh_token": held["anna"]["refresh_token"]}
        )
        assert answer.status_code == 200
        assert await feed_place(service, held["place"]) == ("ready", held["place"])
        await service.client.delete("/v1/sessions", headers=bearer(held["ben"]))
        event, place = await feed_place(service)
        assert (event, place.partition("-")[0]) == ("ready", "2")
        await service.log_in("anna")
        taken = await service.client.post(
            "/v1/users", json={"username": "GONE", "password": "correct horse battery"}
        )
        assert taken.status_code == 409


@pytest.mark.parametrize("killed_at", [("users", 3), ("sessions", 4), ("audit", 5)])
async def test_a_killed_move_is_finished_by_the_next(
    before: Settings, after: Settings, killed_at: tuple[str, int]
) -> None:
    held = await used(before)

    def kill(*at: object) -> None:
        if at == killed_at:
            raise Killed

    with pytest.raises(Killed):
        await upkeep.move(after, kill)
    with pytest.raises(DatabaseUnavailable, match="unfinished move"):
        async with running_service(after):
            pass
    await upkeep.move(after, lambda _table, _rows: None)
    async with running_service(after) as service:
        (found,) = await service.introspect({"access_token": held["anna"]["access_token"]})
        assert found["active"]


async def test_the_command_says_what_it_does_and_what_is_in_the_way(
    before: Settings,
    after: Settings,
    url: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    await used(before)
    monkeypatch.setenv("DUET_DATA_DIR", str(before.data_dir))
    secret = before.shared_secret().decode()
    monkeypatch.setenv("DUET_SERVICE_SECRET", secret)

    def run() -> tuple[int, str, str]:
        status = main(["move-to-postgresql"])
        output = capsys.readouterr()
        return status, output.out, output.err

    status, _, errors = await asyncio.to_thread(run)
    assert status == 1
    assert "DUET_DATABASE_URL is not set" in errors

    monkeypatch.setenv("DUET_DATABASE_URL", url)
    with contextlib.ExitStack() as running:
        running.callback(os.close, lock(before.data_dir / "users.db"))
        status, _, errors = await asyncio.to_thread(run)
    assert status == 1
    assert "stop the profile service first" in errors

    status, output, errors = await asyncio.to_thread(run)
    assert status == 0
    assert "users: 3 rows, checksum " in output
    assert "moved. Start the service with DUET_DATABASE_URL" in output
    assert "users: 3 rows copied" in errors

    status, _, errors = await asyncio.to_thread(run)
    assert status == 1
    assert "the PostgreSQL database is in use: its table users is not empty" in errors


async def test_after_a_restore_everybody_is_logged_out(
    after: Settings, url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    held = await used(after)
    monkeypatch.setenv("DUET_DATABASE_URL", url)
    assert await asyncio.to_thread(main, ["after-restore"]) == 0
    assert "Everybody must log in again" in capsys.readouterr().out
    async with running_service(after) as service:
        pairs = [{"access_token": held[name]["access_token"]} for name in ("anna", "ben")]
        assert [found["active"] for found in await service.introspect(*pairs)] == [False, False]
        headers = service.as_service | {"Last-Event-ID": held["place"]}
        ended = set()
        async with service.client.stream("GET", "/internal/revocations", headers=headers) as feed:
            async for line in feed.aiter_lines():
                if line.startswith("data: ") and (data := json.loads(line[6:])):
                    assert (data["kind"], data["token_version"]) == ("all_sessions", 2)
                    ended.add(data["user_id"])
                    if len(ended) == 3:
                        break
        assert held["anna"]["user"]["id"] in ended
        await service.log_in("anna")


async def test_keys_outlive_a_change_of_the_service_secret(
    after: Settings,
    url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    held = await used(after)
    (tmp_path / "old").write_bytes(after.shared_secret() + b"\n")
    changed = "another secret of the tests, at least 32 bytes"
    settings = fast_settings(tmp_path / "data", database_url=url, service_secret=changed)
    with pytest.raises(KeysUnusable, match="another service secret"):
        async with running_service(settings):
            pass
    monkeypatch.setenv("DUET_DATABASE_URL", url)
    monkeypatch.setenv("DUET_SERVICE_SECRET", changed)
    assert await asyncio.to_thread(main, ["reseal-keys", str(tmp_path / "old")]) == 0
    assert "1 keys are encrypted" in capsys.readouterr().out
    async with running_service(settings) as service:
        (found,) = await service.introspect({"access_token": held["anna"]["access_token"]})
        assert found["active"]
