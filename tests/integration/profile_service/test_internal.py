"""What the gateway relies on: verification, look-ups, the feed, the poll."""

import asyncio
import contextlib
import dataclasses
import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from profile_service.ports import AuditEntry, Rotation
from profile_service.rotation import PresentedRefresh
from profile_service.rotations import RotationGroups
from shared.introspection import MAX_PAIRS, MAX_USER_IDS
from shared.revocation import MAX_SESSIONS
from tests.support.profile_service import (
    ManualClock,
    RunningService,
    bearer,
    fast_settings,
    running_service,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")

FEED = "/internal/revocations"


@dataclasses.dataclass
class Feed:
    """The feed as a follower reads it."""

    lines: AsyncIterator[str]

    async def event(self) -> tuple[str, str, Any]:
        """Return the next event: kind, id, data."""
        fields: dict[str, str] = {}
        async with asyncio.timeout(10):
            async for line in self.lines:
                if line.startswith(":"):
                    continue
                if not line and fields:
                    return fields["event"], fields["id"], json.loads(fields["data"])
                name, _, value = line.partition(": ")
                if name:
                    fields[name] = value
        raise AssertionError("the feed ended")

    async def ends(self) -> bool:
        async with asyncio.timeout(10):
            async for line in self.lines:
                if line and not line.startswith(":"):
                    return False
        return True


@contextlib.asynccontextmanager
async def following(service: RunningService, last_id: str | None = None) -> AsyncIterator[Feed]:
    headers = service.as_service | ({} if last_id is None else {"Last-Event-ID": last_id})
    async with service.client.stream("GET", FEED, headers=headers) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        yield Feed(answer.aiter_lines())


async def log_out_everywhere(service: RunningService, person: dict[str, Any]) -> None:
    answer = await service.client.delete("/v1/sessions", headers=bearer(person))
    assert answer.status_code == 204


def pair(tokens: dict[str, Any]) -> dict[str, str]:
    return {name: tokens[name] for name in ("access_token", "refresh_token")}


async def test_one_pair_or_a_list_is_verified(service: RunningService) -> None:
    created = await service.sign_up("Verified")
    answer = await service.client.post(
        "/internal/introspect",
        json={"access_token": created["access_token"]},
        headers=service.as_service,
    )
    verified = answer.json()
    assert verified["active"] is True
    assert verified["sub"] == created["user"]["id"]
    assert (verified["username"], verified["ver"]) == ("Verified", 1)
    assert verified["sid"] == created["session_id"]
    assert "tokens" not in verified
    listed = await service.introspect(pair(created), {"access_token": "x"}, pair(created))
    assert listed == [verified, {"active": False}, verified]
    assert await service.introspect() == []


async def test_tokens_of_different_sessions_do_not_make_a_pair(service: RunningService) -> None:
    one = await service.sign_up("pairing")
    two = await service.log_in("pairing")
    mixed = {"access_token": one["access_token"], "refresh_token": two["refresh_token"]}
    garbage = {"access_token": one["access_token"], "refresh_token": "garbage"}
    swapped = {"access_token": one["refresh_token"], "refresh_token": one["access_token"]}
    assert await service.introspect(mixed, garbage, swapped) == [{"active": False}] * 3


async def test_an_old_refresh_token_beside_a_valid_access_token_ends_nothing(
    service: RunningService,
) -> None:
    first = await service.sign_up()
    second, third = first, first
    for _ in range(2):
        answer = await service.client.post(
            "/v1/token", json={"refresh_token": third["refresh_token"]}
        )
        second, third = third, answer.json()
    results = await service.introspect(
        *(
            {"access_token": third["access_token"], "refresh_token": tokens["refresh_token"]}
            for tokens in (first, second, third)
        )
    )
    assert [result["active"] for result in results] == [False, True, True]


async def test_expired_access_with_a_good_refresh_token_gives_new_tokens(tmp_path: Path) -> None:
    clock = ManualClock()
    async with running_service(fast_settings(tmp_path), clock=clock) as service:
        created = await service.sign_up()
        clock.advance(601)
        (alone,) = await service.introspect({"access_token": created["access_token"]})
        assert alone == {"active": False}
        (verified,) = await service.introspect(pair(created))
        assert verified["active"] is True
        assert verified["exp"] == clock() + 600
        assert verified["tokens"]["expires_in"] == 600
        (again,) = await service.introspect(pair(verified["tokens"]))
        assert again["active"] is True
        assert "tokens" not in again
        clock.advance(601)
        (stolen,) = await service.introspect(pair(created))
        assert stolen == {"active": False}
        assert await service.introspect(pair(verified["tokens"])) == [{"active": False}]


async def test_session_that_ends_while_it_is_refreshed_spoils_no_other_verification(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = ManualClock()
    rotate = RotationGroups.rotate

    async def rotate_slowly(
        groups: RotationGroups, presented: PresentedRefresh, audit: AuditEntry
    ) -> Rotation:
        rotation = await rotate(groups, presented, audit)
        clock.advance(1)
        return rotation

    settings = fast_settings(tmp_path, refresh_token_lifetime_s=3600)
    async with running_service(settings, clock=clock) as service:
        ending = await service.sign_up()
        answer = await service.client.post(
            "/v1/token", json={"refresh_token": ending["refresh_token"]}
        )
        assert answer.status_code == 200
        clock.advance(3599)
        other = await service.sign_up()
        monkeypatch.setattr(RotationGroups, "rotate", rotate_slowly)
        verified = await service.introspect(pair(ending), pair(other))
        assert [answer["active"] for answer in verified] == [False, True]


async def test_a_full_batch_is_verified_and_a_larger_one_refused(service: RunningService) -> None:
    created = await service.sign_up()
    full = await service.introspect(*[pair(created)] * MAX_PAIRS)
    assert all(verified["active"] for verified in full)
    answer = await service.client.post(
        "/internal/introspect",
        json=[pair(created)] * (MAX_PAIRS + 1),
        headers=service.as_service,
    )
    assert answer.status_code == 422


async def test_users_are_looked_up_one_or_several(service: RunningService) -> None:
    one = (await service.sign_up())["user"]
    two = (await service.sign_up())["user"]
    single = await service.client.get(f"/internal/users/{one['id']}", headers=service.as_service)
    assert single.json() == {"id": one["id"], "username": one["username"]}
    missing = await service.client.get("/internal/users/u_none", headers=service.as_service)
    assert (missing.status_code, missing.json()["code"]) == (404, "user_not_found")

    async def look_up(*ids: str) -> httpx.Response:
        return await service.client.get(
            "/internal/users", params={"id": list(ids)}, headers=service.as_service
        )

    several = await look_up(one["id"], "u_none", two["id"])
    found = {user["id"]: user["username"] for user in several.json()["users"]}
    assert found == {one["id"]: one["username"], two["id"]: two["username"]}
    assert (await look_up(*["u_none"] * (MAX_USER_IDS + 1))).status_code == 422
    assert (await look_up()).status_code == 422


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/internal/introspect"),
        ("GET", "/internal/users?id=u_x"),
        ("GET", "/internal/users/u_x"),
        ("GET", FEED),
        ("POST", "/internal/sessions/status"),
    ],
)
async def test_internal_routes_want_a_service_token(
    service: RunningService, method: str, path: str
) -> None:
    person = bearer(await service.sign_up())
    for headers in ({}, person, {"Authorization": "Bearer x"}):
        answer = await service.client.request(method, path, headers=headers)
        assert answer.status_code == 401
        assert answer.json()["code"] == "invalid_token"
        assert "duet-internal" in answer.headers["www-authenticate"]


