"""Messages between real connections: acknowledged, delivered, in order, never twice."""

import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from shared.ids import new_user_id
from tests.support.client import Client
from tests.support.fake_profile import FakeSession
from tests.support.gateway import TestGateway, database_locked, running_gateway, stored_messages
from tests.support.waiting import until


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[TestGateway]:
    async with running_gateway(tmp_path, database_busy_timeout_s=30) as gateway:
        yield gateway


@pytest.fixture
def ann(gateway: TestGateway) -> FakeSession:
    return gateway.profile.sign_up("ann")


@pytest.fixture
def bob(gateway: TestGateway) -> FakeSession:
    return gateway.profile.sign_up("bob")


async def test_message_is_acknowledged_and_delivered(
    gateway: TestGateway, ann: FakeSession, bob: FakeSession
) -> None:
    async with gateway.talking(ann) as a, gateway.talking(bob) as b:
        ack = await a.say(bob.user_id, "hello", "1")
        message = await b.expect("message", text="hello")
        assert (ack["seq"], ack["duplicate"]) == (1, False)
        assert message["from"] == ann.user_id
        assert message["to"] == bob.user_id
        assert message["conversation"] == ack["conversation"]
        assert message["sent_at"] == ack["sent_at"]
        assert message["cursor"] != b.connected["cursor"]
        assert "id" not in message
    assert stored_messages(gateway.database) == [(ack["conversation"], 1, "1", "hello")]


async def test_both_people_count_in_one_conversation(
    gateway: TestGateway, ann: FakeSession, bob: FakeSession
) -> None:
    async with gateway.talking(ann) as a, gateway.talking(bob) as b:
        assert (await a.say(bob.user_id, "one", "1"))["seq"] == 1
        await b.expect("message", seq=1)
        assert (await b.say(ann.user_id, "two", "1"))["seq"] == 2
        await a.expect("message", seq=2, text="two")


async def test_other_devices_of_the_sender_get_the_message_with_its_id(
    gateway: TestGateway, ann: FakeSession, bob: FakeSession
) -> None:
    phone = gateway.profile.log_in(ann.user_id)
    async with gateway.talking(ann) as a, gateway.talking(phone) as p, gateway.talking(bob) as b:
        await a.say(bob.user_id, "hello", "1")
        shown = await p.expect("message", id="1", text="hello")
        delivered = await b.expect("message", text="hello")
        assert shown["cursor"] == delivered["cursor"]
        await a.nothing_more(ann.user_id)


async def test_every_device_of_the_recipient_gets_the_message(
    gateway: TestGateway, ann: FakeSession, bob: FakeSession
) -> None:
    async with gateway.talking(ann) as a, gateway.talking(bob) as b1, gateway.talking(bob) as b2:
        await a.say(bob.user_id, "hello", "1")
        assert await b1.expect("message") == await b2.expect("message")


async def test_message_to_somebody_offline_is_stored(
    gateway: TestGateway, ann: FakeSession, bob: FakeSession
) -> None:
    async with gateway.talking(ann) as a:
        await a.say(bob.user_id, "hello", "1")
    assert len(stored_messages(gateway.database)) == 1


async def test_retried_send_returns_the_original_ack_and_delivers_nothing(
    gateway: TestGateway, ann: FakeSession, bob: FakeSession
) -> None:
    async with gateway.talking(bob) as b:
        async with gateway.talking(ann) as a:
            first = await a.say(bob.user_id, "hello", "1")
        async with gateway.talking(ann) as a:
            again = await a.say(bob.user_id, "hello", "1")
            assert again == {**first, "duplicate": True}
            await a.say(bob.user_id, "next", "2")
        await b.expect("message", text="hello")
        await b.expect("message", text="next", seq=2)


async def test_used_id_with_other_content_is_a_conflict(
    gateway: TestGateway, ann: FakeSession, bob: FakeSession
) -> None:
    async with gateway.talking(ann) as a:
        await a.say(bob.user_id, "hello", "1")
        await a.send(type="send", id="1", to=bob.user_id, text="other")
        await a.expect_error("conflict", id="1", retryable=False)
    assert len(stored_messages(gateway.database)) == 1


@pytest.mark.parametrize(
    "to",
    [new_user_id(), "bob", "u_\u00e9", "x" * 64, "\U0001f600" * 64],
    ids=["well-formed", "username", "accent", "longest", "most-bytes"],
)
async def test_unknown_recipient_is_not_found_and_nothing_is_stored(
    gateway: TestGateway, ann: FakeSession, to: str
) -> None:
    async with gateway.talking(ann) as a:
        await a.send(type="send", id="1", to=to, text="hello")
        await a.expect_error("recipient_not_found", id="1", retryable=False)
    assert stored_messages(gateway.database) == []


