"""A running gateway against a model: whatever people and faults do, nothing is lost or doubled.

Three people with several devices each send, retry, edit, delete, mark, drop off and resume, while
the gateway restarts and its database refuses to commit. Devices keep what they have seen across
their connections, as a client does; whenever one has caught up, that equals the model.
"""

import asyncio
import contextlib
import json
import shutil
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from shared.ids import ConversationId, UserId, conversation_id
from tests.support.client import Client, Frame
from tests.support.engines import ON_SCALE
from tests.support.fake_profile import FakeProfile, FakeSession
from tests.support.gateway import TestGateway, database_locked, running_gateway
from tests.support.waiting import until

T = TypeVar("T")

PEOPLE = st.integers(0, 2)
DEVICES = st.integers(0, 4)
"""The first three are of one person each, the others second devices of the first two."""


class Told(msgspec.Struct):
    """A message of the model, or as a device knows it."""

    sender: UserId
    text: str
    revision: int = 0
    deleted: bool = False


class Model:
    """What the gateway must know: thirty lines instead of it."""

    def __init__(self) -> None:
        self.messages: dict[ConversationId, list[Told]] = {}
        self.marks: dict[tuple[ConversationId, UserId], tuple[int, int]] = {}
        self.people: dict[ConversationId, tuple[UserId, UserId]] = {}

    def send(self, sender: UserId, to: UserId, text: str) -> int:
        """Returns the seq."""
        conversation = conversation_id(sender, to)
        self.people[conversation] = (sender, to)
        said = self.messages.setdefault(conversation, [])
        said.append(Told(sender, text))
        return len(said)

    def mark(self, user: UserId, conversation: ConversationId, seq: int, *, read: bool) -> None:
        """Move marks forward."""
        received, was_read = self.marks.get((conversation, user), (0, 0))
        self.marks[conversation, user] = (
            max(received, seq),
            max(was_read, seq) if read else was_read,
        )

    def unread(self, user: UserId, conversation: ConversationId) -> int:
        """How many messages of the peer lie beyond the read mark."""
        _, read = self.marks.get((conversation, user), (0, 0))
        return sum(told.sender != user for told in self.messages[conversation][read:])


class Device:
    """One device: its connection when it has one, and all it has seen in its life."""

    def __init__(self, session: FakeSession) -> None:
        self.session = session
        self.client: Client | None = None
        self.cursors: list[str] = []
        self.known: dict[tuple[ConversationId, int], Told] = {}
        self.marks: dict[tuple[ConversationId, UserId], tuple[int, int]] = {}
        self._stack = contextlib.AsyncExitStack()

    @property
    def user(self) -> UserId:
        return self.session.user_id

    async def connect(self, gateway: TestGateway, steps_back: int) -> None:
        """Resume from the latest cursor, or from one of some steps before; catch up."""
        self.client = await self._stack.enter_async_context(Client.open(gateway.url))
        if not self.cursors:
            frame = await self.client.connect(self.session.access_token)
            epoch = str(frame["cursor"]).rpartition(".")[0]
            self.cursors = [f"{epoch}.0"]
            await self.drop()
            await self.connect(gateway, steps_back)
            return
        cursor = self.cursors[-1 - steps_back % len(self.cursors)]
        self._fresh: list[int] = [int(cursor.rpartition(".")[2])]
        await self.client.connect(self.session.access_token, resume=cursor)
        for frame in await self.client.collect("resumed"):
            self.see(frame)

    async def drop(self) -> None:
        """Vanish without a word."""
        if self.client is not None:
            self.client.vanish()
            self.client = None
            await self._stack.aclose()

    async def catch_up(self) -> None:
        """See all that has arrived."""
        if self.client is not None:
            for frame in await self.client.arrived():
                self.see(frame)

    def see(self, frame: Frame) -> None:
        """Take in a frame as a client does."""
        if "cursor" in frame:
            position = int(frame["cursor"].rpartition(".")[2])
            assert position > self._fresh[-1], "an event came twice, or out of order"
            self._fresh.append(position)
            if position > int(self.cursors[-1].rpartition(".")[2]):
                self.cursors.append(frame["cursor"])
        place = (frame.get("conversation", ""), frame.get("seq", 0))
        match frame["type"]:
            case "message" | "edited" | "deleted":
                known = self.known.get(place)
                told = Told(
                    frame["from"],
                    frame.get("text", ""),
                    frame.get("revision", 0),
                    frame.get("deleted", frame["type"] == "deleted"),
                )
                if known is None or told.revision >= known.revision:
                    self.known[place] = told
            case "receipt":
                mark = (frame["conversation"], frame["user"])
                received, read = self.marks.get(mark, (0, 0))
                self.marks[mark] = (
                    max(received, frame["received"]),
                    max(read, frame.get("read", 0)),
                )
            case "ack" | "error" | "presence":
                pass
            case other:
                raise AssertionError(other)

    async def asked(self, request: dict[str, Any]) -> Frame:
        """Send a request; returns its answer, seeing what comes before it."""
        assert self.client is not None
        await self.client.send(**request)
        while True:
            frame: Frame = json.loads(await self.client.socket.recv())
            if frame.get("id") == request["id"] and frame["type"] != "message":
                return frame
            self.see(frame)


