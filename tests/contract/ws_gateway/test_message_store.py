"""What every `MessageStore` must do; run on each one."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec
import pytest

from shared.ids import ConversationId, UserId, conversation_id
from tests.support.fake_store import FakeMessageStore
from tests.support.gateway_stores import ENGINES, Engine, engine_of
from tests.support.talk import ANN, BOB, CID, delete, edit, erase, every_event, mark, say
from ws_gateway.conversations import (
    Appended,
    Change,
    Conflict,
    Deletion,
    Draft,
    Edit,
    Event,
    EventKind,
    Mark,
    Marked,
    Message,
    NotAuthor,
    NotFound,
    Outcome,
)
from ws_gateway.ports import MessageStore


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Engine:
    return engine_of(request.param, request, tmp_path)


@pytest.fixture(params=[*ENGINES, "fake"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[MessageStore]:
    if request.param == "fake":
        yield FakeMessageStore()
    else:
        async with engine_of(request.param, request, tmp_path).open() as stores:
            yield stores.messages


LONG_AFTER = [str(n) for n in range(100)]
"""More events than a receipt is told of twice for."""


def draft(client_id: str, text: str = "hi", sender: UserId = ANN, to: UserId = BOB) -> Draft:
    return Draft(sender, to, client_id, text)


def edit_of(author: UserId, message: Message) -> Change:
    return Edit(author, "edit", message.conversation, message.seq, "changed")


def deletion_of(author: UserId, message: Message) -> Change:
    return Deletion(author, "deletion", message.conversation, message.seq)


def stored(outcome: Outcome) -> Message:
    assert isinstance(outcome, Appended)
    assert not outcome.duplicate
    return outcome.event.message


def again_as(outcome: Outcome) -> Appended:
    return Appended(event_of(outcome), duplicate=True)


async def test_first_message_of_a_conversation_has_seq_1(store: MessageStore) -> None:
    (outcome,) = await store.append_batch([draft("1", "héllo 👋")], 1234)
    event = event_of(outcome)
    assert (event.kind, event.position_for(ANN), event.position_for(BOB)) == (EventKind.SENT, 1, 1)
    assert stored(outcome) == Message(
        conversation=conversation_id(ANN, BOB),
        seq=1,
        position=event.message.position,
        sender=ANN,
        recipient=BOB,
        client_id="1",
        text="héllo 👋",
        sent_at_ms=1234,
    )


async def test_seq_is_dense_in_each_conversation_whoever_sends(store: MessageStore) -> None:
    first = await store.append_batch([draft("1"), draft("2", to=CID), draft("3")], 1)
    second = await store.append_batch([draft("4", sender=BOB, to=ANN), draft("5", to=CID)], 2)
    messages = [stored(outcome) for outcome in first + second]
    assert [message.seq for message in messages] == [1, 1, 2, 3, 2]
    assert len({message.position for message in messages}) == 5
    assert messages[0].conversation == messages[3].conversation != messages[1].conversation
    assert await every_event(store, ANN) == [event_of(outcome) for outcome in first + second]


async def test_retry_in_a_later_batch_returns_the_original(store: MessageStore) -> None:
    (first,) = await store.append_batch([draft("1")], 1)
    (again,) = await store.append_batch([draft("1")], 99)
    assert again == again_as(first)
    assert await store.position_of(ANN) == 1


async def test_retry_in_the_same_batch_returns_the_original(store: MessageStore) -> None:
    first, again = await store.append_batch([draft("1"), draft("1")], 1)
    assert again == again_as(first)
    assert await store.position_of(ANN) == 1


@pytest.mark.parametrize("other", [draft("1", text="changed"), draft("1", to=CID)])
async def test_used_id_with_other_content_conflicts_and_stores_nothing(
    store: MessageStore, other: Draft
) -> None:
    first, conflict = await store.append_batch([draft("1"), other], 1)
    (later_conflict,) = await store.append_batch([other], 2)
    (following,) = await store.append_batch([draft("2")], 3)
    assert conflict == later_conflict == Conflict()
    assert (stored(first).seq, stored(following).seq) == (1, 2)


async def test_id_belongs_to_its_sender(store: MessageStore) -> None:
    outcomes = await store.append_batch([draft("1"), draft("1", sender=BOB, to=ANN)], 1)
    assert [stored(outcome).seq for outcome in outcomes] == [1, 2]


async def test_outcomes_come_in_the_order_of_the_drafts(store: MessageStore) -> None:
    await store.append_batch([draft("1")], 1)
    outcomes = await store.append_batch([draft("2"), draft("1"), draft("1", "x"), draft("3")], 2)
    assert [type(outcome) for outcome in outcomes] == [Appended, Appended, Conflict, Appended]
    assert [o.event.message.client_id for o in outcomes if isinstance(o, Appended)] == [
        "2",
        "1",
        "3",
    ]


async def test_text_comes_back_as_it_was(store: MessageStore) -> None:
    texts = ["'; DROP TABLE messages; --", "\u200b", "\U0010ffff", "a\r\nb", "x" * 4000, '"]}\\']
    outcomes = await store.append_batch([draft(f"{n}", t) for n, t in enumerate(texts)], 1)
    again = await store.append_batch([draft(f"{n}", t) for n, t in enumerate(texts)], 2)
    assert [stored(outcome).text for outcome in outcomes] == texts
    assert all(isinstance(o, Appended) and o.duplicate and o.event.message.text for o in again)


async def test_client_ids_with_quotes_are_found_again(store: MessageStore) -> None:
    ids = ['"', "\\", "'", "$[0]", "[", "{}", " "]
    await store.append_batch([draft(client_id) for client_id in ids], 1)
    again = await store.append_batch([draft(client_id) for client_id in ids], 2)
    assert [
        o.event.message.client_id for o in again if isinstance(o, Appended) and o.duplicate
    ] == ids


async def test_empty_batch_changes_nothing(store: MessageStore) -> None:
    assert await store.append_batch([], 1) == []
    assert await store.position_of(ANN) == 0


async def test_store_answers_a_trivial_read(store: MessageStore) -> None:
    assert await store.is_available()
    assert store.epoch


async def test_what_was_stored_survives_reopening(engine: Engine) -> None:
    async with engine.open() as stores:
        (first,) = await stores.messages.append_batch([draft("1")], 1)
        epoch = stores.messages.epoch
    async with engine.open() as stores:
        store = stores.messages
        assert (store.epoch, await store.position_of(ANN)) == (epoch, 1)
        (again,) = await store.append_batch([draft("1")], 2)
        (following,) = await store.append_batch([draft("2", sender=BOB, to=ANN)], 2)
    assert again == again_as(first)
    assert stored(following).seq == 2


async def test_another_database_has_another_epoch(
    engine: Engine, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    other = engine_of("sqlite", request, tmp_path / "other")
    async with engine.open() as stores, other.open() as others:
        assert stores.messages.epoch != others.messages.epoch


def event_of(outcome: Outcome) -> Event:
    assert isinstance(outcome, Appended)
    return outcome.event


async def test_edit_keeps_the_place_and_raises_the_revision(store: MessageStore) -> None:
    first, _ = await say(store, ANN, BOB, "first", "second", at_ms=1)
    event = event_of(await edit(store, first, "mended", at_ms=5))
    assert (event.kind, event.position_for(ANN), event.position_for(BOB)) == (
        EventKind.EDITED,
        3,
        3,
    )
    assert event.message == msgspec.structs.replace(
        first, text="mended", revision=1, changed_at_ms=5
    )
    assert event_of(await edit(store, first, "mended again")).message.revision == 2


async def test_deletion_leaves_a_tombstone_and_no_hole(store: MessageStore) -> None:
    (message,) = await say(store, ANN, BOB, "secret")
    deleted = event_of(await delete(store, message, at_ms=5))
    (following,) = await say(store, BOB, ANN, "next")
    assert deleted.kind is EventKind.DELETED
    assert deleted.message == msgspec.structs.replace(
        message, text="", deleted=True, revision=1, changed_at_ms=5
    )
    assert (following.seq, await store.position_of(BOB)) == (2, 3)


@pytest.mark.parametrize("change", [edit_of, deletion_of])
async def test_only_the_author_may_change_a_message(
    store: MessageStore, change: Callable[[UserId, Message], Change]
) -> None:
    (message,) = await say(store, ANN, BOB, "mine")
    before = await every_event(store, BOB)
    outcomes = await store.append_batch([change(BOB, message), change(CID, message)], 2)
    assert outcomes == [NotAuthor(), NotFound()]
    assert await every_event(store, BOB) == before
    assert [event.message for event in before] == [message]


async def test_nobody_changes_or_marks_what_is_not_there(store: MessageStore) -> None:
    (message,) = await say(store, ANN, BOB, "only")
    absent = msgspec.structs.replace(message, seq=2)
    nowhere = msgspec.structs.replace(message, conversation=conversation_id(ANN, CID))
    changes = [
        change(ANN, missing) for change in (edit_of, deletion_of) for missing in (absent, nowhere)
    ]
    changes += [Mark(ANN, None, message.conversation, 2, read=False)]
    changes += [Mark(CID, None, message.conversation, 1, read=True)]
    far = msgspec.structs.replace(message, seq=2**53 - 1)
    odd = msgspec.structs.replace(message, conversation=ConversationId("'; --\x00"))
    for nothing in (far, odd):
        changes += [edit_of(ANN, nothing), deletion_of(ANN, nothing)]
        changes += [Mark(ANN, None, nothing.conversation, nothing.seq, read=True)]
    assert await store.append_batch(changes, 2) == [NotFound()] * 12
    for change in changes:
        assert await store.append_batch([change], 2) == [NotFound()]
    assert await store.position_of(ANN) == 1


@pytest.mark.parametrize("in_one_batch", [True, False])
async def test_repeated_change_is_made_once(store: MessageStore, in_one_batch: bool) -> None:
    one, other = await say(store, ANN, BOB, "one", "other")
    changes = [edit_of(ANN, one), edit_of(ANN, one), deletion_of(ANN, other)] * 2
    if in_one_batch:
        outcomes = await store.append_batch(changes, 2)
    else:
        outcomes = [(await store.append_batch([change], 2))[0] for change in changes]
    assert [isinstance(o, Appended) and o.duplicate for o in outcomes] == [
        False,
        True,
        False,
        True,
        True,
        True,
    ]
    assert [event_of(outcome).position for outcome in outcomes] == [3, 3, 4, 3, 3, 4]
    assert [event.position for event in await every_event(store, ANN)] == [1, 2, 3, 4]


async def test_used_id_of_a_change_conflicts_when_it_wants_something_else(
    store: MessageStore,
) -> None:
    one, other = await say(store, ANN, BOB, "one", "other")
    await edit(store, one, "mended", request_id="1")
    assert await edit(store, other, "mended", request_id="1") == Conflict()
    assert await delete(store, one, request_id="1") == Conflict()
    assert await edit(store, one, "something else", request_id="1") == Conflict()
    assert await store.position_of(ANN) == 3


async def test_retried_edit_is_believed_after_a_later_one(store: MessageStore) -> None:
    (message,) = await say(store, ANN, BOB, "first")
    await edit(store, message, "second", request_id="1")
    await edit(store, message, "third", request_id="2")
    again = await edit(store, message, "second", request_id="1")
    assert isinstance(again, Appended)
    assert again.duplicate
    assert again.event.message.text == "third"


async def test_id_of_a_change_belongs_to_its_author(store: MessageStore) -> None:
    (hers,) = await say(store, ANN, BOB, "hers")
    (his,) = await say(store, BOB, ANN, "his")
    assert not isinstance(await edit(store, hers, "x", request_id="1"), Conflict)
    assert not isinstance(await edit(store, his, "x", request_id="1"), Conflict)


async def test_deleted_message_cannot_be_edited_and_is_deleted_once(store: MessageStore) -> None:
    (message,) = await say(store, ANN, BOB, "gone")
    await delete(store, message)
    again = await delete(store, message)
    assert await edit(store, message, "back") == Conflict()
    assert isinstance(again, Appended)
    assert again.duplicate
    assert await store.position_of(ANN) == 2


@pytest.mark.parametrize("change", [edit_of, deletion_of])
async def test_retried_send_is_acknowledged_after_the_message_changed(
    store: MessageStore, change: Callable[[UserId, Message], Change]
) -> None:
    first = await store.append_batch([draft("1", "hello")], 1)
    await store.append_batch([change(ANN, stored(first[0]))], 2)
    for retry in (draft("1", "hello"), draft("2", "hello"), draft("1", "hello")):
        (outcome,) = await store.append_batch([retry], 3)
        assert isinstance(outcome, Appended)
        if retry.client_id == "1":
            assert outcome.duplicate
            assert outcome.event.message.revision == 1
            assert outcome.event.position == 1


async def test_change_and_retry_in_one_batch_see_each_other(store: MessageStore) -> None:
    (message,) = await say(store, ANN, BOB, "first")
    retry = Draft(ANN, BOB, message.client_id, "first")
    outcomes = await store.append_batch([retry, edit_of(ANN, message), retry, draft("n")], 2)
    assert [event_of(outcome).message.revision for outcome in outcomes] == [0, 1, 1, 0]
    assert [isinstance(o, Appended) and o.duplicate for o in outcomes] == [
        True,
        False,
        True,
        False,
    ]


async def test_draft_and_its_edit_in_one_batch(store: MessageStore) -> None:
    conversation = conversation_id(ANN, BOB)
    outcomes = await store.append_batch(
        [draft("1", "a"), Edit(ANN, "2", conversation, 1, "b"), draft("3", "c")], 1
    )
    assert [event_of(outcome).message.text for outcome in outcomes] == ["a", "b", "c"]
    assert [event_of(outcome).position for outcome in outcomes] == [1, 2, 3]


async def test_marks_only_move_forward(store: MessageStore) -> None:
    await say(store, ANN, BOB, *"abcde")
    moves = [
        await mark(store, BOB, ANN, seq, read=read)
        for seq, read in [(2, False), (1, False), (3, True), (2, True), (3, False), (5, False)]
    ]
    assert moves == [
        Marked(ANN, received, read, moved_received, moved_read, shows_read=True)
        for received, read, moved_received, moved_read in [
            (2, 0, True, False),
            (2, 0, False, False),
            (3, 3, True, True),
            (3, 3, False, False),
            (3, 3, False, False),
            (5, 3, True, False),
        ]
    ]


async def test_marks_of_the_two_people_are_their_own(store: MessageStore) -> None:
    await say(store, ANN, BOB, "a", "b")
    await mark(store, ANN, BOB, 2, read=True)
    other = await mark(store, BOB, ANN, 1)
    assert isinstance(other, Marked)
    assert (other.received, other.read) == (1, 0)


async def test_events_of_a_user_come_in_pages_in_order_without_others(store: MessageStore) -> None:
    for n in range(5):
        await say(store, ANN, BOB, f"to Bob {n}")
        await say(store, CID, ANN, f"to Ann {n}")
        await say(store, BOB, CID, f"to Cid {n}")
    for limit in (1, 3, 100):
        for user in (ANN, BOB, CID):
            events = await every_event(store, user, limit=limit)
            assert len(events) == 10
            assert all(user in (e.message.sender, e.message.recipient) for e in events)
            positions = [event.position_for(user) for event in events]
            assert positions == sorted(set(positions))


async def test_events_after_a_position_are_only_those(store: MessageStore) -> None:
    await say(store, ANN, BOB, *"abcdef")
    assert [e.position for e in await every_event(store, BOB, 4)] == [5, 6]
    assert await every_event(store, BOB, 6) == []
    assert await every_event(store, UserId("u_nobody")) == []


async def test_replayed_events_show_messages_as_they_are_now(store: MessageStore) -> None:
    one, other = await say(store, ANN, BOB, "one", "other")
    await edit(store, one, "mended")
    await delete(store, other)
    shown = [(e.kind, e.message.text, e.message.revision) for e in await every_event(store, BOB)]
    assert shown == [
        (EventKind.SENT, "mended", 1),
        (EventKind.SENT, "", 1),
        (EventKind.EDITED, "mended", 1),
        (EventKind.DELETED, "", 1),
    ]


async def test_receipts_that_moved_after_a_position_are_found(store: MessageStore) -> None:
    await say(store, ANN, BOB, "a", "b")
    await mark(store, BOB, ANN, 1)
    await say(store, CID, ANN, *LONG_AFTER)
    after = await store.position_of(ANN)
    await mark(store, ANN, CID, 1, read=True)
    with_bob, with_cid = conversation_id(ANN, BOB), conversation_id(ANN, CID)
    assert sorted(await store.receipts_after(ANN, 0)) == sorted(
        [(with_bob, BOB, 1, 0), (with_cid, ANN, 1, 1)]
    )
    assert await store.receipts_after(ANN, after) == [(with_cid, ANN, 1, 1)]
    await say(store, CID, BOB, *LONG_AFTER)
    assert await store.receipts_after(BOB, await store.position_of(BOB)) == []
    assert await store.receipts_after(CID, 0) == [(with_cid, ANN, 1, 1)]


async def test_erasure_takes_every_text_of_one_person_and_tells_once(store: MessageStore) -> None:
    hers = await say(store, ANN, BOB, "secret 1", "secret 2")
    (his,) = await say(store, BOB, ANN, "his")
    (other,) = await say(store, CID, ANN, "to her")
    await delete(store, hers[1])
    outcomes = await erase(store, ANN)
    (told,) = [event_of(outcome) for outcome in outcomes]
    assert (told.kind, told.message.sender, told.message.recipient) == (
        EventKind.ERASED,
        ANN,
        BOB,
    )
    events = await every_event(store, BOB)
    assert [e.message.text for e in events if e.kind is EventKind.SENT] == ["", "", "his"]
    assert events[-1] == told
    assert (await say(store, BOB, ANN, "after"))[0].seq == his.seq + 1
    assert [e.message for e in await every_event(store, CID)] == [other]
    assert await erase(store, ANN) == []


async def test_erasure_right_behind_a_message_takes_it_too(store: MessageStore) -> None:
    await say(store, ANN, BOB, "secret")
    assert [event_of(outcome).kind for outcome in await erase(store, ANN)] == [EventKind.ERASED]
    assert [e.message.text for e in await every_event(store, BOB)] == ["", ""]