async def test_message_to_oneself_is_refused(gateway: TestGateway, ann: FakeSession) -> None:
    async with gateway.talking(ann) as a:
        await a.send(type="send", id="1", to=ann.user_id, text="hello")
        await a.expect_error("recipient_is_sender", id="1", retryable=False)


async def test_text_may_have_4000_characters_and_not_one_more(
    gateway: TestGateway, ann: FakeSession, bob: FakeSession
) -> None:
    longest = "\U0001f600" * 4000
    async with gateway.talking(ann) as a, gateway.talking(bob) as b:
        await a.send_raw(
            json.dumps({"type": "send", "id": "1", "to": bob.user_id, "text": longest})
        )
        await a.expect("ack", id="1")
        await b.expect("message", text=longest)
        await a.send_raw(
            json.dumps({"type": "send", "id": "2", "to": bob.user_id, "text": "x" * 4001})
        )
        error = await a.expect_error("invalid_frame", id="2")
        assert "4000" in error["message"]
        await a.say(bob.user_id, "still here", "3")


@pytest.mark.parametrize(
    "fields",
    [
        {"text": ""},
        {"text": 5},
        {"text": None},
        {"text": "a\x00b"},
        {"text": ["x"]},
        {"to": ""},
        {"to": 1},
        {"to": "x" * 65},
    ],
)
async def test_invalid_field_is_named_and_the_connection_goes_on(
    gateway: TestGateway, ann: FakeSession, bob: FakeSession, fields: dict[str, object]
) -> None:
    frame = {"type": "send", "id": "1", "to": bob.user_id, "text": "hello"}
    async with gateway.talking(ann) as a:
        await a.send(**(frame | fields))
        error = await a.expect_error("invalid_frame", id="1", retryable=False)
        (name,) = fields
        assert f"$.{name}" in error["message"]
        await a.say(bob.user_id, "still here", "2")


@pytest.mark.parametrize("client_id", ["", "x" * 65, 7, "\u00e9", "a\nb"])
async def test_invalid_request_id_is_not_repeated(
    gateway: TestGateway, ann: FakeSession, bob: FakeSession, client_id: object
) -> None:
    async with gateway.talking(ann) as a:
        await a.send(type="send", id=client_id, to=bob.user_id, text="hello")
        assert "$.id" in (await a.expect_error("invalid_frame"))["message"]
        await a.say(bob.user_id, "still here", "2")


@pytest.mark.parametrize("frame", ["{}", '{"type": "nope"}', "[]", "null", '{"type": 5}'])
async def test_unknown_frame_is_answered_and_the_connection_goes_on(
    gateway: TestGateway, ann: FakeSession, bob: FakeSession, frame: str
) -> None:
    async with gateway.talking(ann) as a:
        await a.send_raw(frame)
        await a.expect_error("invalid_frame")
        await a.say(bob.user_id, "still here", "2")


async def test_unknown_fields_are_ignored(
    gateway: TestGateway, ann: FakeSession, bob: FakeSession
) -> None:
    async with gateway.talking(ann) as a:
        await a.send(type="send", id="1", to=bob.user_id, text="hello", colour="red", mood={})
        await a.expect("ack", id="1")


async def test_fragmented_frame_is_read_as_one_and_keeps_its_place(
    gateway: TestGateway, ann: FakeSession, bob: FakeSession
) -> None:
    async with gateway.talking(ann) as a:
        for number in range(0, 20, 2):
            frame = {"type": "send", "id": str(number), "to": bob.user_id, "text": "hello"}
            text = json.dumps(frame)
            await a.socket.send([text[:20], text[20:25], text[25:]])
            await a.send(**(frame | {"id": str(number + 1)}))
        for number in range(20):
            await a.expect("ack", id=str(number), seq=number + 1)


async def test_order_is_kept_while_a_recipient_is_looked_up(
    gateway: TestGateway, ann: FakeSession, bob: FakeSession
) -> None:
    gateway.profile.lookups.close()
    async with gateway.talking(ann) as a:
        for number in range(10):
            await a.send(type="send", id=str(number), to=bob.user_id, text=f"{number}")
        await gateway.profile.lookups.arrivals(1)
        async with gateway.talking(bob) as b:
            for number in range(10, 20):
                await a.send(type="send", id=str(number), to=bob.user_id, text=f"{number}")
            gateway.profile.lookups.open()
            for number in range(20):
                await a.expect("ack", id=str(number), seq=number + 1)
            for number in range(20):
                await b.expect("message", text=f"{number}", seq=number + 1)


