"""Connections end when their sessions do: logged out, expired, evicted."""

import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.client import Client
from tests.support.fake_profile import FakeProfile, FakeSession
from tests.support.gateway import TestGateway, running_gateway
from tests.support.waiting import until


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[TestGateway]:
    async with running_gateway(tmp_path) as gateway:
        yield gateway


@pytest.fixture
def ann(gateway: TestGateway) -> FakeSession:
    return gateway.profile.sign_up("ann")


async def ended_with(client: Client, error: str, code: int) -> None:
    await client.expect_error(error)
    assert await client.closed() == (code, error)


async def test_logged_out_session_is_closed_within_2_s_and_others_are_not(
    gateway: TestGateway, ann: FakeSession
) -> None:
    phone, bob = gateway.profile.log_in(ann.user_id), gateway.profile.sign_up("bob")
    async with gateway.talking(ann) as a, gateway.talking(phone) as p, gateway.talking(bob) as b:
        started = time.monotonic()
        gateway.profile.log_out(ann)
        await ended_with(a, "session_ended", 3000)
        assert time.monotonic() - started < 2
        await p.nothing_more(ann.user_id)
        await b.nothing_more(bob.user_id)
    assert gateway.sample("duet_gateway_revoked_connections_total") == 1


async def test_every_connection_of_a_session_is_closed(
    gateway: TestGateway, ann: FakeSession
) -> None:
    async with gateway.talking(ann) as one, gateway.talking(ann) as other:
        gateway.profile.log_out(ann)
        await ended_with(one, "session_ended", 3000)
        await ended_with(other, "session_ended", 3000)
        assert gateway.connections_of(ann.user_id) == 0


async def test_logging_out_everywhere_closes_every_device(
    gateway: TestGateway, ann: FakeSession
) -> None:
    phone = gateway.profile.log_in(ann.user_id)
    async with gateway.talking(ann) as a, gateway.talking(phone) as p:
        gateway.profile.log_out_everywhere(ann.user_id)
        await ended_with(a, "session_ended", 3000)
        await ended_with(p, "session_ended", 3000)


async def test_password_change_keeps_the_device_it_was_made_on(
    gateway: TestGateway, ann: FakeSession
) -> None:
    phone = gateway.profile.log_in(ann.user_id)
    async with gateway.talking(ann) as a, gateway.talking(phone) as p:
        gateway.profile.change_password(kept=phone)
        await ended_with(a, "session_ended", 3000)
        await p.nothing_more(ann.user_id)


async def test_deleted_user_is_closed_and_no_recipient_any_more(
    gateway: TestGateway, ann: FakeSession
) -> None:
    bob = gateway.profile.sign_up("bob")
    async with gateway.talking(ann) as a, gateway.talking(bob) as b:
        await a.say(bob.user_id, "hello", "1")
        await b.expect("message")
        gateway.profile.delete_user(ann.user_id)
        await ended_with(a, "session_ended", 3000)
        await b.expect("erased", user=ann.user_id)
        await b.send(type="send", id="2", to=ann.user_id, text="hello?")
        await b.expect_error("recipient_not_found", id="2")


async def test_revocation_that_overtakes_the_verdict_is_heeded(
    gateway: TestGateway, ann: FakeSession
) -> None:
    async with gateway.talking(ann) as witness, Client.open(gateway.url) as client:
        gateway.profile.verifications.close()
        await client.send(type="connect", access_token=ann.access_token)
        await gateway.profile.verifications.arrivals(2)
        gateway.profile.log_out(ann)
        await ended_with(witness, "session_ended", 3000)
        gateway.profile.verifications.open()
        await ended_with(client, "unauthorized", 3000)


async def test_missed_revocation_is_heard_when_the_feed_comes_back(
    gateway: TestGateway, ann: FakeSession
) -> None:
    async with gateway.talking(ann) as a:
        gateway.profile.feed_works = False
        gateway.profile.break_feed()
        await until(lambda: not gateway.gateway.revocations.connected.is_set())
        gateway.profile.log_out(ann)
        await a.nothing_more(ann.user_id)
        gateway.profile.feed_works = True
        await ended_with(a, "session_ended", 3000)


async def test_forgotten_feed_makes_the_gateway_check_every_session(
    gateway: TestGateway, ann: FakeSession
) -> None:
    bob = gateway.profile.sign_up("bob")
    async with gateway.talking(ann) as a, gateway.talking(bob) as b:
        gateway.profile.log_out_unheard(ann)
        gateway.profile.forget_feed()
        await ended_with(a, "session_ended", 3000)
        await b.nothing_more(bob.user_id)


