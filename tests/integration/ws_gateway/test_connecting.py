"""Connecting: who gets in, who does not, and what those are told."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import websockets

from tests.support.client import Client
from tests.support.gateway import TestGateway, running_gateway
from tests.support.waiting import until


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[TestGateway]:
    async with running_gateway(
        tmp_path, allowed_origins=("https://chat.example",), connect_timeout_s=5
    ) as gateway:
        yield gateway


async def refusal(url: str, **options: str | None) -> websockets.Response:
    """The answer to a handshake that must fail."""
    with pytest.raises(websockets.InvalidStatus) as refused:
        async with Client.open(url, **options):
            pass
    return refused.value.response


async def test_connect_frame_is_confirmed(gateway: TestGateway) -> None:
    ann = gateway.profile.sign_up("ann")
    async with Client.open(gateway.url) as client:
        connected = await client.connect(ann.access_token, refresh_token=ann.refresh_token)
        assert client.socket.subprotocol == "duet.v1"
    assert connected["user"] == {"id": ann.user_id, "username": "ann"}
    assert connected["connection_id"].startswith("n_")
    assert connected["limits"]["max_text_characters"] == 4000
    assert connected["cursor"]
    assert "tokens" not in connected


async def test_authorization_header_stands_in_for_the_frame(gateway: TestGateway) -> None:
    ann = gateway.profile.sign_up("ann")
    async with Client.open(gateway.url, authorization=f"Bearer {ann.access_token}") as client:
        assert (await client.expect("connected"))["user"]["id"] == ann.user_id
        await client.send(type="connect", access_token=ann.access_token)
        await client.expect_error("already_connected")
        await client.nothing_more(ann.user_id)


async def test_client_that_authenticates_by_header_resumes_by_the_url(gateway: TestGateway) -> None:
    ann, bob = gateway.profile.sign_up("ann"), gateway.profile.sign_up("bob")
    async with gateway.talking(ann) as a, gateway.talking(bob) as b:
        await a.say(bob.user_id, "one", "1")
        cursor = (await b.expect("message", text="one"))["cursor"]
        await a.say(bob.user_id, "two", "2")
    url = f"{gateway.url}?resume={cursor}"
    async with Client.open(url, authorization=f"Bearer {bob.access_token}") as client:
        assert (await client.expect("connected"))["cursor"] == cursor
        await client.expect("message", text="two")
        await client.expect("resumed")


@pytest.mark.parametrize(
    "header",
    [
        "Basic abc",
        "Bearer",
        "Bearer ",
        f"Bearer {'x' * 2049}",
        'Bearer "',
        "Bearer \\",
        "Bearer a b",
    ],
)
async def test_malformed_authorization_header_is_refused(gateway: TestGateway, header: str) -> None:
    answer = await refusal(gateway.url, authorization=header)
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == "Bearer"


async def test_bad_token_in_the_header_is_refused_like_one_in_the_frame(
    gateway: TestGateway,
) -> None:
    async with Client.open(gateway.url, authorization="Bearer nonsense") as client:
        await client.expect_error("unauthorized", retryable=False)
        assert await client.closed() == (3000, "unauthorized")


@pytest.mark.parametrize("refresh_token", [None, "nonsense"])
async def test_bad_token_gives_an_error_and_3000(
    gateway: TestGateway, refresh_token: str | None
) -> None:
    async with Client.open(gateway.url) as client:
        await client.send(type="connect", access_token="nonsense", refresh_token=refresh_token)
        await client.expect_error("unauthorized", retryable=False)
        assert await client.closed() == (3000, "unauthorized")
    assert gateway.sample("duet_gateway_connects_total", verdict="refused") == 1


async def test_expired_access_token_with_a_good_refresh_token_brings_new_tokens(
    gateway: TestGateway,
) -> None:
    ann = gateway.profile.sign_up("ann")
    gateway.profile.expire(ann)
    async with Client.open(gateway.url) as client:
        connected = await client.connect(ann.access_token, refresh_token=ann.refresh_token)
    tokens = connected["tokens"]
    assert (tokens["access_token"], tokens["refresh_token"]) == (
        ann.access_token,
        ann.refresh_token,
    )


async def test_expired_access_token_alone_is_refused(gateway: TestGateway) -> None:
    ann = gateway.profile.sign_up("ann")
    gateway.profile.expire(ann)
    async with Client.open(gateway.url) as client:
        await client.send(type="connect", access_token=ann.access_token)
        await client.expect_error("unauthorized")
        assert (await client.closed())[0] == 3000


async def test_nothing_said_in_time_gives_3008(tmp_path: Path) -> None:
    async with (
        running_gateway(tmp_path, connect_timeout_s=0.05) as gateway,
        Client.open(gateway.url) as client,
    ):
        await client.expect_error("connect_timeout")
        assert await client.closed() == (3008, "connect_timeout")


async def test_first_frame_that_is_not_connect_gives_1008(gateway: TestGateway) -> None:
    async with Client.open(gateway.url) as client:
        await client.send(type="send", id="1", to="u_x", text="hi")
        await client.expect_error("connect_expected", id="1")
        assert await client.closed() == (1008, "connect_expected")


async def test_nobody_is_accepted_while_tokens_cannot_be_checked(gateway: TestGateway) -> None:
    ann = gateway.profile.sign_up("ann")
    gateway.profile.available = False
    async with Client.open(gateway.url) as client:
        await client.send(type="connect", access_token=ann.access_token)
        error = await client.expect_error("verification_unavailable", retryable=True)
        assert error["retry_after_ms"] > 0
        assert await client.closed() == (1013, "verification_unavailable")
    gateway.profile.available = True
    async with gateway.talking(ann):
        pass


async def test_whoever_was_refreshed_too_often_connects_when_they_are_told(
    gateway: TestGateway,
) -> None:
    ann = gateway.profile.sign_up("ann")
    gateway.profile.expire(ann)
    tokens = {"access_token": ann.access_token, "refresh_token": ann.refresh_token}
    gateway.profile.refreshed_too_often.add(ann.id)
    async with Client.open(gateway.url) as client:
        await client.send(type="connect", **tokens)
        error = await client.expect_error("verification_unavailable", retryable=True)
        assert error["retry_after_ms"] == 10_000
        assert await client.closed() == (1013, "verification_unavailable")
    gateway.profile.refreshed_too_often.clear()
    async with Client.open(gateway.url) as client:
        await client.send(type="connect", **tokens)
        assert (await client.expect("connected"))["tokens"]["refresh_token"] == ann.refresh_token


async def test_client_that_leaves_while_it_is_verified_is_not_held(gateway: TestGateway) -> None:
    ann = gateway.profile.sign_up("ann")
    gateway.profile.verifications.close()
    async with Client.open(gateway.url) as client:
        await client.send(type="connect", access_token=ann.access_token)
        await gateway.profile.verifications.arrivals(1)
        client.vanish()
    gateway.profile.verifications.open()
    await until(lambda: gateway.gateway.server.connections == 0)
    assert gateway.connections_of(ann.user_id) == 0


async def test_frames_pipelined_behind_connect_are_answered_in_order(gateway: TestGateway) -> None:
    ann, bob = gateway.profile.sign_up("ann"), gateway.profile.sign_up("bob")
    gateway.profile.verifications.close()
    async with Client.open(gateway.url) as client:
        await client.send(type="connect", access_token=ann.access_token)
        for number in range(50):
            await client.send(type="send", id=str(number), to=bob.user_id, text="hi")
        gateway.profile.verifications.open()
        await client.expect("connected")
        for number in range(50):
            await client.expect("ack", id=str(number), seq=number + 1)


async def test_page_of_a_foreign_origin_is_refused(gateway: TestGateway) -> None:
    assert (await refusal(gateway.url, origin="https://evil.example")).status_code == 403


async def test_page_of_an_allowed_origin_and_a_native_client_may_connect(
    gateway: TestGateway,
) -> None:
    ann = gateway.profile.sign_up("ann")
    async with gateway.talking(ann, origin="https://chat.example"), gateway.talking(ann):
        assert gateway.connections_of(ann.user_id) == 2


async def test_other_paths_are_not_found(gateway: TestGateway) -> None:
    answer = await refusal(gateway.url + "x")
    assert answer.status_code == 404
    assert b"/v1/ws" in (answer.body or b"")


async def test_other_subprotocols_are_refused(gateway: TestGateway) -> None:
    assert (await refusal(gateway.url, subprotocol="duet.v2")).status_code == 400


async def test_full_gateway_says_when_to_come_back(tmp_path: Path) -> None:
    async with running_gateway(tmp_path, max_connections=1) as gateway:
        async with gateway.talking(gateway.profile.sign_up("ann")):
            answer = await refusal(gateway.url)
        assert answer.status_code == 503
        assert answer.headers["Retry-After"]
        await until(lambda: gateway.gateway.server.connections == 0)
        async with gateway.talking(gateway.profile.sign_up("bob")):
            pass


async def test_many_connect_at_once(gateway: TestGateway) -> None:
    sessions = [gateway.profile.sign_up(f"user{number}") for number in range(100)]
    async with contextlib.AsyncExitStack() as stack:
        clients = await asyncio.gather(
            *(stack.enter_async_context(gateway.talking(session)) for session in sessions)
        )
        ids = [client.connected["user"]["id"] for client in clients]
        assert ids == [session.user_id for session in sessions]
        assert gateway.sample("duet_gateway_connections") == 100
