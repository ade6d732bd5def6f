"""What operators ask on the gateway's port: alive, ready, and numbers."""

import asyncio
import contextlib
import urllib.parse
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.fake_profile import FakeProfile
from tests.support.gateway import TestGateway, running_gateway
from tests.support.waiting import until


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[TestGateway]:
    async with running_gateway(tmp_path) as gateway:
        yield gateway


async def test_alive_and_ready(gateway: TestGateway) -> None:
    assert (await gateway.get("/healthz")).text == "ok\n"
    assert (await gateway.get("/readyz")).text == "ready\n"
    assert (await gateway.get("/readyz?verbose=1")).status_code == 200


async def test_not_ready_before_the_profile_service_was_reached(tmp_path: Path) -> None:
    profile = FakeProfile()
    profile.available = False
    async with running_gateway(tmp_path, profile=profile) as gateway:
        answer = await gateway.get("/readyz")
        assert answer.status_code == 503
        assert "profile service" in answer.text
        assert (await gateway.get("/healthz")).status_code == 200
        profile.available = True
        await until(gateway.gateway.revocations.connected.is_set)
        assert (await gateway.get("/readyz")).status_code == 200


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics", "/nothing", "/v1/ws"])
async def test_head_brings_the_headers_alone(gateway: TestGateway, path: str) -> None:
    address = urllib.parse.urlsplit(gateway.url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    with contextlib.closing(writer):
        writer.write(f"HEAD {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        head, separator, body = (await reader.read()).partition(b"\r\n\r\n")
    assert b"Content-Length: " in head
    assert (b" 426 " in head) is (path == "/v1/ws")
    assert (separator, body) == (b"\r\n\r\n", b"")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
async def test_other_methods_are_not_allowed(gateway: TestGateway, method: str) -> None:
    answer = await gateway.get("/readyz", method)
    assert answer.status_code == 405
    assert answer.headers["Allow"] == "GET"


async def test_unknown_path_names_the_endpoint(gateway: TestGateway) -> None:
    answer = await gateway.get("/")
    assert answer.status_code == 404
    assert "/v1/ws" in answer.text


async def test_answers_reveal_no_versions_and_are_not_cached(gateway: TestGateway) -> None:
    answer = await gateway.get("/healthz")
    assert "server" not in answer.headers
    assert answer.headers["Cache-Control"] == "no-store"


async def test_metrics_tell_what_happened(gateway: TestGateway) -> None:
    ann, bob = gateway.profile.sign_up("ann"), gateway.profile.sign_up("bob")
    async with gateway.talking(ann) as a, gateway.talking(bob) as b:
        await a.say(bob.user_id, "hello", "1")
        await b.expect("message")
        await a.say(bob.user_id, "hello", "1")
        await a.send(type="send", id="1", to=bob.user_id, text="other")
        await a.expect_error("conflict")
        answer = await gateway.get("/metrics")
    assert answer.headers["Content-Type"].startswith("text/plain")
    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }
    assert samples["duet_gateway_connections",] == 2
    assert samples["duet_gateway_users",] == 2
    assert samples["duet_gateway_connects_total", "accepted"] == 2
    assert samples["duet_gateway_changes_total", "stored"] == 1
    assert samples["duet_gateway_changes_total", "duplicate"] == 1
    assert samples["duet_gateway_changes_total", "refused"] == 1
    assert samples["duet_gateway_delivered_messages",] == 1
    assert samples["duet_gateway_commit_batch_messages_count",] == 3
    assert samples["duet_gateway_ack_seconds_count",] == 3
    assert samples["duet_gateway_revocation_feed_connected",] == 1


async def test_close_codes_of_clients_cannot_swell_the_metrics(gateway: TestGateway) -> None:
    ann = gateway.profile.sign_up("ann")
    for code in (1000, 1001, 3999, 4000, 4999):
        async with gateway.talking(ann) as a:
            await a.socket.close(code)
    await until(lambda: gateway.gateway.server.connections == 0)
    text = (await gateway.get("/metrics")).text
    codes = {line.split('"')[1] for line in text.splitlines() if "closes_total{" in line}
    assert codes == {"1000", "1001", "other"}
