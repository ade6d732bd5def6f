"""What the two sides see of an event, a receipt, somebody typing."""

from typing import Any

import msgspec
import pytest

from shared.ids import ConnectionId, ConversationId, UserId
from tests.support.talk import ANN, BOB
from tests.support.wire import frame_of
from ws_gateway.conversations import (
    Event,
    EventKind,
    Message,
    PresenceNotice,
    Receipt,
    SettingChanged,
    TypingNotice,
)
from ws_gateway.delivery.rendering import Rendering, message_item
from ws_gateway.protocol.cursor import Cursors

RENDERING = Rendering(Cursors("e"))
TALK = ConversationId("c_1")
SENT = Message(TALK, 3, 7, ANN, BOB, "id-1", "héllo", 1_800_000_000_123)
EDITED = msgspec.structs.replace(SENT, text="new", revision=1, changed_at_ms=1_800_000_001_000)
DELETED = msgspec.structs.replace(EDITED, text="", revision=2, deleted=True)
PLACE = {"conversation": TALK, "seq": 3, "from": ANN}


def test_message_carries_its_id_for_the_senders_own_devices_alone() -> None:
    event = Event(EventKind.SENT, 7, SENT)
    shown = {
        "type": "message",
        **PLACE,
        "to": BOB,
        "text": "héllo",
        "sent_at": "2027-01-15T08:00:00.123Z",
        "cursor": "e.7",
    }
    assert frame_of(RENDERING.event(event, BOB)) == shown
    assert frame_of(RENDERING.event(event, ANN)) == {**shown, "id": "id-1"}


@pytest.mark.parametrize(
    ("message", "more"),
    [
        (EDITED, {"text": "new", "revision": 1, "edited_at": "2027-01-15T08:00:01.000Z"}),
        (DELETED, {"text": "", "revision": 2, "deleted": True}),
    ],
)
def test_replayed_message_is_shown_as_it_is_now(message: Message, more: dict[str, Any]) -> None:
    frame = frame_of(RENDERING.event(Event(EventKind.SENT, 7, message), BOB))
    assert {name: frame.get(name) for name in more} == more
    assert ("edited_at" in frame) == ("edited_at" in more)
    item = msgspec.to_builtins(message_item(message))
    assert {name: item.get(name) for name in more} == more


def test_edit_is_shown_with_its_own_cursor() -> None:
    assert frame_of(RENDERING.event(Event(EventKind.EDITED, 9, EDITED), BOB)) == {
        "type": "edited",
        **PLACE,
        "text": "new",
        "revision": 1,
        "edited_at": "2027-01-15T08:00:01.000Z",
        "cursor": "e.9",
    }


@pytest.mark.parametrize("kind", [EventKind.EDITED, EventKind.DELETED])
def test_edit_of_what_was_deleted_since_shows_as_the_deletion(kind: EventKind) -> None:
    assert frame_of(RENDERING.event(Event(kind, 9, DELETED), BOB)) == {
        "type": "deleted",
        **PLACE,
        "revision": 2,
        "deleted_at": "2027-01-15T08:00:01.000Z",
        "cursor": "e.9",
    }


def test_erasure_names_the_person_and_no_message() -> None:
    frame = frame_of(RENDERING.event(Event(EventKind.ERASED, 9, DELETED), BOB))
    assert frame == {"type": "erased", "conversation": TALK, "user": ANN, "cursor": "e.9"}


@pytest.mark.parametrize(
    ("viewer", "shows_read", "shown"), [(BOB, True, 2), (BOB, False, None), (ANN, False, 2)]
)
def test_private_read_is_shown_to_its_owner_alone(
    viewer: UserId, shows_read: bool, shown: int | None
) -> None:
    receipt = Receipt(TALK, ANN, BOB, 5, 2, shows_read, None)
    frame = frame_of(RENDERING.receipt(receipt, viewer))
    assert (frame["user"], frame["received"], frame.get("read")) == (ANN, 5, shown)


def test_typing_says_when_to_forget_it() -> None:
    assert frame_of(RENDERING.typing(TypingNotice(ANN, BOB, active=True))) == {
        "type": "typing",
        "from": ANN,
        "active": True,
        "expires_in_ms": 6000,
    }


def test_presence_says_when_somebody_gone_was_last_seen() -> None:
    here = PresenceNotice(ANN, (BOB,), online=True, last_seen_ms=None)
    gone = PresenceNotice(ANN, (BOB,), online=False, last_seen_ms=1_800_000_000_000)
    shown = {"type": "presence", "user": ANN}
    assert frame_of(RENDERING.presence(here)) == {**shown, "online": True}
    assert frame_of(RENDERING.presence(gone)) == {
        **shown,
        "online": False,
        "last_seen": "2027-01-15T08:00:00.000Z",
    }


def test_change_of_a_setting_says_what_to_ask_for_and_no_more() -> None:
    notice = SettingChanged(ANN, "preferences", ConnectionId("n_1"))
    assert frame_of(RENDERING.changed(notice)) == {"type": "changed", "what": "preferences"}