async def test_poll_finds_ended_sessions_while_the_feed_is_down(tmp_path: Path) -> None:
    profile = FakeProfile()
    profile.feed_works = False
    async with running_gateway(
        tmp_path, profile=profile, revocation_poll_interval_s=0.05
    ) as gateway:
        ann, bob = profile.sign_up("ann"), profile.sign_up("bob")
        async with gateway.talking(ann) as a, gateway.talking(bob) as b:
            profile.log_out(ann)
            await ended_with(a, "session_ended", 3000)
            await b.nothing_more(bob.user_id)


async def test_connections_stay_while_the_profile_service_is_down(tmp_path: Path) -> None:
    async with running_gateway(tmp_path, revocation_poll_interval_s=0.02) as gateway:
        ann, bob = gateway.profile.sign_up("ann"), gateway.profile.sign_up("bob")
        async with gateway.talking(ann) as a, gateway.talking(bob) as b:
            await a.say(bob.user_id, "before", "1")
            gateway.profile.available = False
            await gateway.profile.status_checks.arrivals(4)
            await a.say(bob.user_id, "meanwhile", "2")
            gateway.profile.available = True
            await until(gateway.gateway.revocations.connected.is_set)
            await a.say(bob.user_id, "after", "3")
            for text in ("before", "meanwhile", "after"):
                await b.expect("message", text=text)


async def test_eleventh_connection_evicts_the_oldest(
    gateway: TestGateway, ann: FakeSession
) -> None:
    async with gateway.talking_often(ann, 10) as (oldest, second, *_):
        assert gateway.connections_of(ann.user_id) == 10
        async with gateway.talking(ann) as newest:
            await ended_with(oldest, "evicted", 1008)
            await second.nothing_more(ann.user_id)
            await newest.nothing_more(ann.user_id)
            assert gateway.connections_of(ann.user_id) == 10
    assert gateway.sample("duet_gateway_evictions_total") == 1


async def test_expiry_is_announced_and_then_closes(tmp_path: Path) -> None:
    async with running_gateway(tmp_path, expiring_lead_s=0.2, expiry_grace_s=0.1) as gateway:
        ann = gateway.profile.sign_up("ann", expires_in_s=0.3)
        async with gateway.talking(ann) as a:
            assert (await a.expect("expiring"))["in_s"] == 0
            await ended_with(a, "token_expired", 3000)
            assert time.time() >= ann.expires_at + 0.1


async def test_refresh_keeps_the_connection_open(tmp_path: Path) -> None:
    async with running_gateway(tmp_path, expiring_lead_s=0.3, expiry_grace_s=0.2) as gateway:
        ann = gateway.profile.sign_up("ann", expires_in_s=0.4)
        async with gateway.talking(ann) as a:
            await a.expect("expiring")
            first_end = ann.expires_at
            gateway.profile.refresh(ann, expires_in_s=1.2)
            await a.send(type="refresh", id="r", access_token=ann.access_token)
            refreshed = await a.expect("refreshed", id="r")
            assert refreshed["expires_at"] > a.connected["expires_at"]
            await a.expect("expiring")  # of the new token
            assert time.time() > first_end + 0.2
            await a.nothing_more(ann.user_id)
            await ended_with(a, "token_expired", 3000)


async def test_refresh_with_a_bad_token_leaves_the_connection_alone(
    gateway: TestGateway, ann: FakeSession
) -> None:
    async with gateway.talking(ann) as a:
        await a.send(type="refresh", id="r", access_token="nonsense")
        await a.expect_error("unauthorized", id="r")
        gateway.profile.available = False
        await a.send(type="refresh", id="s", access_token=ann.access_token)
        await a.expect_error("verification_unavailable", id="s", retryable=True)
        await a.nothing_more(ann.user_id)


async def test_refresh_with_a_token_of_another_session_is_forbidden(
    gateway: TestGateway, ann: FakeSession
) -> None:
    bob = gateway.profile.sign_up("bob")
    async with gateway.talking(ann) as a:
        await a.send(type="refresh", id="r", access_token=bob.access_token)
        await a.expect_error("wrong_user", id="r")
        assert await a.closed() == (3003, "wrong_user")


async def test_messages_flow_while_a_refresh_is_verified(
    gateway: TestGateway, ann: FakeSession
) -> None:
    bob = gateway.profile.sign_up("bob")
    async with gateway.talking(ann) as a:
        gateway.profile.verifications.close()
        await a.send(type="refresh", id="r", access_token=ann.access_token)
        await gateway.profile.verifications.arrivals(2)
        await a.say(bob.user_id, "hello", "1")
        gateway.profile.verifications.open()
        await a.expect("refreshed", id="r")


async def test_client_may_leave_while_its_refresh_is_verified(
    gateway: TestGateway, ann: FakeSession
) -> None:
    async with gateway.talking(ann) as a:
        gateway.profile.verifications.close()
        await a.send(type="refresh", id="r", access_token=ann.access_token)
        await gateway.profile.verifications.arrivals(2)
        a.vanish()
        await until(lambda: gateway.gateway.server.connections == 0)
