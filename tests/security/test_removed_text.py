"""Text that was deleted, edited away or erased is gone from the files, not only from sight."""

import random
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.support.gateway import running_gateway
from tests.support.talk import ANN, BOB, CID, delete, edit, erase, say, search_index_is_sound
from tests.support.waiting import until
from ws_gateway.adapters.sqlite_stores import SqliteStores, open_sqlite_stores
from ws_gateway.conversations import Message


def left_behind(directory: Path, words: Iterable[str]) -> set[str]:
    """Which of the words any file holds, the write-ahead log included."""
    held = b"".join(path.read_bytes() for path in directory.rglob("*") if path.is_file())
    return {word for word in words if word.encode() in held}


class Texts:
    """Texts of all lengths, each with a word that no other has."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)
        self._letters = "abcdefghijklmnopqrstuvwxyz"
        self.words: dict[str, str] = {}
        """Text to its word."""

    def make(self, count: int) -> list[str]:
        texts = []
        for _ in range(count):
            word = "".join(self._chance.choices(self._letters, k=14))
            text = "of many lengths " * self._chance.choice([0, 0, 1, 2, 10, 120, 249]) + word
            self.words[text] = word
            texts.append(text[:4000])
        return texts


class Clock:
    """Moved by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


async def tidied(stores: SqliteStores, clock: Clock, *, for_s: float) -> None:
    """Tidy up now and then while so much time passes."""
    ends_at = clock.now + for_s
    while clock.now < ends_at:
        await stores.tidy_up(lambda: False)
        clock.now += for_s / 100


async def forgotten(stores: SqliteStores, clock: Clock) -> None:
    """Let so much time pass that nothing may be left."""
    await tidied(stores, clock, for_s=4000)


@pytest.mark.parametrize("seed", range(3))
async def test_nothing_of_a_removed_text_stays_in_a_file(tmp_path: Path, seed: int) -> None:
    clock, texts, chance = Clock(), Texts(seed), random.Random(seed)
    path = tmp_path / "messages.db"
    async with open_sqlite_stores(path, clock=clock) as stores:
        messages: list[Message] = []
        for _ in range(40):
            messages += await say(stores.messages, ANN, BOB, *texts.make(20))
            await stores.search.catch_up()
        gone = chance.sample(messages, 300)
        for number, message in enumerate(gone):
            if number % 3:
                await delete(stores.messages, message)
            else:
                await edit(stores.messages, message, "something else")
            if not number % 50:
                await say(stores.messages, BOB, ANN, *texts.make(20))
                await stores.search.catch_up()
        words = {texts.words[message.text] for message in gone}
        assert left_behind(tmp_path, words)
        await forgotten(stores, clock)
        assert left_behind(tmp_path, words) == set()
        kept = {texts.words[message.text] for message in messages} - words
        assert left_behind(tmp_path, kept) == kept
        for word in chance.sample(sorted(kept), 20):
            page = await stores.archive.search(ANN, word, None, upto=None, offset=0, limit=2)
            assert len(page.hits) == 1
    assert search_index_is_sound(path)


async def test_erased_person_leaves_no_words(tmp_path: Path) -> None:
    clock, texts = Clock(), Texts(7)
    async with open_sqlite_stores(tmp_path / "messages.db", clock=clock) as stores:
        for peer in (ANN, CID):
            await say(stores.messages, BOB, peer, *texts.make(60))
            await stores.search.catch_up()
        await erase(stores.messages, BOB)
        await forgotten(stores, clock)
    assert left_behind(tmp_path, texts.words.values()) == set()


async def test_it_goes_on_after_a_restart_and_is_done_once_an_hour(tmp_path: Path) -> None:
    clock, texts, path = Clock(), Texts(8), tmp_path / "messages.db"
    async with open_sqlite_stores(path, clock=clock) as stores:
        first, second = await say(stores.messages, ANN, BOB, *texts.make(2))
        await stores.search.catch_up()
        await delete(stores.messages, first)
    async with open_sqlite_stores(path, clock=clock) as stores:
        await tidied(stores, clock, for_s=10)
        assert left_behind(tmp_path, texts.words.values()) == {texts.words[second.text]}
        await delete(stores.messages, second)
        await tidied(stores, clock, for_s=3000)
        assert left_behind(tmp_path, texts.words.values())
        await tidied(stores, clock, for_s=700)
        assert left_behind(tmp_path, texts.words.values()) == set()


async def test_running_gateway_does_it_by_itself(tmp_path: Path) -> None:
    word = "xylophonequartet"
    async with running_gateway(tmp_path) as gateway:
        ann, bob = gateway.profile.sign_up("ann"), gateway.profile.sign_up("bob")
        async with gateway.talking(ann) as a:
            ack = await a.say(bob.user_id, f"a {word}", "1")
            await a.send(type="search", id="s", query=word)
            assert len((await a.expect("search", id="s"))["items"]) == 1
            await a.send(type="delete", id="2", conversation=ack["conversation"], seq=ack["seq"])
            await a.expect("ack", id="2")
        await until(lambda: not left_behind(tmp_path, {word}), within_s=20)
