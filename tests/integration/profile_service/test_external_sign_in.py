"""People of an embedder's identity provider sign in with its tokens, over real HTTP both ways."""

import asyncio
import contextlib
import json
import sqlite3
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from tests.support.identity_provider import (
    AUDIENCE,
    ISSUER,
    IdentityProvider,
    SigningKey,
    serving_keys,
)
from tests.support.profile_service import (
    PASSWORD,
    ManualClock,
    RunningService,
    bearer,
    fast_settings,
    running_service,
)

NOW = 1_700_000_000.0


@pytest.fixture
def provider() -> Iterator[IdentityProvider]:
    provider = IdentityProvider(NOW)
    with serving_keys(provider):
        yield provider


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOW)


@pytest_asyncio.fixture
async def service(
    tmp_path: Path, provider: IdentityProvider, clock: ManualClock
) -> AsyncIterator[RunningService]:
    async with connected(tmp_path, provider, clock) as running:
        yield running


@contextlib.asynccontextmanager
async def connected(
    folder: Path, provider: IdentityProvider, clock: ManualClock, **changes: Any
) -> AsyncIterator[RunningService]:
    settings = fast_settings(
        folder,
        external_issuer=ISSUER,
        external_audience=AUDIENCE,
        external_jwks_url=provider.url,
        **changes,
    )
    async with running_service(settings, clock=clock) as running:
        yield running


async def exchange(service: RunningService, token: str, **fields: Any) -> httpx.Response:
    return await service.client.post("/v1/sessions/external", json={"token": token, **fields})


async def signed_in(service: RunningService, token: str, **fields: Any) -> dict[str, Any]:
    answer = await exchange(service, token, **fields)
    assert answer.status_code == 201, answer.text
    granted: dict[str, Any] = answer.json()
    return granted


async def code(answer: httpx.Response, status: int) -> str:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    return str(answer.json()["code"])


async def test_the_first_token_makes_the_account_and_the_next_one_finds_it(
    service: RunningService, provider: IdentityProvider, clock: ManualClock
) -> None:
    claims = {"preferred_username": "Zoë", "name": "Zoë Müller", "picture": "https://a.example/z"}
    answer = await exchange(service, provider.token(**claims), device_name="phone")
    assert answer.status_code == 201
    assert answer.headers["cache-control"] == "no-store"
    first = answer.json()
    assert answer.headers["location"] == f"/v1/sessions/{first['session_id']}"
    user = first["user"]
    assert (user["username"], user["display_name"]) == ("Zoe", "Zoë Müller")
    assert user["avatar_url"] == "https://a.example/z"

    clock.advance(1)
    second = await signed_in(service, provider.token(name="Renamed"))
    assert second["user"] == user
    assert second["session_id"] != first["session_id"]
    listed = await service.client.get("/v1/sessions", headers=bearer(second))
    assert [item["device_name"] for item in listed.json()["sessions"]] == ["phone", None]


async def test_the_session_is_one_like_any_other(
    service: RunningService, provider: IdentityProvider
) -> None:
    granted = await signed_in(service, provider.token())
    (verdict,) = await service.introspect({"access_token": granted["access_token"]})
    assert (verdict["active"], verdict["sub"]) == (True, granted["user"]["id"])
    body = {"refresh_token": granted["refresh_token"]}
    refreshed = await service.client.post("/v1/token", json=body)
    assert refreshed.status_code == 200
    gone = await service.client.delete("/v1/sessions", headers=bearer(refreshed.json()))
    assert gone.status_code == 204
    assert await code(await service.client.get("/v1/users/me", headers=bearer(granted)), 401)
    again = await signed_in(service, provider.token())
    assert again["user"]["id"] == granted["user"]["id"]


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
async def test_every_allowed_algorithm_works(
    service: RunningService, provider: IdentityProvider, algorithm: str
) -> None:
    provider.keys = [SigningKey("key", algorithm)]
    assert (await signed_in(service, provider.token()))["user"]["username"].startswith("user-")


async def test_twenty_devices_at_once_make_one_account(
    service: RunningService, provider: IdentityProvider
) -> None:
    tokens = [provider.token("77", preferred_username="zoe", jti=str(n)) for n in range(20)]
    granted = await asyncio.gather(*(signed_in(service, token) for token in tokens))
    assert len({one["user"]["id"] for one in granted}) == 1
    assert len({one["session_id"] for one in granted}) == 20
    assert provider.reads == 1


