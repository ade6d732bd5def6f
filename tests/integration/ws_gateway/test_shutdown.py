"""Stopping: announced, nothing taken is lost, and over in time whoever is stuck."""

import asyncio
import contextlib
import time
import urllib.parse
from pathlib import Path

import pytest

from shared.sqlite import DatabaseInUse
from tests.support.client import Client
from tests.support.engines import ON_SCALE
from tests.support.fake_profile import FakeProfile
from tests.support.gateway import database_locked, running_gateway, stored_messages
from tests.support.raw_socket import RawSocket


async def test_clients_are_told_to_come_back_and_closed_with_1012(tmp_path: Path) -> None:
    async with contextlib.AsyncExitStack() as stack:
        gateway = await stack.enter_async_context(running_gateway(tmp_path))
        ann = gateway.profile.sign_up("ann")
        async with gateway.talking(ann) as a, Client.open(gateway.url) as unverified:
            stopping = asyncio.create_task(stack.aclose())
            for client in (a, unverified):
                assert (await client.expect("draining"))["retry_after_ms"] > 0
                assert await client.closed() == (1012, "restarting")
            await stopping


async def test_messages_that_were_taken_are_acknowledged_before_the_close(tmp_path: Path) -> None:
    profile = FakeProfile()
    async with contextlib.AsyncExitStack() as stack:
        gateway = await stack.enter_async_context(
            running_gateway(tmp_path, profile=profile, database_busy_timeout_s=30)
        )
        ann, bob = profile.sign_up("ann"), profile.sign_up("bob")
        async with gateway.talking(ann) as a, gateway.talking(bob) as b:
            with database_locked(gateway.database):
                for number in range(20):
                    await a.send(type="send", id=f"{number}", to=bob.user_id, text="hi")
                await a.nothing_more(ann.user_id)
                stopping = asyncio.create_task(stack.aclose())
                await a.expect("draining")
                await b.expect("draining")
            for number in range(20):
                await a.expect("ack", id=f"{number}", seq=number + 1)
                await b.expect("message", seq=number + 1)
            assert (await a.closed())[0] == 1012
            await stopping
    assert len(stored_messages(tmp_path / "messages.db")) == 20


async def test_reader_that_is_stuck_delays_the_end_no_longer_than_the_deadline(
    tmp_path: Path,
) -> None:
    async with contextlib.AsyncExitStack() as stack:
        gateway = await stack.enter_async_context(
            running_gateway(tmp_path, gateway_shutdown_timeout_s=0.3, close_timeout_s=30)
        )
        ann, bob = gateway.profile.sign_up("ann"), gateway.profile.sign_up("bob")
        async with RawSocket.open(gateway.url) as stuck, gateway.talking(ann) as a:
            await stuck.connect(bob.access_token)
            await a.say(bob.user_id, "unread", "1")
            started = time.monotonic()
            stopping = asyncio.create_task(stack.aclose())
            await a.expect("draining")
            assert (await a.closed())[0] == 1012
            await stopping
            assert time.monotonic() - started < 10  # the close alone would wait for 30 s


@pytest.mark.parametrize("said", [b"", b"GET /v1/ws HTTP/1.1\r\nHost: x\r\n"])
async def test_handshake_that_is_never_finished_does_not_delay_the_end(
    tmp_path: Path, said: bytes
) -> None:
    async with contextlib.AsyncExitStack() as stack:
        gateway = await stack.enter_async_context(
            running_gateway(tmp_path, gateway_shutdown_timeout_s=40, handshake_timeout_s=40)
        )
        address = urllib.parse.urlsplit(gateway.url)
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        with contextlib.closing(writer):
            writer.write(said)
            assert (await gateway.get("/healthz")).text == "ok\n"  # the one before it is accepted
            started = time.monotonic()
            await stack.aclose()
            assert time.monotonic() - started < 10
            with contextlib.suppress(ConnectionError):
                assert await reader.read() == b""


async def test_commit_that_is_stuck_is_not_acknowledged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with contextlib.AsyncExitStack() as stack:
        gateway = await stack.enter_async_context(
            running_gateway(
                tmp_path,
                gateway_shutdown_timeout_s=0.2,
                close_timeout_s=0.1,
                database_busy_timeout_s=1,
            )
        )
        ann, bob = gateway.profile.sign_up("ann"), gateway.profile.sign_up("bob")
        async with gateway.talking(ann) as a:
            await a.say(bob.user_id, "so bob is known", "0")
            with database_locked(gateway.database):
                await a.send(type="send", id="1", to=bob.user_id, text="hi")
                await a.nothing_more(ann.user_id)
                stopping = asyncio.create_task(stack.aclose())
                await a.expect("draining")
                assert (await a.closed())[0] == 1012
                await stopping
    assert [row[2] for row in stored_messages(tmp_path / "messages.db")] == ["0"]
    assert "did not finish in time" in caplog.text
    caplog.clear()


async def test_many_commits_that_would_be_stuck_in_turn_are_given_up(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with contextlib.AsyncExitStack() as stack:
        gateway = await stack.enter_async_context(
            running_gateway(
                tmp_path,
                gateway_shutdown_timeout_s=0.2,
                close_timeout_s=0.1,
                database_busy_timeout_s=0.5,
                commit_max_batch=1,
            )
        )
        ann, bob = gateway.profile.sign_up("ann"), gateway.profile.sign_up("bob")
        async with gateway.talking(ann) as a:
            await a.say(bob.user_id, "so bob is known", "0")
            with database_locked(gateway.database):
                for number in range(1, 41):
                    await a.send(type="send", id=f"{number}", to=bob.user_id, text="hi")
                await a.nothing_more(ann.user_id)
                started = time.monotonic()
                await stack.aclose()
                assert time.monotonic() - started < 10  # in turn, they would take 40 s
    assert [row[2] for row in stored_messages(tmp_path / "messages.db")] == ["0"]
    caplog.clear()


async def test_nobody_new_is_let_in_while_draining(tmp_path: Path) -> None:
    async with contextlib.AsyncExitStack() as stack:
        gateway = await stack.enter_async_context(
            running_gateway(tmp_path, database_busy_timeout_s=30)
        )
        ann, bob = gateway.profile.sign_up("ann"), gateway.profile.sign_up("bob")
        async with gateway.talking(ann) as a:
            with database_locked(gateway.database):
                await a.send(type="send", id="1", to=bob.user_id, text="hi")
                await a.nothing_more(ann.user_id)
                stopping = asyncio.create_task(stack.aclose())
                await a.expect("draining")
                with pytest.raises(OSError, match=r"Connect call failed|refused"):
                    async with Client.open(gateway.url):
                        pass
            await a.expect("ack", id="1")
            await stopping


@pytest.mark.skipif(ON_SCALE, reason="PostgreSQL is no file of the gateway's")
async def test_second_gateway_on_one_database_is_refused(tmp_path: Path) -> None:
    async with running_gateway(tmp_path):
        with pytest.raises(DatabaseInUse):
            async with running_gateway(tmp_path):
                pass


async def test_database_is_free_after_the_stop(tmp_path: Path) -> None:
    for _ in range(3):
        async with running_gateway(tmp_path):
            pass