async def test_the_feed_tells_of_every_kind_of_end_at_once(service: RunningService) -> None:
    created = await service.sign_up("fed")
    other = await service.log_in("fed")
    user = created["user"]["id"]
    async with following(service) as feed:
        assert (await feed.event())[0] == "ready"
        await service.client.delete("/v1/sessions/current", headers=bearer(other))
        kind, _, data = await feed.event()
        assert (kind, data) == (
            "revocation",
            {"kind": "session", "user_id": user, "session_id": other["session_id"]},
        )
        await log_out_everywhere(service, created)
        _, _, data = await feed.event()
        assert data == {"kind": "all_sessions", "user_id": user, "token_version": 2}
        fresh = await service.log_in("fed")
        await service.client.request(
            "DELETE",
            "/v1/users/me",
            json={"password": "correct horse battery"},
            headers=bearer(fresh),
        )
        _, _, data = await feed.event()
        assert data == {"kind": "user_deleted", "user_id": user}


async def test_a_password_change_names_the_session_that_is_kept(service: RunningService) -> None:
    created = await service.sign_up()
    change = {"current_password": "correct horse battery", "new_password": "another, much better"}
    async with following(service) as feed:
        await feed.event()
        await service.client.put("/v1/users/me/password", json=change, headers=bearer(created))
        _, _, data = await feed.event()
        assert data == {
            "kind": "all_sessions",
            "user_id": created["user"]["id"],
            "token_version": 2,
            "kept_session_id": created["session_id"],
        }