async def test_a_name_that_somebody_has_gets_a_suffix_and_nobody_is_taken_over(
    service: RunningService, provider: IdentityProvider
) -> None:
    bob = await service.sign_up("Bob")
    tokens = [provider.token(str(number), preferred_username="bob") for number in range(5)]
    granted = await asyncio.gather(*(signed_in(service, token) for token in tokens))
    names = {one["user"]["username"] for one in granted}
    assert len(names) == 5
    assert all(name.startswith("bob-") for name in names)
    assert bob["user"]["id"] not in {one["user"]["id"] for one in granted}
    assert (await service.log_in("bob"))["user"]["id"] == bob["user"]["id"]


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "https://other.example"},
        {"aud": "shop"},
        {"exp": int(NOW) - 60},
        {"exp": None},
        {"sub": None},
        {"nbf": int(NOW) + 60},
    ],
)
async def test_a_token_that_is_not_for_here_is_refused_with_the_reason(
    service: RunningService, provider: IdentityProvider, changes: dict[str, Any]
) -> None:
    answer = await exchange(service, provider.token(**changes))
    assert await code(answer, 401) == "invalid_external_token"
    assert answer.headers["www-authenticate"] == 'Bearer realm="duet"'
    assert answer.json()["detail"]


async def test_forged_tokens_are_refused(
    service: RunningService, provider: IdentityProvider
) -> None:
    good = provider.token()
    head, payload, _ = good.split(".")
    for token in (
        SigningKey("first").sign(provider.claims()),
        SigningKey("invented").sign(provider.claims()),
        f"eyJhbGciOiJub25lIn0.{payload}.",
        f"eyJhbGciOiJIUzI1NiIsImtpZCI6ImZpcnN0In0.{payload}.AAAA",
        f"{head}.{payload}.",
        "",
        "nonsense",
        "x" * 9000,
    ):
        assert await code(await exchange(service, token), 401) == "invalid_external_token"
    duet = await signed_in(service, good)
    answer = await exchange(service, duet["access_token"])
    assert await code(answer, 401) == "invalid_external_token"


async def test_a_new_key_is_fetched_once(
    service: RunningService, provider: IdentityProvider, clock: ManualClock
) -> None:
    await signed_in(service, provider.token("1"))
    clock.advance(10)
    provider.keys.append(SigningKey("second"))
    tokens = [provider.token(str(number)) for number in range(10)]
    await asyncio.gather(*(signed_in(service, token) for token in tokens))
    assert provider.reads == 2


async def test_while_the_provider_is_away_known_keys_work_and_others_are_503(
    tmp_path: Path, clock: ManualClock
) -> None:
    provider = IdentityProvider(NOW)
    with serving_keys(provider) as url:
        port = int(url.rpartition(":")[2].partition("/")[0])
    async with connected(tmp_path, provider, clock) as service:
        answer = await exchange(service, provider.token())
        assert await code(answer, 503) == "identity_provider_unavailable"
        assert answer.headers["retry-after"] == "1"
        clock.advance(1)
        with serving_keys(provider, port):
            granted = await signed_in(service, provider.token())
        clock.advance(11)
        provider.keys.append(SigningKey("second"))
        answer = await exchange(service, provider.token())
        assert await code(answer, 503) == "identity_provider_unavailable"
        assert answer.headers["retry-after"] == "10"
        known = provider.keys[0].sign(provider.claims())
        assert (await signed_in(service, known))["user"]["id"] == granted["user"]["id"]
        clock.advance(10)
        with serving_keys(provider, port):
            await signed_in(service, provider.token())
        shown = (await service.client.get("/metrics")).text
    assert 'duet_profile_external_sign_ins_total{outcome="unavailable"} 2.0' in shown
    assert 'duet_profile_external_sign_ins_total{outcome="created"} 1.0' in shown
    assert 'duet_profile_external_key_fetches_total{outcome="ok"} 2.0' in shown


async def test_the_account_has_no_password(
    service: RunningService, provider: IdentityProvider
) -> None:
    granted = await signed_in(service, provider.token(preferred_username="zoe"))
    for password in ("", PASSWORD):
        body = {"username": "zoe", "password": password}
        answer = await service.client.post("/v1/sessions", json=body)
        assert await code(answer, 401) == "invalid_credentials"
    change = {"current_password": PASSWORD, "new_password": "another horse battery staple"}
    answer = await service.client.put("/v1/users/me/password", json=change, headers=bearer(granted))
    assert await code(answer, 403) == "no_password"
    assert "external_token" in answer.json()["detail"]
    assert await code(await delete(service, granted, password=PASSWORD), 403) == "no_password"


async def delete(
    service: RunningService, granted: dict[str, Any], **confirmation: Any
) -> httpx.Response:
    return await service.client.request(
        "DELETE", "/v1/users/me", json=confirmation, headers=bearer(granted)
    )


async def test_a_fresh_token_confirms_the_deletion_and_the_next_one_begins_anew(
    service: RunningService, provider: IdentityProvider, clock: ManualClock
) -> None:
    granted = await signed_in(service, provider.token(preferred_username="zoe"))
    old = provider.token(exp=int(NOW) + 3600)
    clock.advance(301)
    for token in (old, provider.token(iat=None, exp=int(NOW) + 3600)):
        answer = await delete(service, granted, external_token=token)
        assert await code(answer, 401) == "invalid_external_token"
        assert "five minutes" in answer.json()["detail"]
    provider.now = clock()
    answer = await delete(service, granted, external_token=provider.token("somebody else"))
    assert "somebody else" in answer.json()["detail"]
    answer = await delete(service, granted, external_token=provider.token())
    assert answer.status_code == 204
    again = await signed_in(service, provider.token(preferred_username="zoe"))
    assert again["user"]["id"] != granted["user"]["id"]
    assert again["user"]["username"].startswith("zoe-")


