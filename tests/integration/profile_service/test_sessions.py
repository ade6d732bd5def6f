"""Devices refresh their tokens and are logged out."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.support.profile_service import (
    ManualClock,
    RunningService,
    bearer,
    fast_settings,
    running_service,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def refresh(service: RunningService, tokens: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    answer = await service.client.post("/v1/token", json={"refresh_token": tokens["refresh_token"]})
    return answer.status_code, answer.json()


async def test_a_refresh_gives_a_new_pair_for_the_same_session(service: RunningService) -> None:
    created = await service.sign_up()
    status, refreshed = await refresh(service, created)
    assert status == 200
    assert refreshed["session_id"] == created["session_id"]
    assert refreshed["refresh_token"] != created["refresh_token"]
    own = await service.client.get("/v1/users/me", headers=bearer(refreshed))
    assert own.status_code == 200


async def test_a_lost_answer_is_not_theft_however_long_it_takes(tmp_path: Path) -> None:
    clock = ManualClock()
    async with running_service(fast_settings(tmp_path), clock=clock) as service:
        created = await service.sign_up()
        await refresh(service, created)
        clock.advance(86_400)
        status, refreshed = await refresh(service, created)
        assert status == 200
        assert (await refresh(service, refreshed))[0] == 200


async def test_fifty_parallel_refreshes_are_one_step_and_no_theft(
    service: RunningService,
) -> None:
    created = await service.sign_up()
    answers = await asyncio.gather(*(refresh(service, created) for _ in range(50)))
    assert {status for status, _ in answers} == {200}
    pairs = [
        {"access_token": tokens["access_token"], "refresh_token": tokens["refresh_token"]}
        for _, tokens in answers
    ]
    assert all(verified["active"] for verified in await service.introspect(*pairs))
    _, following = await refresh(service, answers[17][1])
    assert (await refresh(service, following))[0] == 200


async def test_a_replayed_token_ends_the_session(service: RunningService) -> None:
    created = await service.sign_up()
    _, second = await refresh(service, created)
    _, third = await refresh(service, second)
    status, problem = await refresh(service, created)
    assert (status, problem["code"]) == (400, "invalid_grant")
    assert (await refresh(service, third))[1]["code"] == "invalid_grant"
    own = await service.client.get("/v1/users/me", headers=bearer(third))
    assert (own.status_code, own.json()["code"]) == (401, "invalid_token")
    assert 'error="invalid_token"' in own.headers["www-authenticate"]


async def test_session_that_is_refreshed_without_end_has_to_wait(tmp_path: Path) -> None:
    clock = ManualClock()
    settings = fast_settings(tmp_path, refresh_burst=2)
    async with running_service(settings, clock=clock) as service:
        created = await service.sign_up()
        _, second = await refresh(service, created)
        _, third = await refresh(service, second)
        for _ in range(3):
            refused = await service.client.post(
                "/v1/token", json={"refresh_token": third["refresh_token"]}
            )
            assert (refused.status_code, refused.headers["retry-after"]) == (429, "10")
            assert refused.json()["code"] == "too_many_attempts"
        assert (await refresh(service, second))[0] == 200  # a retry changes nothing
        clock.advance(10)
        assert (await refresh(service, third))[0] == 200
        assert (await refresh(service, created))[0] == 400  # nor is a replay let off
        assert (await refresh(service, third))[1]["code"] == "invalid_grant"


async def test_tokens_expire(tmp_path: Path) -> None:
    clock = ManualClock()
    settings = fast_settings(tmp_path, refresh_token_lifetime_s=3600)
    async with running_service(settings, clock=clock) as service:
        created = await service.sign_up()
        clock.advance(600)
        own = await service.client.get("/v1/users/me", headers=bearer(created))
        assert own.status_code == 401
        _, refreshed = await refresh(service, created)
        clock.advance(3599)
        status, refreshed = await refresh(service, refreshed)
        assert status == 200
        clock.advance(3600)
        assert (await refresh(service, refreshed))[0] == 400


async def test_an_access_token_refreshes_nothing(service: RunningService) -> None:
    created = await service.sign_up()
    status, problem = await refresh(service, {"refresh_token": created["access_token"]})
    assert (status, problem["code"]) == (400, "invalid_grant")
    own = await service.client.get(
        "/v1/users/me", headers={"Authorization": f"Bearer {created['refresh_token']}"}
    )
    assert own.status_code == 401


async def test_devices_are_listed_and_logged_out_one_by_one(service: RunningService) -> None:
    created = await service.sign_up("lister")
    phone = await service.log_in("lister", device_name="phone")
    tablet = await service.log_in("lister", device_name="tablet")
    listed = await service.client.get("/v1/sessions", headers=bearer(phone))
    sessions = listed.json()["sessions"]
    assert [item["device_name"] for item in sessions] == [None, "phone", "tablet"]
    assert [item["current"] for item in sessions] == [False, True, False]
    assert sessions[0]["user_agent"].startswith("python-httpx")
    ended = await service.client.delete(
        f"/v1/sessions/{tablet['session_id']}", headers=bearer(phone)
    )
    assert ended.status_code == 204
    assert (await refresh(service, tablet))[0] == 400
    again = await service.client.delete(
        f"/v1/sessions/{tablet['session_id']}", headers=bearer(phone)
    )
    assert (again.status_code, again.json()["code"]) == (404, "session_not_found")
    current = await service.client.delete("/v1/sessions/current", headers=bearer(phone))
    assert current.status_code == 204
    assert (await service.client.get("/v1/users/me", headers=bearer(phone))).status_code == 401
    assert (await service.client.get("/v1/users/me", headers=bearer(created))).status_code == 200


async def test_nobody_logs_out_somebody_elses_device(service: RunningService) -> None:
    victim = await service.sign_up()
    eve = await service.sign_up()
    answer = await service.client.delete(
        f"/v1/sessions/{victim['session_id']}", headers=bearer(eve)
    )
    assert answer.status_code == 404
    assert (await refresh(service, victim))[0] == 200


async def test_log_out_of_all_devices_kills_every_token(service: RunningService) -> None:
    created = await service.sign_up("everywhere")
    devices = [created, *[await service.log_in("everywhere") for _ in range(3)]]
    answer = await service.client.delete("/v1/sessions", headers=bearer(devices[2]))
    assert answer.status_code == 204
    verified = await service.introspect(
        *({"access_token": device["access_token"]} for device in devices)
    )
    assert verified == [{"active": False}] * 4
    for device in devices:
        assert (await refresh(service, device))[0] == 400
    fresh = await service.log_in("everywhere")
    (verified_fresh,) = await service.introspect({"access_token": fresh["access_token"]})
    assert (verified_fresh["active"], verified_fresh["ver"]) == (True, 2)


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({}, "authentication_required"),
        ({"Authorization": "Bearer"}, "authentication_required"),
        ({"Authorization": "Basic dTpw"}, "authentication_required"),
        ({"Authorization": "Bearer nonsense"}, "invalid_token"),
    ],
)
async def test_requests_without_a_good_token_are_told_what_to_send(
    service: RunningService, headers: dict[str, str], code: str
) -> None:
    answer = await service.client.get("/v1/sessions", headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (401, code)
    assert answer.headers["www-authenticate"].startswith("Bearer")


async def test_request_with_two_tokens_is_nobodys(service: RunningService) -> None:
    ann, bob = await service.sign_up("ann"), await service.sign_up("bob")
    twice = [("Authorization", f"Bearer {who['access_token']}") for who in (ann, bob)]
    answer = await service.client.get("/v1/users/me", headers=twice)
    assert (answer.status_code, answer.json()["code"]) == (401, "authentication_required")