class Conversations(RuleBasedStateMachine):
    """Steps are complete: each waits for its answers, but for those that race on purpose."""

    @initialize()
    def begin(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.folder = Path(tempfile.mkdtemp(prefix="duet-model-"))
        self.profile = FakeProfile()
        self.model = Model()
        people = [self.profile.sign_up(name) for name in ("ann", "bob", "cid")]
        more = [self.profile.log_in(person.user_id) for person in people[:2]]
        self.devices = [Device(session) for session in [*people, *more]]
        self.sent: list[tuple[dict[str, Any], int]] = []
        self.changed: list[tuple[int, dict[str, Any], int]] = []
        self.numbers = 0
        self.gateway_stack = contextlib.AsyncExitStack()
        self.run(self.start())

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(asyncio.wait_for(work, 30))

    async def start(self) -> None:
        self.gateway = await self.gateway_stack.enter_async_context(
            running_gateway(
                self.folder,
                profile=self.profile,
                offline_after_s=0,
                database_busy_timeout_s=0.01,
                gateway_shutdown_timeout_s=1,
            )
        )

    def name(self) -> str:
        self.numbers += 1
        return f"r{self.numbers}"

    def user(self, person: int) -> UserId:
        return self.devices[person].user

    async def online(self, number: int) -> Device:
        device = self.devices[number]
        if device.client is None:
            await device.connect(self.gateway, 0)
        return device

    async def everybody_catches_up(self) -> None:
        for device in self.devices:
            await device.catch_up()

    @rule(device=DEVICES, steps_back=st.integers(0, 6))
    def reconnect(self, device: int, steps_back: int) -> None:
        async def step() -> None:
            await self.devices[device].drop()
            await self.devices[device].connect(self.gateway, steps_back)
            await self.devices[device].catch_up()
            self.check(self.devices[device])

        self.run(step())

    @rule(device=DEVICES)
    def drop(self, device: int) -> None:
        self.run(self.devices[device].drop())

    @rule(device=DEVICES, to=PEOPLE, count=st.integers(1, 5))
    def send(self, device: int, to: int, count: int) -> None:
        async def step() -> None:
            sender = await self.online(device)
            if sender.user == self.user(to):
                return
            for _ in range(count):
                name = self.name()
                request = {"type": "send", "id": name, "to": self.user(to), "text": f"text {name}"}
                ack = await sender.asked(request)
                seq = self.model.send(sender.user, self.user(to), request["text"])
                assert (ack["type"], ack.get("seq"), ack.get("duplicate")) == ("ack", seq, False)
                sender.known[ack["conversation"], seq] = Told(sender.user, request["text"])
                self.sent.append(({**request, "device": device}, seq))

        self.run(step())

    @precondition(lambda self: self.sent)
    @rule(data=st.data())
    def retry(self, data: st.DataObject) -> None:
        request, seq = data.draw(st.sampled_from(self.sent))
        device, frame = request["device"], {k: v for k, v in request.items() if k != "device"}

        async def step() -> None:
            sender = await self.online(device)
            ack = await sender.asked(frame)
            assert (ack["type"], ack.get("seq"), ack.get("duplicate")) == ("ack", seq, True)

        self.run(step())

    @precondition(lambda self: self.model.messages)
    @rule(device=DEVICES, data=st.data(), deletes=st.booleans())
    def change(self, device: int, data: st.DataObject, deletes: bool) -> None:
        conversation = data.draw(st.sampled_from(list(self.model.messages)))
        seq = data.draw(st.integers(1, len(self.model.messages[conversation]) + 1))
        self.run(self._change(device, conversation, seq, deletes, self.name()))

    async def _change(
        self, number: int, conversation: ConversationId, seq: int, deletes: bool, name: str
    ) -> None:
        device = await self.online(number)
        request: dict[str, Any] = {"id": name, "conversation": conversation, "seq": seq}
        request |= {"type": "delete"} if deletes else {"type": "edit", "text": f"edited {name}"}
        answer = await device.asked(request)
        said = self.model.messages[conversation]
        if device.user not in self.model.people[conversation] or seq > len(said):
            assert answer["code"] == "message_not_found"
        elif said[seq - 1].sender != device.user:
            assert answer["code"] == "not_author"
        elif said[seq - 1].deleted:
            assert answer["type"] == "ack" if deletes else answer["code"] == "conflict"
        else:
            told = said[seq - 1]
            told.revision += 1
            told.text, told.deleted = ("", True) if deletes else (request["text"], False)
            assert (answer["type"], answer["duplicate"]) == ("ack", False)
            device.known[conversation, seq] = Told(
                told.sender, told.text, told.revision, told.deleted
            )
            self.changed.append((number, request, told.revision))

    @precondition(lambda self: self.changed)
    @rule(data=st.data())
    def repeat_change(self, data: st.DataObject) -> None:
        number, request, _ = data.draw(st.sampled_from(self.changed))

        async def step() -> None:
            answer = await (await self.online(number)).asked(request)
            assert (answer["type"], answer["duplicate"]) == ("ack", True)

        self.run(step())

    @precondition(lambda self: self.model.messages)
    @rule(device=DEVICES, data=st.data(), read=st.booleans())
    def mark(self, device: int, data: st.DataObject, read: bool) -> None:
        conversation = data.draw(st.sampled_from(list(self.model.messages)))
        seq = data.draw(st.integers(1, len(self.model.messages[conversation])))

        async def step() -> None:
            reader = await self.online(device)
            kind = "read" if read else "received"
            request = {"type": kind, "id": self.name(), "conversation": conversation, "seq": seq}
            answer = await reader.asked(request)
            if reader.user not in self.model.people[conversation]:
                assert answer["code"] == "message_not_found"
                return
            self.model.mark(reader.user, conversation, seq, read=read)
            stands = (answer["received"], answer["read"])
            assert stands == self.model.marks[conversation, reader.user]
            reader.see(answer)

        self.run(step())

    @precondition(lambda self: not ON_SCALE)
    @rule(device=DEVICES, to=PEOPLE)
    def send_while_nothing_can_be_stored(self, device: int, to: int) -> None:
        async def step() -> None:
            sender = await self.online(device)
            if sender.user == self.user(to):
                return
            request = {"type": "send", "id": self.name(), "to": self.user(to), "text": "in vain"}
            with database_locked(self.gateway.database):
                error = await sender.asked(request)
            assert (error["code"], error["retryable"]) == ("store_unavailable", True)

        self.run(step())

    @rule(device=DEVICES, to=PEOPLE, resuming=DEVICES, count=st.integers(1, 30))
    def resume_while_messages_arrive(self, device: int, to: int, resuming: int, count: int) -> None:
        async def step() -> None:
            sender, other = await self.online(device), self.devices[resuming]
            if sender.user == self.user(to) or other is sender:
                return
            await other.drop()
            names = [self.name() for _ in range(count)]
            client = sender.client
            assert client is not None
            for name in names:
                await client.send(type="send", id=name, to=self.user(to), text=f"text {name}")
            await other.connect(self.gateway, count)
            for name in names:
                frame: Frame = {}
                while frame.get("id") != name or frame["type"] != "ack":
                    if frame:
                        sender.see(frame)
                    frame = json.loads(await client.socket.recv())
                seq = self.model.send(sender.user, self.user(to), f"text {name}")
                assert frame["seq"] == seq
                sender.known[frame["conversation"], seq] = Told(sender.user, f"text {name}")

        self.run(step())

    @rule(device=DEVICES, to=PEOPLE)
    def vanish_right_after_sending_then_retry(self, device: int, to: int) -> None:
        """Whether the first try was stored is not known; after the retry it is there once."""

        async def step() -> None:
            sender = await self.online(device)
            if sender.user == self.user(to):
                return
            name = self.name()
            request = {"type": "send", "id": name, "to": self.user(to), "text": f"text {name}"}
            assert sender.client is not None
            await sender.client.send(**request)
            await sender.drop()
            await until(lambda: not self.gateway.gateway.messenger.waiting)
            await sender.connect(self.gateway, 0)
            ack = await sender.asked(request)
            assert ack["seq"] == self.model.send(sender.user, self.user(to), request["text"])
            place = (ack["conversation"], ack["seq"])
            sender.known.setdefault(place, Told(sender.user, request["text"]))
            self.sent.append(({**request, "device": device}, ack["seq"]))

        self.run(step())

    @rule()
    def restart(self) -> None:
        async def step() -> None:
            for device in self.devices:
                await device.catch_up()
                await device.drop()
            await self.gateway_stack.aclose()
            await self.start()

        self.run(step())

    @rule(device=DEVICES)
    def look_at_everything(self, device: int) -> None:
        async def step() -> None:
            viewer = await self.online(device)
            listed = await viewer.asked({"type": "conversations", "id": self.name(), "limit": 200})
            own = {c for c, people in self.model.people.items() if viewer.user in people}
            assert {item["conversation"] for item in listed["items"]} == own
            for item in listed["items"]:
                conversation = item["conversation"]
                assert item["unread"] == self.model.unread(viewer.user, conversation)
                mine = self.model.marks.get((conversation, viewer.user), (0, 0))
                assert (item["received"], item["read"]) == mine
                peer = item["peer"]["id"]
                theirs = self.model.marks.get((conversation, peer), (0, 0))
                assert (item["peer_received"], item["peer_read"]) == theirs
                page = await viewer.asked(
                    {"type": "history", "id": self.name(), "with": peer, "limit": 200}
                )
                said = self.model.messages[conversation]
                first = max(1, len(said) - 199)
                assert [m["seq"] for m in page["messages"]] == list(range(first, len(said) + 1))
                assert [m["text"] for m in page["messages"]] == [t.text for t in said[first - 1 :]]

        self.run(step())

    @invariant()
    def whoever_has_caught_up_knows_everything(self) -> None:
        async def step() -> None:
            await self.everybody_catches_up()
            for device in self.devices:
                if device.client is not None:
                    self.check(device)

        if hasattr(self, "gateway"):
            self.run(step())

    def check(self, device: Device) -> None:
        """Compare what a device knows with the model."""
        known = {
            (conversation, seq): told
            for conversation, said in self.model.messages.items()
            if device.user in self.model.people[conversation]
            for seq, told in enumerate(said, 1)
        }
        assert device.known == known
        marks = {
            (conversation, user): stands
            for (conversation, user), stands in self.model.marks.items()
            if device.user in self.model.people[conversation]
        }
        assert device.marks == marks

    def teardown(self) -> None:
        if not hasattr(self, "gateway"):
            return

        async def end() -> None:
            for device in self.devices:
                await device.drop()
            await self.gateway_stack.aclose()

        self.run(end())
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        self.loop.close()
        shutil.rmtree(self.folder)


TestConversations = Conversations.TestCase
TestConversations.settings = settings(
    max_examples=20,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
