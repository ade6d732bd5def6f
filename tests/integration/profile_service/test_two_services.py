"""Two profile services as processes of their own on one PostgreSQL: it does not matter which."""

import asyncio
import contextlib
import itertools
import json
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from shared.service_auth import ServiceCredentials
from tests.support.postgres import Databases, PostgresServer
from tests.support.processes import ServiceProcess, profile_process
from tests.support.profile_service import PASSWORD, bearer

SECRET = "a secret of the tests, at least 32 bytes"
CREDENTIALS = ServiceCredentials(SECRET.encode(), "test")


class Feed:
    """A follower of the revocations at one service."""

    def __init__(self, lines: AsyncIterator[str]) -> None:
        self._lines = lines

    async def next(self, kind: str) -> dict[str, Any]:
        """Return the data of the next event, which is of that kind."""
        event = ""
        async with asyncio.timeout(15):
            async for line in self._lines:
                field, _, value = line.partition(": ")
                if field == "event":
                    event = value
                if field == "data":
                    assert event == kind
                    data: dict[str, Any] = json.loads(value)
                    return data
        raise AssertionError("the feed has ended")


class Side:
    """One of the services, and a client of it."""

    def __init__(self, process: ServiceProcess, client: httpx.AsyncClient) -> None:
        self.process = process
        self.client = client

    async def post(self, path: str, body: Any = None, **headers: str) -> httpx.Response:
        return await self.client.post(path, json=body, headers=headers)

    async def granted(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        answer = await self.post(path, body)
        assert answer.status_code in {200, 201}, answer.text
        tokens: dict[str, Any] = answer.json()
        return tokens

    async def sign_up(self, username: str) -> dict[str, Any]:
        return await self.granted("/v1/users", {"username": username, "password": PASSWORD})

    async def log_in(self, username: str) -> dict[str, Any]:
        return await self.granted("/v1/sessions", {"username": username, "password": PASSWORD})

    async def refresh(self, tokens: dict[str, Any]) -> dict[str, Any]:
        body = {"refresh_token": tokens["refresh_token"]}
        return await self.granted("/v1/token", body)

    async def is_active(self, tokens: dict[str, Any]) -> bool:
        pair = {"access_token": tokens["access_token"]}
        answer = await self.post(
            "/internal/introspect", pair, Authorization=CREDENTIALS.authorization()
        )
        assert answer.status_code == 200, answer.text
        return bool(answer.json()["active"])

    @contextlib.asynccontextmanager
    async def following(self) -> AsyncIterator[Feed]:
        headers = {"Authorization": CREDENTIALS.authorization()}
        async with self.client.stream("GET", "/internal/revocations", headers=headers) as answer:
            feed = Feed(answer.aiter_lines())
            await feed.next("ready")
            yield feed


@contextlib.asynccontextmanager
async def running(url: str, data_dir: Path, **settings: str) -> AsyncIterator[Side]:
    settings = {"DUET_DATABASE_URL": url, "DUET_SERVICE_SECRET": SECRET, **settings}
    async with (
        profile_process(data_dir, **settings) as process,
        httpx.AsyncClient(base_url=await process.url(), trust_env=False, timeout=30) as client,
    ):
        yield Side(process, client)


@contextlib.asynccontextmanager
async def both_running(url: str, tmp_path: Path, **settings: str) -> AsyncIterator[list[Side]]:
    async with (
        running(url, tmp_path / "one", **settings) as one,
        running(url, tmp_path / "two", **settings) as two,
    ):
        yield [one, two]


async def test_a_person_may_go_from_one_to_the_other(
    tmp_path: Path, postgres_databases: Databases
) -> None:
    url = postgres_databases.empty()
    async with both_running(url, tmp_path) as (one, two):
        assert (await one.client.get("/.well-known/jwks.json")).json() == (
            await two.client.get("/.well-known/jwks.json")
        ).json()
        await one.sign_up("anna")
        tokens = await two.log_in("anna")
        for side in (one, two, one, two):
            assert await side.is_active(tokens)
            tokens = await side.refresh(tokens)

        async with one.following() as at_one, two.following() as at_two:
            answer = await one.client.delete("/v1/sessions", headers=bearer(tokens))
            assert answer.status_code == 204
            heard = [await feed.next("revocation") for feed in (at_one, at_two)]
        assert heard[0] == heard[1]
        assert heard[0]["kind"] == "all_sessions"
        assert not await two.is_active(tokens)
        assert not await one.is_active(tokens)
        answer = await two.post("/v1/token", {"refresh_token": tokens["refresh_token"]})
        assert answer.status_code == 400
        password = url.split(":")[2].partition("@")[0]
        for side in (one, two):
            assert password not in side.process.log
            assert "Traceback" not in side.process.log


async def test_wrong_passwords_count_at_both(tmp_path: Path, postgres_databases: Databases) -> None:
    limit = {"DUET_LOGIN_ATTEMPTS_PER_ACCOUNT_AND_ADDRESS": "4"}
    async with both_running(postgres_databases.empty(), tmp_path, **limit) as sides:
        await sides[0].sign_up("anna")
        wrong = {"username": "anna", "password": "not the password"}
        statuses = [
            (await sides[number % 2].post("/v1/sessions", wrong)).status_code for number in range(6)
        ]
        assert statuses == [401] * 4 + [429] * 2


async def test_a_key_is_known_everywhere_before_it_signs(
    tmp_path: Path, postgres_databases: Databases
) -> None:
    url = postgres_databases.empty()
    async with both_running(url, tmp_path) as (one, two):
        before = await one.sign_up("anna")
        environment = {"DUET_DATABASE_URL": url, "DUET_SERVICE_SECRET": SECRET}
        rotated = await asyncio.create_subprocess_exec(
            *_command("rotate-keys"), env=environment, stdout=asyncio.subprocess.PIPE
        )
        output, _ = await rotated.communicate()
        kid = output.decode().split()[-1]
        await asyncio.gather(*(side.process.logged("keys_changed") for side in (one, two)))
        for side in (one, two):
            keys = (await side.client.get("/.well-known/jwks.json")).json()["keys"]
            assert kid in [key["kid"] for key in keys]
        after = await two.log_in("anna")
        for tokens in (before, after):
            assert await one.is_active(tokens)
            assert await two.is_active(tokens)


async def test_a_killed_service_takes_nothing_with_it(
    tmp_path: Path, postgres_databases: Databases
) -> None:
    unlimited = {"DUET_SIGN_UPS_PER_ADDRESS": "100000"}
    async with both_running(postgres_databases.empty(), tmp_path, **unlimited) as (one, two):
        acknowledged: list[str] = []
        enough = asyncio.Event()

        async def sign_up_for_ever(name: str) -> None:
            for number in itertools.count():
                try:
                    await one.sign_up(f"{name}{number}")
                except httpx.TransportError:
                    return
                acknowledged.append(f"{name}{number}")
                if len(acknowledged) == 40:
                    enough.set()

        people = [asyncio.create_task(sign_up_for_ever(f"user{letter}")) for letter in "abcd"]
        async with asyncio.timeout(30):
            await enough.wait()
        one.process.signal(signal.SIGKILL)
        await asyncio.gather(*people)
        for name in acknowledged:
            await two.log_in(name)
        for letter in "abcd":  # the names that were under way are free, or taken for good
            name = f"user{letter}{sum(done.startswith(f'user{letter}') for done in acknowledged)}"
            body = {"username": name, "password": PASSWORD}
            answer = await two.post("/v1/users", body)
            assert answer.status_code in {201, 409}


async def test_both_outlive_a_crash_of_postgresql(
    tmp_path: Path, postgres_server: PostgresServer
) -> None:
    async with both_running(postgres_server.url(), tmp_path) as (one, two):
        tokens = await one.sign_up("anna")
        postgres_server.crash()
        for side in (one, two):
            for answer in (
                await side.post("/v1/sessions", {"username": "anna", "password": PASSWORD}),
                await side.post("/v1/token", {"refresh_token": tokens["refresh_token"]}),
                await side.client.get("/v1/users/me", headers=bearer(tokens)),
                await side.client.get("/readyz"),
            ):
                assert answer.status_code == 503, answer.text
                assert int(answer.headers["Retry-After"]) >= 1
            assert (await side.client.get("/healthz")).status_code == 200
        postgres_server.start()
        for side in (one, two):
            assert (await side.client.get("/readyz")).status_code == 200
            tokens = await side.refresh(tokens)
        async with one.following() as at_one:
            await two.client.delete("/v1/sessions", headers=bearer(tokens))
            assert (await at_one.next("revocation"))["kind"] == "all_sessions"
        assert "Traceback" not in one.process.log + two.process.log


async def test_lost_connections_come_back_without_a_restart(
    tmp_path: Path, postgres_server: PostgresServer
) -> None:
    async with both_running(postgres_server.url(), tmp_path) as (one, two):
        tokens = await one.sign_up("anna")
        assert postgres_server.disconnect("postgres") >= 4
        for side in (one, two):
            answer = await side.client.get("/v1/users/me", headers=bearer(tokens))
            assert answer.status_code in {200, 503}, side.process.log
            answer = await side.client.get("/v1/users/me", headers=bearer(tokens))
            assert answer.status_code == 200


async def test_without_postgresql_a_service_says_so_and_ends(tmp_path: Path) -> None:
    url = "postgresql://duet:s3cret@127.0.0.1:1/duet"
    async with profile_process(tmp_path, DUET_DATABASE_URL=url) as process:
        assert await process.exit_status() == 1
    assert "PostgreSQL: connection failed" in process.log
    assert "s3cret" not in process.log
    assert "Traceback" not in process.log


@pytest.mark.parametrize("command", ["backup", "restore"])
async def test_sqlite_s_commands_say_what_to_do_instead(tmp_path: Path, command: str) -> None:
    environment = {"DUET_DATABASE_URL": "postgresql://duet:s3cret@127.0.0.1:1/duet"}
    process = await asyncio.create_subprocess_exec(
        *_command(command, str(tmp_path / "file")),
        env=environment,
        stderr=asyncio.subprocess.PIPE,
    )
    _, errors = await process.communicate()
    assert process.returncode == 1
    assert b"DUET_DATABASE_URL is set: use PostgreSQL's " in errors


def _command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "profile_service", *arguments]
