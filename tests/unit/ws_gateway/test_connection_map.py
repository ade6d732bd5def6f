"""Who is connected, who is evicted, and who gets what."""

import json
from typing import Any

import pytest

from shared.ids import ConnectionId, SessionId, UserId, conversation_id
from shared.revocation import HeldSession, Revocation
from ws_gateway.conversations import Event, EventKind, Message, Published, SettingChanged
from ws_gateway.delivery.connection_map import ConnectionMap
from ws_gateway.delivery.rendering import Rendering
from ws_gateway.identity import Identity
from ws_gateway.protocol.cursor import Cursors

ANN, BOB = UserId("u_ann"), UserId("u_bob")


class Connected:
    """A live connection that keeps what it is sent."""

    def __init__(self, user_id: UserId, name: str, session: str = "s_1") -> None:
        self.connection_id = ConnectionId(name)
        self.identity = Identity(
            user_id=user_id,
            username=user_id,
            session_id=SessionId(session),
            token_version=1,
            expires_at=0,
        )
        self.wires: list[bytes] = []

    def deliver(self, wire: bytes, position: int | None) -> None:
        self.wires.append(wire)

    def deliver_ephemeral(self, wire: bytes) -> None:
        raise AssertionError("nothing here may be lost")

    @property
    def frames(self) -> list[dict[str, Any]]:
        return [json.loads(wire[wire.index(b"{") :]) for wire in self.wires]


class Fixture:
    """A map that notes deliveries."""

    def __init__(self) -> None:
        self.delivered: list[tuple[int, int]] = []
        self.map = ConnectionMap(
            Rendering(Cursors("e")),
            self.delivered.extend,
            max_connections_per_user=3,
        )

    def add(self, user_id: UserId, name: str, session: str = "s_1") -> Connected:
        connection = Connected(user_id, name, session)
        self.map.add(connection)
        return connection


@pytest.fixture
def fixture() -> Fixture:
    return Fixture()


def published(seq: int, origin: str | None) -> Published:
    message = Message(
        conversation=conversation_id(ANN, BOB),
        seq=seq,
        position=seq,
        sender=ANN,
        recipient=BOB,
        client_id=f"c{seq}",
        text="hi",
        sent_at_ms=0,
    )
    event = Event(EventKind.SENT, seq, message)
    return Published(event, None if origin is None else ConnectionId(origin))


def test_connections_are_held_oldest_first(fixture: Fixture) -> None:
    one, other = fixture.add(ANN, "n1"), fixture.add(ANN, "n2")
    fixture.add(BOB, "n3")
    assert fixture.map.of_user(ANN) == (one, other)
    assert (len(fixture.map), fixture.map.users) == (3, 2)
    assert ANN in fixture.map
    assert len(list(fixture.map)) == 3


def test_one_too_many_takes_the_place_of_the_oldest(fixture: Fixture) -> None:
    oldest, *kept = [fixture.add(ANN, f"n{number}") for number in range(3)]
    newest = Connected(ANN, "new")
    assert fixture.map.add(newest) is oldest
    assert fixture.map.of_user(ANN) == (*kept, newest)
    assert len(fixture.map) == 3
    assert not fixture.map.remove(oldest)
    assert len(fixture.map) == 3


def test_removing_tells_the_last_connection_of_a_user(fixture: Fixture) -> None:
    one, other = fixture.add(ANN, "n1"), fixture.add(ANN, "n2")
    assert not fixture.map.remove(one)
    assert not fixture.map.remove(one)
    assert fixture.map.remove(other)
    assert not fixture.map.remove(other)
    assert (len(fixture.map), fixture.map.users, ANN in fixture.map) == (0, 0, False)


def test_message_goes_to_the_recipient_and_the_senders_other_connections(
    fixture: Fixture,
) -> None:
    origin, phone = fixture.add(ANN, "n1"), fixture.add(ANN, "n2")
    bobs = [fixture.add(BOB, "n3"), fixture.add(BOB, "n4")]
    fixture.map.deliver([published(1, "n1"), published(2, "n1")])
    assert origin.frames == []
    assert [(frame["seq"], frame["id"]) for frame in phone.frames] == [(1, "c1"), (2, "c2")]
    for bob in bobs:
        assert [frame["seq"] for frame in bob.frames] == [1, 2]
        assert all("id" not in frame for frame in bob.frames)
    assert fixture.delivered == [(1, 2), (2, 2)]
    assert fixture.map.frames_delivered == 4


def test_frame_is_encoded_once_for_each_side(fixture: Fixture) -> None:
    one, other = fixture.add(BOB, "n1"), fixture.add(BOB, "n2")
    fixture.map.deliver([published(1, "gone")])
    assert one.wires[0] is other.wires[0]


def test_sender_who_is_gone_stops_nothing(fixture: Fixture) -> None:
    bob = fixture.add(BOB, "n1")
    fixture.map.deliver([published(1, "gone")])
    assert len(bob.frames) == 1


def test_message_of_another_gateway_goes_to_every_connection(fixture: Fixture) -> None:
    ann, bob = fixture.add(ANN, "n1"), fixture.add(BOB, "n2")
    fixture.map.deliver([published(1, None)])
    assert len(ann.frames) == len(bob.frames) == 1


@pytest.mark.parametrize("viewer", [None, ANN])
def test_change_of_a_setting_goes_to_the_persons_other_connections(
    fixture: Fixture, viewer: UserId | None
) -> None:
    origin, phone = fixture.add(ANN, "n1"), fixture.add(ANN, "n2")
    bob = fixture.add(BOB, "n3")
    fixture.map.deliver([SettingChanged(ANN, "blocks", ConnectionId("n1"))], viewer)
    assert [len(each.wires) for each in (origin, phone, bob)] == [0, 1, 0]


def test_nobody_connected_is_no_error(fixture: Fixture) -> None:
    fixture.map.deliver([published(1, "n1")])
    assert fixture.delivered == []


def test_sessions_are_named_once(fixture: Fixture) -> None:
    fixture.add(ANN, "n1", "s_1")
    fixture.add(ANN, "n2", "s_1")
    fixture.add(BOB, "n3", "s_2")
    assert fixture.map.sessions() == [
        HeldSession(sid=SessionId("s_1"), sub=ANN, ver=1),
        HeldSession(sid=SessionId("s_2"), sub=BOB, ver=1),
    ]


def test_revocation_finds_the_connections_it_ends(fixture: Fixture) -> None:
    ended, _ = fixture.add(ANN, "n1", "s_1"), fixture.add(ANN, "n2", "s_2")
    revocation = Revocation("session", ANN, session_id=SessionId("s_1"))
    assert fixture.map.ended_by(revocation) == [ended]
    assert fixture.map.ended_by(Revocation("user_deleted", BOB)) == []