async def test_held_look_up_delays_nobody_else(
    gateway: TestGateway, ann: FakeSession, bob: FakeSession
) -> None:
    async with gateway.talking(ann) as a:
        await a.say(bob.user_id, "so bob is known", "0")
        gateway.profile.lookups.close()
        await a.send(type="send", id="slow", to=new_user_id(), text="?")
        await gateway.profile.lookups.arrivals(2)
        await a.say(bob.user_id, "hello", "1")
        gateway.profile.lookups.open()
        await a.expect_error("recipient_not_found", id="slow")


async def test_recipient_that_cannot_be_looked_up_is_a_retryable_error(
    gateway: TestGateway, ann: FakeSession, bob: FakeSession
) -> None:
    async with gateway.talking(ann) as a:
        gateway.profile.available = False
        await a.send(type="send", id="1", to=bob.user_id, text="hello")
        error = await a.expect_error("verification_unavailable", id="1", retryable=True)
        assert error["retry_after_ms"] > 0
        gateway.profile.available = True
        assert not (await a.say(bob.user_id, "hello", "1"))["duplicate"]


async def test_locked_database_gives_retryable_errors_and_recovers(tmp_path: Path) -> None:
    async with running_gateway(tmp_path, database_busy_timeout_s=0.05) as gateway:
        ann, bob = gateway.profile.sign_up("ann"), gateway.profile.sign_up("bob")
        async with gateway.talking(ann) as a, gateway.talking(bob) as b:
            with database_locked(gateway.database):
                await a.send(type="send", id="1", to=bob.user_id, text="hello")
                error = await a.expect_error("store_unavailable", id="1", retryable=True)
                assert error["retry_after_ms"] > 0
                assert (await gateway.get("/readyz")).status_code == 200  # reads still work
            ack = await a.say(bob.user_id, "hello", "1")
            assert (ack["seq"], ack["duplicate"]) == (1, False)
            await b.expect("message", text="hello")
        assert gateway.sample("duet_gateway_changes_total", outcome="failed") == 1


async def test_sender_gone_before_the_commit_still_delivers_to_everyone_else(
    gateway: TestGateway, ann: FakeSession, bob: FakeSession
) -> None:
    phone = gateway.profile.log_in(ann.user_id)
    async with gateway.talking(bob) as b, gateway.talking(phone) as p:
        with database_locked(gateway.database):
            async with gateway.talking(ann) as a:
                for number in range(10):
                    await a.send(type="send", id=f"{number}", to=bob.user_id, text=f"{number}")
                await a.nothing_more(ann.user_id)  # so the gateway has taken them
                a.vanish()
            await until(lambda: gateway.connections_of(ann.user_id) == 1)
        for number in range(10):
            await b.expect("message", text=f"{number}", seq=number + 1)
            await p.expect("message", id=f"{number}")
    assert [row[1:3] for row in stored_messages(gateway.database)] == [
        (number + 1, f"{number}") for number in range(10)
    ]


async def test_what_waits_during_a_commit_shares_the_next_one(
    gateway: TestGateway, ann: FakeSession, bob: FakeSession
) -> None:
    async with gateway.talking(ann) as a:
        await a.say(bob.user_id, "so bob is known", "0")
        with database_locked(gateway.database):
            await a.send(type="send", id="1", to=bob.user_id, text="hi")
            await a.nothing_more(ann.user_id)  # so its commit has begun
            for number in range(2, 100):
                await a.send(type="send", id=f"{number}", to=bob.user_id, text="hi")
            await a.nothing_more(ann.user_id)
        for number in range(1, 100):
            await a.expect("ack", id=f"{number}", seq=number + 1)
    assert gateway.sample("duet_gateway_commit_batch_messages_count") == 3


