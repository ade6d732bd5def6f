"""What every `MessageStore` must do; run on each one."""

import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TypeAlias

import pytest

from shared.ids import UserId, conversation_id
from tests.support.fake_store import FakeMessageStore
from ws_gateway.adapters.sqlite_stores import open_sqlite_stores
from ws_gateway.conversations import Appended, Conflict, Draft, Event, EventKind, Message, Outcome
from ws_gateway.ports import MessageStore

OpenStore: TypeAlias = Callable[[], contextlib.AbstractAsyncContextManager[MessageStore]]

ANN, BOB, CID = UserId("u_ann"), UserId("u_bob"), UserId("u_cid")


@contextlib.asynccontextmanager
async def _sqlite(path: Path) -> AsyncIterator[MessageStore]:
    async with open_sqlite_stores(path) as stores:
        yield stores.messages


@pytest.fixture(params=["sqlite", "fake"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[MessageStore]:
    if request.param == "fake":
        yield FakeMessageStore()
    else:
        async with _sqlite(tmp_path / "messages.db") as opened:
            yield opened


def draft(client_id: str, text: str = "hi", sender: UserId = ANN, to: UserId = BOB) -> Draft:
    return Draft(sender, to, client_id, text)


def stored(outcome: Outcome) -> Message:
    assert isinstance(outcome, Appended)
    assert not outcome.duplicate
    return outcome.event.message


def again_as(message: Message) -> Appended:
    return Appended(Event(EventKind.SENT, message.position, message), duplicate=True)


async def test_first_message_of_a_conversation_has_seq_1(store: MessageStore) -> None:
    (outcome,) = await store.append_batch([draft("1", "héllo 👋")], 1234)
    assert stored(outcome) == Message(
        conversation=conversation_id(ANN, BOB),
        seq=1,
        position=1,
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
    assert [message.position for message in messages] == [1, 2, 3, 4, 5]
    assert messages[0].conversation == messages[3].conversation != messages[1].conversation
    assert store.position == 5


async def test_retry_in_a_later_batch_returns_the_original(store: MessageStore) -> None:
    (first,) = await store.append_batch([draft("1")], 1)
    (again,) = await store.append_batch([draft("1")], 99)
    assert again == again_as(stored(first))
    assert store.position == 1


async def test_retry_in_the_same_batch_returns_the_original(store: MessageStore) -> None:
    first, again = await store.append_batch([draft("1"), draft("1")], 1)
    assert again == again_as(stored(first))
    assert store.position == 1


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
    assert store.position == 0


async def test_store_answers_a_trivial_read(store: MessageStore) -> None:
    assert await store.is_available()
    assert store.epoch


async def test_what_was_stored_survives_reopening(tmp_path: Path) -> None:
    async with _sqlite(tmp_path / "messages.db") as store:
        (first,) = await store.append_batch([draft("1")], 1)
        epoch = store.epoch
    async with _sqlite(tmp_path / "messages.db") as store:
        assert (store.epoch, store.position) == (epoch, 1)
        (again,) = await store.append_batch([draft("1")], 2)
        (following,) = await store.append_batch([draft("2", sender=BOB, to=ANN)], 2)
    assert again == again_as(stored(first))
    assert stored(following).seq == 2


async def test_another_database_has_another_epoch(tmp_path: Path) -> None:
    async with _sqlite(tmp_path / "one.db") as one, _sqlite(tmp_path / "other.db") as other:
        assert one.epoch != other.epoch
