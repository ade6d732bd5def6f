"""The stack as `docker compose up` gives it: talk through it, crash it, look for what is lost."""

import asyncio
import json
from collections.abc import Iterator

import httpx
import pytest

from tests.compose.people import Person, Sender, connected, receive, sign_up
from tests.compose.stack import SERVICES, Stack

pytestmark = [pytest.mark.compose, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    stack = Stack()
    try:
        stack.up()
        yield stack
    finally:
        stack.down()


@pytest.mark.parametrize("service", SERVICES)
def test_health_check_of_the_image_passes(stack: Stack, service: str) -> None:
    stack.wait_until_healthy(service)


@pytest.mark.parametrize("service", SERVICES)
def test_service_runs_without_privileges_on_a_read_only_file_system(
    stack: Stack, service: str
) -> None:
    status = stack.python(service, "print(open('/proc/1/status').read())")
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert "0" not in fields["Uid"].split()
    assert int(fields["CapEff"], 16) == int(fields["CapBnd"], 16) == 0
    assert fields["NoNewPrivs"] == "1"
    assert stack.inspect(service)["HostConfig"]["ReadonlyRootfs"]


def test_service_secret_is_made_once_and_only_the_services_can_read_it(stack: Stack) -> None:
    program = (
        "import hashlib, os; path = os.environ['DUET_SERVICE_SECRET_FILE'];"
        "print(oct(os.stat(path).st_mode), hashlib.sha256(open(path, 'rb').read()).hexdigest())"
    )
    first, second = (stack.python(service, program) for service in SERVICES)
    assert first == second
    assert first.startswith("0o100600 ")


async def test_two_people_talk_through_the_published_ports(
    stack: Stack, alice: Person, bob: Person
) -> None:
    async with (
        connected(stack.websocket_url, alice) as alices,
        connected(stack.websocket_url, bob) as bobs,
    ):
        for sender, text in ((alices, "Hello Bob"), (bobs, "Hello Alice")):
            to, receiver = (bob.id, bobs) if sender is alices else (alice.id, alices)
            await sender.send(json.dumps({"type": "send", "id": text, "to": to, "text": text}))
            ack = await receive(sender, "ack")
            message = await receive(receiver, "message")
            assert (message["text"], message["seq"]) == (text, ack["seq"])


async def test_acknowledged_messages_survive_a_killed_gateway_once_and_in_order(
    stack: Stack, alice: Person, bob: Person
) -> None:
    sender = Sender(stack.websocket_url, alice, bob)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(sender.keep_sending())
        await sender.more_acknowledgements(300)
        await asyncio.to_thread(stack.kill, "ws-gateway")
        await asyncio.to_thread(stack.start, "ws-gateway")
        await sender.more_acknowledgements(300)
        sender.finish()

    assert sender.reconnects > 0
    seqs = [sender.acknowledged[one]["seq"] for one in sender.sent]
    assert seqs == list(range(1, len(sender.sent) + 1))
    again = Sender(stack.websocket_url, alice, bob)
    await again.send(sender.sent)
    for one in sender.sent:
        assert again.acknowledged[one] == sender.acknowledged[one] | {"duplicate": True}
    query = (
        "SELECT text FROM messages JOIN users ON users.key = sender "
        f"WHERE users.id = '{alice.id}' ORDER BY seq"
    )
    assert stack.select("ws-gateway", query) == [[one] for one in sender.sent]


async def test_profile_service_killed_loses_no_account_and_ends_no_conversation(
    stack: Stack, http: httpx.AsyncClient, alice: Person, bob: Person
) -> None:
    signed_up: list[Person] = []
    several = asyncio.Event()

    async def sign_up_until_it_fails() -> None:
        while True:
            signed_up.append(await sign_up(http, "crowd"))
            if len(signed_up) == 3:
                several.set()

    crowd = asyncio.create_task(sign_up_until_it_fails())
    async with connected(stack.websocket_url, bob) as bobs:
        await Sender(stack.websocket_url, alice, bob).send(["before"])
        async with connected(stack.websocket_url, alice) as alices:
            await several.wait()
            await asyncio.to_thread(stack.kill, "profile-service")
            with pytest.raises(httpx.TransportError):
                await crowd
            frame = {"type": "send", "id": "during", "to": bob.id, "text": "during"}
            await alices.send(json.dumps(frame))
            assert (await receive(alices, "ack"))["seq"] == 2
            assert [(await receive(bobs, "message"))["text"] for _ in range(2)] == [
                "before",
                "during",
            ]
            await asyncio.to_thread(stack.start, "profile-service")

    for person in [*signed_up, alice, bob]:
        body = {"username": person.username, "password": person.password}
        (await http.post("/v1/sessions", json=body)).raise_for_status()
    async with connected(stack.websocket_url, alice):  # with the token of before the crash
        pass


@pytest.mark.parametrize("service", SERVICES)
def test_database_is_sound_after_the_crashes(stack: Stack, service: str) -> None:
    assert stack.select(service, "PRAGMA integrity_check") == [["ok"]]


@pytest.mark.parametrize("service", SERVICES)
def test_log_is_json_without_credentials_or_tracebacks(stack: Stack, service: str) -> None:
    lines = stack.logs(service).splitlines()
    assert lines
    for line in lines:
        assert "service" in json.loads(line)
        assert "eyJ" not in line
        assert "Traceback" not in line


@pytest.mark.parametrize("service", SERVICES)
def test_service_stops_on_request_before_it_is_killed(stack: Stack, service: str) -> None:
    stack.stop(service)
    assert stack.inspect(service)["State"]["ExitCode"] in (0, 143)


def test_down_leaves_nothing_behind(stack: Stack) -> None:
    stack.down()
    assert stack.leftovers() == ""