async def test_sender_with_too_much_unanswered_is_read_no_further_and_loses_nothing(
    gateway: TestGateway, ann: FakeSession, bob: FakeSession
) -> None:
    async with gateway.talking(ann) as a, gateway.talking(bob) as b:
        await a.say(bob.user_id, "so bob is known", "known")
        await b.expect("message")
        with database_locked(gateway.database):
            await a.send(type="send", id="first", to=bob.user_id, text="hi")
            await a.nothing_more(ann.user_id)  # so its commit has begun, with nothing else in it
            for number in range(2000):
                await a.send(type="send", id=f"{number}", to=bob.user_id, text="hi")
            await until(lambda: gateway.sample("duet_gateway_commit_waiting_changes") >= 500)
        await a.expect("ack", id="first", seq=2)
        await b.expect("message", seq=2)
        for number in range(2000):
            await a.expect("ack", id=f"{number}", seq=number + 3)
            await b.expect("message", seq=number + 3)


async def test_full_queue_refuses_with_a_retryable_error(tmp_path: Path) -> None:
    async with (
        running_gateway(tmp_path, database_busy_timeout_s=30, commit_max_waiting=5) as gateway,
        contextlib.AsyncExitStack() as stack,
    ):
        bob = gateway.profile.sign_up("bob")
        people = [gateway.profile.sign_up(f"ann{number}") for number in range(8)]
        senders = [await stack.enter_async_context(gateway.talking(one)) for one in people]
        await senders[0].say(bob.user_id, "so bob is known", "known")
        with database_locked(gateway.database):
            for number, sender in enumerate(senders):
                await sender.send(type="send", id=f"{number}", to=bob.user_id, text="hi")
                if number == 0:
                    await sender.nothing_more(people[0].user_id)  # so its commit has begun
                waiting = min(number, 5)
                await until(
                    lambda n=waiting: (  # type: ignore[misc]
                        gateway.sample("duet_gateway_commit_waiting_changes") == n
                    )
                )
            for number in (6, 7):
                await senders[number].expect_error("overloaded", id=f"{number}", retryable=True)
        for number in range(6):
            await senders[number].expect("ack", id=f"{number}")
        await senders[6].say(bob.user_id, "hi", "6")


async def test_nobody_is_refused_for_what_waits_but_read_no_further(tmp_path: Path) -> None:
    async with running_gateway(
        tmp_path, database_busy_timeout_s=30, commit_max_waiting=200
    ) as gateway:
        ann, bob = gateway.profile.sign_up("ann"), gateway.profile.sign_up("bob")
        async with gateway.talking(ann) as a, gateway.talking(bob) as b:
            await a.say(bob.user_id, "so bob is known", "known")
            await b.expect("message")
            for first in (1, 501):
                with database_locked(gateway.database):
                    await a.send(type="send", id=f"{first}", to=bob.user_id, text="hi")
                    await a.nothing_more(ann.user_id)  # so its commit has begun
                    for number in range(first + 1, first + 500):
                        await a.send(type="send", id=f"{number}", to=bob.user_id, text="hi")
                    await until(
                        lambda: gateway.sample("duet_gateway_commit_waiting_changes") >= 100
                    )
                for number in range(first, first + 500):
                    await a.expect("ack", id=f"{number}", seq=number + 1)
                    await b.expect("message", seq=number + 1)


async def test_many_pairs_talk_at_once(gateway: TestGateway) -> None:
    async with contextlib.AsyncExitStack() as stack:
        pairs: list[tuple[Client, Client, FakeSession]] = []
        for number in range(10):
            one = gateway.profile.sign_up(f"one{number}")
            other = gateway.profile.sign_up(f"other{number}")
            pairs.append(
                (
                    await stack.enter_async_context(gateway.talking(one)),
                    await stack.enter_async_context(gateway.talking(other)),
                    other,
                )
            )
        for number in range(20):
            for one_client, _, other in pairs:
                await one_client.send(
                    type="send", id=f"{number}", to=other.user_id, text=f"{number}"
                )
        for one_client, other_client, _ in pairs:
            for number in range(20):
                await one_client.expect("ack", id=f"{number}", seq=number + 1)
                await other_client.expect("message", text=f"{number}", seq=number + 1)


async def test_messages_survive_a_restart(tmp_path: Path) -> None:
    async with running_gateway(tmp_path) as gateway:
        profile = gateway.profile
        ann, bob = profile.sign_up("ann"), profile.sign_up("bob")
        async with gateway.talking(ann) as a:
            first = await a.say(bob.user_id, "hello", "1")
    async with running_gateway(tmp_path, profile=profile) as gateway, gateway.talking(ann) as a:
        assert await a.say(bob.user_id, "hello", "1") == {**first, "duplicate": True}
        assert (await a.say(bob.user_id, "again", "2"))["seq"] == 2
