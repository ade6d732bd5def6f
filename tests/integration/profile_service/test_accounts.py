"""People sign up, log in, change what they told, and leave."""

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.profile_service import (
    PASSWORD,
    ManualClock,
    RunningService,
    bearer,
    fast_settings,
    running_service,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")

NEW_PASSWORD = "another horse, another battery"


def pointers(answer: httpx.Response) -> list[str]:
    assert answer.status_code == 422, answer.text
    assert answer.json()["code"] == "validation_failed"
    return [error["pointer"] for error in answer.json()["errors"]]


async def test_sign_up_answers_with_profile_and_tokens(service: RunningService) -> None:
    answer = await service.client.post(
        "/v1/users",
        json={"username": "Alice", "password": PASSWORD, "display_name": "Al", "bio": "hello"},
    )
    assert answer.status_code == 201
    assert answer.headers["location"] == "/v1/users/Alice"
    assert answer.headers["etag"] == '"r1"'
    assert answer.headers["cache-control"] == "no-store"
    created = answer.json()
    assert created["token_type"] == "Bearer"
    assert created["expires_in"] == 600
    assert created["session_id"].startswith("s_")
    user = created["user"]
    assert (user["username"], user["display_name"], user["bio"]) == ("Alice", "Al", "hello")
    assert user["created_at"].endswith("Z")
    assert len(user["created_at"]) == len("2026-01-01T00:00:00.000Z")
    assert "password" not in answer.text
    own = await service.client.get("/v1/users/me", headers=bearer(created))
    assert own.json() == user


async def test_a_name_can_be_had_once_whatever_its_case(service: RunningService) -> None:
    await service.sign_up("Carol")
    answer = await service.client.post(
        "/v1/users", json={"username": "cArOl", "password": PASSWORD}
    )
    assert answer.status_code == 409
    assert answer.json()["code"] == "username_taken"


async def test_of_many_who_want_one_name_one_gets_it(service: RunningService) -> None:
    body = {"username": "wanted", "password": PASSWORD}
    answers = await asyncio.gather(
        *(service.client.post("/v1/users", json=body) for _ in range(10))
    )
    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 9


async def test_all_faults_of_a_sign_up_are_told_at_once(service: RunningService) -> None:
    answer = await service.client.post(
        "/v1/users",
        json={"username": "1", "password": "short", "timezone": "Nowhere", "device_name": ""},
    )
    assert pointers(answer) == ["/username", "/timezone", "/device_name", "/password"]


@pytest.mark.parametrize(
    "password",
    [
        "password1",
        "a" * 60,
        "correcthorse-user",  # the display name
        "weakling-jones",  # the username
        "x" * 129,
        "1234567",
    ],
)
async def test_a_weak_password_is_refused_with_the_reason(
    service: RunningService, password: str
) -> None:
    answer = await service.client.post(
        "/v1/users",
        json={
            "username": "weakling-jones",
            "password": password,
            "display_name": "correcthorse-user",
        },
    )
    assert set(pointers(answer)) == {"/password"}
    assert password not in answer.text


async def test_password_length_counts_characters_and_long_ones_work(
    service: RunningService,
) -> None:
    password = "éa ü-Kø9 " * 14
    body = {"username": "longwinded", "password": password}
    assert (await service.client.post("/v1/users", json=body)).status_code == 201
    assert (await service.client.post("/v1/sessions", json=body)).status_code == 201
    body["password"] = password[:72]
    assert (await service.client.post("/v1/sessions", json=body)).status_code == 401


async def test_a_password_is_the_same_however_a_device_composes_it(
    service: RunningService,
) -> None:
    composed = {"username": "composer", "password": "crème brûlée at dawn"}
    decomposed = composed | {"password": "cre\u0300me bru\u0302le\u0301e at dawn"}
    assert (await service.client.post("/v1/users", json=composed)).status_code == 201
    assert (await service.client.post("/v1/sessions", json=decomposed)).status_code == 201


async def test_log_in_opens_a_session_of_its_own(service: RunningService) -> None:
    created = await service.sign_up("dave")
    opened = await service.log_in("DAVE", device_name="Dave's phone")
    assert opened["user"] == created["user"]
    assert opened["session_id"] != created["session_id"]


async def test_a_device_name_that_could_forge_a_line_is_refused(service: RunningService) -> None:
    await service.sign_up("devious")
    answer = await service.client.post(
        "/v1/sessions",
        json={"username": "devious", "password": PASSWORD, "device_name": "a\nb"},
    )
    assert pointers(answer) == ["/device_name"]


async def test_unknown_user_and_wrong_password_get_the_same_answer(
    service: RunningService,
) -> None:
    await service.sign_up("erin")
    wrong = {"username": "erin", "password": "not the password"}
    answers = [
        await service.client.post("/v1/sessions", json=body)
        for body in (wrong, wrong | {"username": "nobody-at-all"})
    ]
    assert [answer.status_code for answer in answers] == [401, 401]
    assert answers[0].json() == answers[1].json()
    assert answers[0].json()["code"] == "invalid_credentials"
    assert answers[0].headers["www-authenticate"].startswith("Bearer")


async def test_guessing_is_throttled_and_the_owner_gets_in_later(tmp_path: Path) -> None:
    clock = ManualClock()
    settings = fast_settings(tmp_path, login_attempts_per_account_and_address=3, login_window_s=60)
    async with running_service(settings, clock=clock) as service:
        await service.sign_up("frank")
        guess = {"username": "Frank", "password": "a wrong one"}
        good = guess | {"password": PASSWORD}
        statuses = [
            (await service.client.post("/v1/sessions", json=guess)).status_code for _ in range(4)
        ]
        assert statuses == [401, 401, 401, 429]
        refused = await service.client.post("/v1/sessions", json=good)
        assert refused.json()["code"] == "too_many_attempts"
        clock.advance(int(refused.headers["retry-after"]))
        assert (await service.client.post("/v1/sessions", json=good)).status_code == 201
        statuses = [
            (await service.client.post("/v1/sessions", json=guess)).status_code for _ in range(2)
        ]
        assert statuses == [401, 429]


async def test_guessing_from_one_address_does_not_keep_the_owner_out(tmp_path: Path) -> None:
    settings = fast_settings(
        tmp_path,
        login_attempts_per_account_and_address=2,
        login_attempts_per_account=5,
        profile_trusted_proxies=("127.0.0.1",),
    )
    async with running_service(settings, clock=ManualClock()) as service:
        owner = bearer(await service.sign_up("owner-of-it"))

        async def log_in(password: str, address: str) -> int:
            answer = await service.client.post(
                "/v1/sessions",
                json={"username": "owner-of-it", "password": password},
                headers={"X-Forwarded-For": address},
            )
            return answer.status_code

        assert [await log_in("guess", "192.0.2.1") for _ in range(3)] == [401, 401, 429]
        assert await log_in(PASSWORD, "192.0.2.2") == 201
        guesses = [await log_in("guess", f"192.0.2.{host}") for host in range(3, 7)]
        assert guesses == [401, 401, 401, 429]
        change = {"current_password": PASSWORD, "new_password": NEW_PASSWORD}
        changed = await service.client.put("/v1/users/me/password", json=change, headers=owner)
        assert changed.status_code == 200


async def test_guessing_many_accounts_from_one_address_is_throttled(tmp_path: Path) -> None:
    settings = fast_settings(
        tmp_path, login_attempts_per_address=3, profile_trusted_proxies=("127.0.0.1",)
    )
    async with running_service(settings, clock=ManualClock()) as service:

        async def guess(name: str, address: str) -> int:
            answer = await service.client.post(
                "/v1/sessions",
                json={"username": name, "password": "a wrong one"},
                headers={"X-Forwarded-For": address},
            )
            return answer.status_code

        assert [await guess(f"user-{n}", "192.0.2.1") for n in range(4)] == [401, 401, 401, 429]
        assert await guess("user-5", "192.0.2.2") == 401
        assert await guess("user-6", "192.0.2.1, 192.0.2.2") == 401
        assert [await guess("user-7", f"nonsense {n}") for n in range(4)] == [401, 401, 401, 429]


@pytest.mark.parametrize("proxies", ["127.0.0.1", "127.0.0.0/8", "127.0.0.9/8", "::1/64,127.0.0.1"])
async def test_a_forwarded_address_is_believed_from_a_proxy_however_its_network_is_written(
    tmp_path: Path, proxies: str
) -> None:
    settings = fast_settings(tmp_path, sign_ups_per_address=1, profile_trusted_proxies=proxies)
    async with running_service(settings, clock=ManualClock()) as service:
        for number in (1, 2):
            signed_up = await service.client.post(
                "/v1/users",
                json={"username": f"user-{number}", "password": PASSWORD},
                headers={"X-Forwarded-For": f"192.0.2.{number}"},
            )
            assert signed_up.status_code == 201


async def test_a_forwarded_address_is_not_believed_from_just_anybody(tmp_path: Path) -> None:
    settings = fast_settings(tmp_path, sign_ups_per_address=1)
    async with running_service(settings, clock=ManualClock()) as service:
        body: dict[str, Any] = {"username": "first-one", "password": PASSWORD}
        headers = {"X-Forwarded-For": "192.0.2.1"}
        first = await service.client.post("/v1/users", json=body, headers=headers)
        headers["X-Forwarded-For"] = "192.0.2.2"
        second = await service.client.post("/v1/users", json=body, headers=headers)
        assert (first.status_code, second.status_code) == (201, 429)


async def test_a_flood_of_log_ins_is_refused_rather_than_queued(tmp_path: Path) -> None:
    settings = fast_settings(tmp_path, hash_threads=1, hash_max_waiting=1, argon2_memory_kib=65536)
    async with running_service(settings) as service:
        await service.sign_up("grace")
        body = {"username": "grace", "password": PASSWORD}
        answers = await asyncio.gather(
            *(service.client.post("/v1/sessions", json=body) for _ in range(8))
        )
        statuses = sorted(answer.status_code for answer in answers)
        assert statuses[0] == 201
        assert statuses[-1] == 503
        overloaded = next(answer for answer in answers if answer.status_code == 503)
        assert overloaded.json()["code"] == "overloaded"
        assert overloaded.headers["retry-after"] == "1"


async def test_raised_hashing_parameters_reach_a_password_at_the_next_log_in(
    tmp_path: Path,
) -> None:
    async with running_service(fast_settings(tmp_path)) as service:
        await service.sign_up("heidi")
    settings = fast_settings(tmp_path, argon2_memory_kib=16)
    async with running_service(settings) as service:
        await service.log_in("heidi")
        await service.log_in("heidi")
    assert b"$argon2id$v=19$m=16," in (tmp_path / "users.db").read_bytes()


async def test_patch_changes_and_put_replaces(service: RunningService) -> None:
    me = bearer(await service.sign_up(display_name="Ivan", bio="old", locale="de-CH"))
    patched = await service.client.patch(
        "/v1/users/me",
        content=b'{"bio": null, "status_text": "away"}',
        headers=me | {"Content-Type": "application/merge-patch+json"},
    )
    assert patched.status_code == 200
    assert patched.headers["etag"] == '"r2"'
    profile = patched.json()
    assert (profile["display_name"], profile["bio"]) == ("Ivan", None)
    assert (profile["status_text"], profile["locale"]) == ("away", "de-CH")
    replaced = await service.client.put("/v1/users/me", json={"bio": "new"}, headers=me)
    assert replaced.json() == profile | {
        "display_name": None,
        "bio": "new",
        "status_text": None,
        "locale": None,
        "updated_at": replaced.json()["updated_at"],
    }


async def test_a_stale_change_is_refused_and_loses_nothing(service: RunningService) -> None:
    me = bearer(await service.sign_up())
    first = await service.client.get("/v1/users/me", headers=me)
    held = me | {"If-Match": first.headers["etag"]}
    assert (
        await service.client.patch("/v1/users/me", json={"bio": "one"}, headers=held)
    ).status_code == 200
    stale = await service.client.put("/v1/users/me", json={"bio": "two"}, headers=held)
    assert stale.status_code == 412
    assert stale.json()["code"] == "precondition_failed"
    anyway = await service.client.patch(
        "/v1/users/me", json={"status_text": "x"}, headers=me | {"If-Match": "*"}
    )
    assert (anyway.json()["bio"], anyway.json()["status_text"]) == ("one", "x")
    weak = me | {"If-Match": "W/" + anyway.headers["etag"]}
    assert (await service.client.patch("/v1/users/me", json={}, headers=weak)).status_code == 412


async def test_patches_that_race_all_come_through(service: RunningService) -> None:
    me = bearer(await service.sign_up())
    fields = {"bio": "b", "display_name": "d", "status_text": "s", "locale": "en"}
    answers = await asyncio.gather(
        *(
            service.client.patch("/v1/users/me", json={name: value}, headers=me)
            for name, value in fields.items()
        )
    )
    assert [answer.status_code for answer in answers] == [200] * 4
    own = (await service.client.get("/v1/users/me", headers=me)).json()
    assert {name: own[name] for name in fields} == fields


async def test_an_unchanged_profile_is_not_sent_again(service: RunningService) -> None:
    me = bearer(await service.sign_up())
    tag = (await service.client.get("/v1/users/me", headers=me)).headers["etag"]
    again = await service.client.get("/v1/users/me", headers=me | {"If-None-Match": tag})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)


