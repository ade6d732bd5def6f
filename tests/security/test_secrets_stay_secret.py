"""No credential in any log, at DEBUG, whatever people do."""

import contextlib
from pathlib import Path
from typing import Any

import httpx

from tests.faults.processes import Duet, Person, running_duet
from tests.support.client import Client
from tests.support.profile_service import PASSWORD

_NEW_PASSWORD = "another horse, another battery"
_WRONG_PASSWORD = "hunter2-hunter2-hunter2"


class _Secrets:
    """Every credential that was used."""

    def __init__(self) -> None:
        self.seen: set[str] = {PASSWORD, _NEW_PASSWORD, _WRONG_PASSWORD}

    def note(self, granted: dict[str, Any]) -> dict[str, Any]:
        """Remember the tokens of an answer."""
        self.seen |= {granted["access_token"], granted["refresh_token"]}
        return granted


async def test_no_log_holds_a_token_or_a_password(tmp_path: Path) -> None:
    secrets = _Secrets()
    verbose = {"DUET_LOG_LEVEL": "debug", "DUET_ACCESS_LOG": "true", "DUET_LOG_FORMAT": "json"}
    async with running_duet(tmp_path / "duet", **verbose) as duet:
        ann, bob = await duet.sign_up_many(2)
        for person in (ann, bob):
            secrets.seen |= {person.access_token, person.refresh_token}
        await _use_the_api(duet, ann, secrets)
        await _use_the_gateway(duet, ann, bob)
        secrets.seen.add(duet.settings["DUET_SERVICE_SECRET"])
        for name in ("ws_gateway", "profile_service"):
            assert (await duet.terminate(name))[0] == 0
        log = duet.log.read_text()
    assert len(secrets.seen) > 10
    assert [secret for secret in secrets.seen if secret in log] == []
    assert "eyJ" not in log  # what every JSON Web Token begins with
    assert "Bearer ey" not in log
    assert duet.tracebacks() == 0
    assert "signed_up" in log  # it is a log, after all


async def _use_the_api(duet: Duet, ann: Person, secrets: _Secrets) -> None:
    http = duet.http

    async def post(path: str, **body: Any) -> httpx.Response:
        return await http.post(path, json=body)

    opened = secrets.note(
        (await post("/v1/sessions", username="person-1", password=PASSWORD)).json()
    )
    await post("/v1/sessions", username="person-1", password=_WRONG_PASSWORD)
    await post("/v1/sessions", username=_WRONG_PASSWORD, password=_WRONG_PASSWORD)
    await post("/v1/users", username="weak", password=_WRONG_PASSWORD[:8] * 2)
    await post("/v1/users", username=ann.access_token[:32], password=PASSWORD)
    first = secrets.note((await post("/v1/token", refresh_token=opened["refresh_token"])).json())
    second = secrets.note((await post("/v1/token", refresh_token=first["refresh_token"])).json())
    await post("/v1/token", refresh_token=opened["refresh_token"])  # a replay
    await post("/v1/token", refresh_token=second["access_token"])
    await http.get(f"/v1/users/me?access_token={ann.access_token}", headers=ann.bearer)
    await http.get(f"/v1/users/{ann.access_token}", headers=ann.bearer)
    await http.get("/v1/users/me", headers={"Authorization": f"Basic {ann.access_token}"})
    await http.get("/v1/users/me", headers={"Cookie": f"session={ann.access_token}"})
    await http.request("POST", "/v1/sessions", content=f'{{"password":"{PASSWORD}",')
    change = {"current_password": PASSWORD, "new_password": _NEW_PASSWORD}
    third = (await post("/v1/sessions", username="person-1", password=PASSWORD)).json()
    secrets.note(third)
    headers = {"Authorization": f"Bearer {third['access_token']}"}
    changed = await http.put("/v1/users/me/password", json=change, headers=headers)
    secrets.note(changed.json())
    headers = {"Authorization": f"Bearer {changed.json()['access_token']}"}
    ann.access_token, ann.refresh_token = (
        changed.json()["access_token"],
        changed.json()["refresh_token"],
    )
    await http.request("DELETE", "/v1/users/me", json={"password": PASSWORD}, headers=headers)
    await http.post("/internal/introspect", json={"access_token": ann.access_token})


async def _use_the_gateway(duet: Duet, ann: Person, bob: Person) -> None:
    async with (
        Client.talking(duet.url, ann.access_token) as a,
        Client.open(duet.url, authorization=f"Bearer {bob.access_token}") as b,
    ):
        await b.expect("connected")
        await a.say(bob.user_id, "hello", "1")
        await b.expect("message")
        await a.send(type="refresh", id="r", access_token=ann.access_token)
        await a.expect("refreshed")
        await a.send(type="refresh", id="s", access_token=ann.refresh_token)
        await a.expect_error("unauthorized")
        await a.send(type="send", id=ann.access_token[:64], to=bob.user_id, text=_WRONG_PASSWORD)
        await a.expect("ack")
    async with Client.open(duet.url) as client:
        await client.send(
            type="connect", access_token=ann.access_token, refresh_token=bob.refresh_token
        )
        with contextlib.suppress(AssertionError):
            await client.expect_error("unauthorized")
    async with Client.open(f"{duet.url}?access_token={ann.access_token}") as client:
        await client.send_raw(f'{{"type":"connect","access_token":"{ann.access_token}"')
        await client.expect_error("malformed_json")
    await duet.http.get(f"{duet.gateway_http_url}/{ann.access_token}")