async def test_a_token_of_the_provider_confirms_nothing_for_an_account_with_a_password(
    service: RunningService, provider: IdentityProvider
) -> None:
    bob = await service.sign_up()
    answer = await delete(service, bob, external_token=provider.token())
    assert await code(answer, 401) == "invalid_external_token"
    for confirmation in ({}, {"password": PASSWORD, "external_token": provider.token()}):
        answer = await delete(service, bob, **confirmation)
        assert await code(answer, 422) == "validation_failed"
    assert (await delete(service, bob, password=PASSWORD)).status_code == 204


async def test_bad_tokens_and_too_many_sessions_are_throttled(
    tmp_path: Path, provider: IdentityProvider, clock: ManualClock
) -> None:
    limits = {"login_attempts_per_address": 3, "external_sessions_per_person": 2}
    async with connected(tmp_path, provider, clock, **limits) as service:
        for _ in range(2):
            await signed_in(service, provider.token())
        assert await code(await exchange(service, provider.token()), 429) == "too_many_attempts"
        await signed_in(service, provider.token("43"))
        for _ in range(3):
            assert (await exchange(service, "nonsense")).status_code == 401
        refused = await exchange(service, provider.token("44"))
        assert await code(refused, 429) == "too_many_attempts"
        assert int(refused.headers["retry-after"]) > 0
        clock.advance(300)
        provider.now = clock()
        await signed_in(service, provider.token("44"))


async def test_a_bad_device_name_is_told_before_the_token_is_looked_at(
    service: RunningService, provider: IdentityProvider
) -> None:
    answer = await exchange(service, provider.token(), device_name=" ")
    assert await code(answer, 422) == "validation_failed"
    assert answer.json()["errors"][0]["pointer"] == "/device_name"


async def test_what_happens_is_audited_without_the_token(
    tmp_path: Path, provider: IdentityProvider, clock: ManualClock
) -> None:
    async with connected(tmp_path, provider, clock) as service:
        first, second = provider.token("1"), provider.token("1", jti="other")
        bad = provider.token("2", aud="shop")
        await signed_in(service, first)
        granted = await signed_in(service, second)
        await exchange(service, bad)
        confirmation = provider.token("1", jti="third")
        await delete(service, granted, external_token=confirmation)
    with contextlib.closing(sqlite3.connect(tmp_path / "users.db")) as database:
        rows = database.execute("SELECT kind, detail FROM audit ORDER BY id").fetchall()
        everything = "\n".join(database.iterdump())
    assert rows == [
        ("external_sign_up", None),
        ("external_login", None),
        ("external_login_failed", "audience"),
        ("account_deletion", None),
    ]
    for token in (first, second, bad, confirmation):
        assert token not in everything
    assert 'INTO "external_identities"' not in everything


async def test_it_is_off_unless_set_up(tmp_path: Path) -> None:
    async with running_service(fast_settings(tmp_path)) as service:
        answer = await exchange(service, "anything")
        assert await code(answer, 404) == "external_sign_in_off"
        assert "DUET_EXTERNAL_ISSUER" in answer.json()["detail"]
        bob = await service.sign_up()
        answer = await delete(service, bob, external_token="anything")
        assert await code(answer, 404) == "external_sign_in_off"


async def test_sign_up_can_be_closed_and_tokens_still_make_accounts(
    tmp_path: Path, provider: IdentityProvider, clock: ManualClock
) -> None:
    async with running_service(fast_settings(tmp_path), clock=clock) as service:
        bob = await service.sign_up("bob")
    async with connected(tmp_path, provider, clock, sign_up="closed") as service:
        body = {"username": "carol", "password": PASSWORD}
        answer = await service.client.post("/v1/users", json=body)
        assert await code(answer, 403) == "sign_up_closed"
        assert (await service.log_in("bob"))["user"]["id"] == bob["user"]["id"]
        assert (await signed_in(service, provider.token()))["user"]["id"]


async def test_keys_may_be_in_a_file(
    tmp_path: Path, provider: IdentityProvider, clock: ManualClock
) -> None:
    file = tmp_path / "keys.json"
    file.write_text(json.dumps({"keys": [key.jwk() for key in provider.keys]}))
    settings = fast_settings(
        tmp_path / "data",
        external_issuer=ISSUER,
        external_audience=AUDIENCE,
        external_jwks_file=file,
    )
    async with running_service(settings, clock=clock) as service:
        await signed_in(service, provider.token())
    assert provider.reads == 0