async def test_unusable_profile_fields_change_nothing(service: RunningService) -> None:
    me = bearer(await service.sign_up(bio="kept"))
    answer = await service.client.patch(
        "/v1/users/me", json={"bio": "lost", "avatar_url": "javascript:alert(1)"}, headers=me
    )
    assert pointers(answer) == ["/avatar_url"]
    assert (await service.client.get("/v1/users/me", headers=me)).json()["bio"] == "kept"


async def test_a_public_profile_shows_no_more_than_it_should(service: RunningService) -> None:
    await service.sign_up("Judy", display_name="Ju", timezone="Europe/Paris")
    reader = bearer(await service.sign_up())
    answer = await service.client.get("/v1/users/jUDY", headers=reader)
    assert sorted(answer.json()) == [
        "avatar_url",
        "bio",
        "display_name",
        "id",
        "status_text",
        "username",
    ]
    missing = await service.client.get("/v1/users/nobody-at-all", headers=reader)
    assert (missing.status_code, missing.json()["code"]) == (404, "user_not_found")
    assert (await service.client.get("/v1/users/judy")).status_code == 401


async def test_people_are_found_page_by_page(service: RunningService) -> None:
    names = ["Zed.a", "zed.b", "ZED.c", "zed.d"]
    for name in names:
        created = await service.sign_up(name)
    found: list[str] = []
    query = {"prefix": "zEd.", "limit": "3"}
    while True:
        answer = await service.client.get("/v1/users", params=query, headers=bearer(created))
        assert answer.status_code == 200
        found += [user["username"] for user in answer.json()["users"]]
        if answer.json()["next"] is None:
            break
        query["after"] = answer.json()["next"]
    assert found == names