async def test_a_replayed_refresh_token_reaches_the_feed(service: RunningService) -> None:
    created = await service.sign_up()
    tokens = created
    for _ in range(2):
        tokens = (
            await service.client.post("/v1/token", json={"refresh_token": tokens["refresh_token"]})
        ).json()
    async with following(service) as feed:
        await feed.event()
        await service.client.post("/v1/token", json={"refresh_token": created["refresh_token"]})
        _, _, data = await feed.event()
        assert data["session_id"] == created["session_id"]


async def test_a_follower_resumes_where_it_was(service: RunningService) -> None:
    people = [await service.sign_up() for _ in range(3)]
    async with following(service) as feed:
        _, start, _ = await feed.event()
        await log_out_everywhere(service, people[0])
        _, seen, _ = await feed.event()
    for person in people[1:]:
        await log_out_everywhere(service, person)
    for resumed_from, missed in ((seen, people[1:]), (start, people)):
        async with following(service, resumed_from) as feed:
            assert (await feed.event())[:2] == ("ready", resumed_from)
            users = [(await feed.event())[2]["user_id"] for _ in missed]
            assert users == [person["user"]["id"] for person in missed]


async def test_two_followers_hear_the_same(service: RunningService) -> None:
    person = await service.sign_up()
    async with following(service) as one, following(service) as two:
        await one.event()
        await two.event()
        await log_out_everywhere(service, person)
        assert await one.event() == await two.event()


@pytest.mark.parametrize("last_id", ["nonsense", "5-0000000000000000", "999999-abcdefabcdefabcd"])
async def test_an_unknown_place_is_a_reset(service: RunningService, last_id: str) -> None:
    async with following(service, last_id) as feed:
        reset, ready = await feed.event(), await feed.event()
        assert (reset[0], ready[0]) == ("reset", "ready")
        assert reset[1] == ready[1]
        person = await service.sign_up()
        await log_out_everywhere(service, person)
        assert (await feed.event())[0] == "revocation"


async def test_a_restored_backup_is_a_reset_even_at_the_same_position(tmp_path: Path) -> None:
    settings = fast_settings(tmp_path / "live")
    async with running_service(settings) as service:
        person = await service.sign_up("restored")
    shutil.copytree(tmp_path / "live", tmp_path / "backup")
    async with running_service(settings) as service, following(service) as feed:
        await feed.event()
        await log_out_everywhere(service, person)
        _, seen, _ = await feed.event()
    async with running_service(fast_settings(tmp_path / "backup")) as service:
        await log_out_everywhere(service, await service.log_in("restored"))
        async with following(service, seen) as feed:
            assert (await feed.event())[0] == "reset"


async def test_the_feed_survives_a_restart_of_the_service(tmp_path: Path) -> None:
    settings = fast_settings(tmp_path)
    async with running_service(settings) as service, following(service) as feed:
        person = await service.sign_up("restarted")
        _, start, _ = await feed.event()
        await log_out_everywhere(service, person)
    async with running_service(settings) as service, following(service, start) as feed:
        assert (await feed.event())[:2] == ("ready", start)
        assert (await feed.event())[2]["user_id"] == person["user"]["id"]


async def test_a_shutdown_ends_the_feed_and_does_not_wait(tmp_path: Path) -> None:
    settings = fast_settings(tmp_path, profile_shutdown_timeout_s=60)
    async with contextlib.AsyncExitStack() as stack, running_service(settings) as service:
        feed = await stack.enter_async_context(following(service))
        await feed.event()
        service.service.feed.close()
        assert await feed.ends()


async def test_the_poll_tells_ended_sessions_from_living_ones(service: RunningService) -> None:
    alive, ended = await service.sign_up(), await service.sign_up()
    await log_out_everywhere(service, ended)
    held = [
        {"sid": person["session_id"], "sub": person["user"]["id"], "ver": 1}
        for person in (alive, ended)
    ]
    answer = await service.client.post(
        "/internal/sessions/status", json={"sessions": held}, headers=service.as_service
    )
    assert answer.json() == {"ended": [ended["session_id"]]}
    too_many = await service.client.post(
        "/internal/sessions/status",
        json={"sessions": held[:1] * (MAX_SESSIONS + 1)},
        headers=service.as_service,
    )
    assert too_many.status_code == 422
