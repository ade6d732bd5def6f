"""The gateway refuses for the moment, restarts, or is not the one it was: the client copes."""

import asyncio
import contextlib
import shutil
from pathlib import Path

import pytest

import duet_client
from duet_client import NewMessage, Tokens
from tests.client_python.services import Duet, expect, running_gateway_process
from tests.support.gateway import database_locked
from tests.support.waiting import until


async def test_two_devices_that_share_a_rate_limit_both_get_everything_through_in_order(
    profile_url: str, shared_data: Path, ann: Tokens, bob: Tokens, tmp_path: Path
) -> None:
    with running_gateway_process(
        tmp_path / "gateway",
        profile_url,
        DUET_SERVICE_SECRET_FILE=str(shared_data / "service_secret"),
        DUET_MESSAGES_PER_S="10",
        DUET_MESSAGE_BURST="5",
    ) as gateway:
        duet = Duet(profile_url, gateway)
        async with contextlib.AsyncExitStack() as stack:
            devices = [
                await stack.enter_async_context(duet.connect(ann, tmp_path / name)) for name in "xy"
            ]
            outgoing = [
                [await device.send(bob.user_id, f"{name} {n}") for n in range(12)]
                for name, device in zip("xy", devices, strict=True)
            ]
            async with asyncio.timeout(30):
                for each in (message for half in outgoing for message in half):
                    await each.acknowledged()
            page = await devices[0].history(bob.user_id)
        texts = [message.text for message in page.messages]
        for name in "xy":
            own = [text for text in texts if text.startswith(name)]
            assert own == [f"{name} {n}" for n in range(12)]
        assert len(texts) == 24


async def test_message_waits_while_the_gateways_disk_does_not_take_it(
    profile_url: str, shared_data: Path, ann: Tokens, bob: Tokens, tmp_path: Path
) -> None:
    with running_gateway_process(
        tmp_path / "gateway",
        profile_url,
        DUET_SERVICE_SECRET_FILE=str(shared_data / "service_secret"),
        DUET_DATABASE_BUSY_TIMEOUT_S="0.05",
    ) as gateway:
        async with Duet(profile_url, gateway).connect(ann, tmp_path / "a") as a:
            with database_locked(gateway.database):
                outgoing = [await a.send(bob.user_id, text) for text in ("one", "two")]
                await until(lambda: any("not stored" in line for line in gateway.log))
                assert len(a.queued) == 2
            assert [(await each.acknowledged()).seq for each in outgoing] == [1, 2]


async def test_restarted_gateway_is_found_again_and_waits_are_told(
    own_gateway: Duet, ann: Tokens, bob: Tokens, tmp_path: Path
) -> None:
    async with (
        own_gateway.connect(ann, tmp_path / "a") as a,
        own_gateway.connect(bob, tmp_path / "b") as b,
    ):
        assert "live" in repr(a)
        await asyncio.to_thread(own_gateway.gateway.stop)
        lost = await expect(b, duet_client.ConnectionLost)
        assert lost.retry_in_s > 0
        outgoing = await a.send(bob.user_id, "after the restart")
        asking = asyncio.create_task(a.conversations())
        await asyncio.to_thread(own_gateway.gateway.start)
        await expect(b, duet_client.ConnectionRestored)
        await outgoing.acknowledged()
        await asking
        assert (await expect(b, NewMessage)).text == "after the restart"


async def test_gateway_with_another_database_calls_for_a_resync_and_goes_on(
    own_gateway: Duet, ann: Tokens, bob: Tokens, tmp_path: Path
) -> None:
    gateway = own_gateway.gateway
    async with (
        own_gateway.connect(ann, tmp_path / "a") as a,
        own_gateway.connect(bob, tmp_path / "b") as b,
    ):
        await (await a.send(bob.user_id, "forgotten")).acknowledged()
        await expect(b, NewMessage)
        gateway.kill()
        shutil.rmtree(gateway.database.parent)
        gateway.start()
        await expect(b, duet_client.ResyncNeeded)
        assert (await b.history(ann.user_id)).messages == []
        ack = await (await a.send(bob.user_id, "remembered")).acknowledged()
        assert ack.seq == 1
        assert (await expect(b, NewMessage)).text == "remembered"


async def test_evicted_client_stops_and_keeps_what_is_queued(
    duet: Duet, ann: Tokens, tmp_path: Path
) -> None:
    async with contextlib.AsyncExitStack() as stack:
        first = await stack.enter_async_context(duet.connect(ann, tmp_path / "0"))
        for number in range(1, 11):
            await stack.enter_async_context(duet.connect(ann, tmp_path / str(number)))
        with pytest.raises(duet_client.Evicted):
            await expect(first, NewMessage)
        outgoing = await first.send("bob", "kept")
        with pytest.raises(duet_client.Evicted):
            await first.wait_connected()
        assert [row.id for row in first.queued] == [outgoing.id]


async def test_what_is_no_gateway_is_said_to_be_none(
    duet: Duet, ann: Tokens, tmp_path: Path
) -> None:
    not_it = duet.profile_url.replace("http://", "ws://") + "/v1/ws"
    with pytest.raises(duet_client.ServiceUnreachable, match="HTTP"):
        async with duet.connect(ann, tmp_path / "a", gateway_url=not_it, connect_timeout_s=0.5):
            pass
    with pytest.raises(duet_client.ServiceUnreachable, match="does not answer"):
        await duet_client.log_in("http://127.0.0.1:1", "ann", "x", trust_env=False)


async def test_message_id_of_the_application_makes_repeating_safe(
    duet: Duet, ann: Tokens, bob: Tokens, tmp_path: Path
) -> None:
    async with duet.connect(ann, tmp_path / "a") as a:
        twice = [await a.send(bob.username, "hi", message_id="order-17") for _ in range(2)]
        acks = [await each.acknowledged() for each in twice]
        later = await (await a.send(bob.username, "hi", message_id="order-17")).acknowledged()
        assert {ack.seq for ack in [*acks, later]} == {1}
        assert len((await a.history(bob.username)).messages) == 1
        with pytest.raises(duet_client.Conflict):
            await (await a.send(bob.username, "other", message_id="order-17")).acknowledged()
        with pytest.raises(duet_client.InvalidRequest):
            await a.send(bob.username, "hi", message_id="no\nid")


async def test_refused_message_that_is_repeated_goes_again_though_the_process_dies(
    duet: Duet, ann: Tokens, bob: Tokens, tmp_path: Path
) -> None:
    async def send(client: duet_client.Client) -> None:
        await client.send(bob.user_id, "hi", message_id="order-18")

    async with duet.connect(bob, tmp_path / "b") as b:
        await b.block(ann.user_id)
        async with duet.connect(ann, tmp_path / "a") as a:
            await send(a)
            async with asyncio.timeout(10):
                async for event in a.events():
                    if isinstance(event, duet_client.SendFailed):
                        break
        await b.unblock(ann.user_id)
        nowhere = {"gateway_url": "ws://127.0.0.1:1/v1/ws", "connect_timeout_s": 0}
        async with duet.connect(ann, tmp_path / "a", **nowhere) as a:
            await send(a)
            assert (await expect(a, duet_client.SendFailed)).id == "order-18"
        async with duet.connect(ann, tmp_path / "a") as a:
            assert (await expect(a, duet_client.MessageSent)).id == "order-18"
        assert (await expect(b, duet_client.NewMessage)).text == "hi"