async def test_a_password_change_keeps_only_the_device_it_was_made_on(
    service: RunningService,
) -> None:
    created = await service.sign_up("kate")
    other = await service.log_in("kate")
    change = {"current_password": PASSWORD, "new_password": NEW_PASSWORD}
    answer = await service.client.put("/v1/users/me/password", json=change, headers=bearer(created))
    assert answer.status_code == 200
    changed = answer.json()
    assert changed["session_id"] == created["session_id"]
    old, elsewhere, new = await service.introspect(
        {"access_token": created["access_token"]},
        {"access_token": other["access_token"]},
        {"access_token": changed["access_token"], "refresh_token": changed["refresh_token"]},
    )
    assert (old["active"], elsewhere["active"], new["active"]) == (False, False, True)
    assert new["ver"] == 2
    refreshed = await service.client.post(
        "/v1/token", json={"refresh_token": changed["refresh_token"]}
    )
    assert refreshed.status_code == 200
    for refresh_token in (created["refresh_token"], other["refresh_token"]):
        dead = await service.client.post("/v1/token", json={"refresh_token": refresh_token})
        assert dead.json()["code"] == "invalid_grant"
    body = {"username": "kate", "password": PASSWORD}
    assert (await service.client.post("/v1/sessions", json=body)).status_code == 401
    body["password"] = NEW_PASSWORD
    assert (await service.client.post("/v1/sessions", json=body)).status_code == 201


async def test_a_password_change_needs_the_current_one_and_a_strong_new_one(
    service: RunningService,
) -> None:
    me = bearer(await service.sign_up())

    async def change(current: str, new: str) -> httpx.Response:
        body = {"current_password": current, "new_password": new}
        return await service.client.put("/v1/users/me/password", json=body, headers=me)

    wrong = await change("not the password", NEW_PASSWORD)
    assert (wrong.status_code, wrong.json()["code"]) == (403, "wrong_password")
    assert pointers(await change(PASSWORD, "password1"))[0] == "/new_password"
    assert pointers(await change(PASSWORD, PASSWORD)) == ["/new_password"]


async def test_a_deleted_account_is_gone_and_its_name_stays_taken(
    service: RunningService,
) -> None:
    created = await service.sign_up("Mallory")
    me = bearer(created)
    wrong = await service.client.request(
        "DELETE", "/v1/users/me", json={"password": "wrong"}, headers=me
    )
    assert wrong.status_code == 403
    gone = await service.client.request(
        "DELETE", "/v1/users/me", json={"password": PASSWORD}, headers=me
    )
    assert (gone.status_code, gone.content) == (204, b"")
    assert (await service.client.get("/v1/users/me", headers=me)).status_code == 401
    body = {"username": "mallory", "password": PASSWORD}
    assert (await service.client.post("/v1/sessions", json=body)).status_code == 401
    assert (await service.client.post("/v1/users", json=body)).status_code == 409
    user = await service.client.get(
        f"/internal/users/{created['user']['id']}", headers=service.as_service
    )
    assert user.status_code == 404
    reader = bearer(await service.sign_up())
    assert (await service.client.get("/v1/users/mallory", headers=reader)).status_code == 404
