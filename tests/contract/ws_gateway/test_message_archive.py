"""What every `MessageArchive` must do: history, conversation lists, search, traces."""

import itertools
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from shared.ids import ConversationId, UserId, conversation_id
from tests.support.gateway_stores import ENGINES, Engine, engine_of
from tests.support.talk import (
    ANN,
    BOB,
    CID,
    delete,
    edit,
    erase,
    mark,
    say,
)
from ws_gateway.conversations import Edit, Mark, Marked, Message
from ws_gateway.ports import ConversationSummary, SearchHit, Stores


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Engine:
    return engine_of(request.param, request, tmp_path)


@pytest.fixture
async def stores(engine: Engine) -> AsyncIterator[Stores]:
    async with engine.open() as stores:
        yield stores


async def history(
    stores: Stores,
    user: UserId = BOB,
    peer: UserId = ANN,
    *,
    before: int | None = None,
    after: int | None = None,
    limit: int = 50,
) -> tuple[list[int], bool]:
    """A page of history: the seqs, and whether there are more."""
    page = await stores.archive.history(user, peer, before=before, after=after, limit=limit)
    return [message.seq for message in page.messages], page.more


async def test_history_returns_the_latest_messages_oldest_first(stores: Stores) -> None:
    messages = await say(stores.messages, ANN, BOB, *"abcde")
    page = await stores.archive.history(BOB, ANN, before=None, after=None, limit=50)
    assert page.messages == messages
    assert not page.more
    assert page == await stores.archive.history(ANN, BOB, before=None, after=None, limit=50)


async def test_history_limit_says_whether_there_is_more(stores: Stores) -> None:
    await say(stores.messages, ANN, BOB, *"abcde")
    assert await history(stores, limit=2) == ([4, 5], True)
    assert await history(stores, limit=4) == ([2, 3, 4, 5], True)
    assert await history(stores, limit=5) == ([1, 2, 3, 4, 5], False)
    assert await history(stores, before=3, limit=1) == ([2], True)
    assert await history(stores, before=3, limit=2) == ([1, 2], False)
    assert await history(stores, before=1) == ([], False)
    assert await history(stores, after=0, limit=2) == ([1, 2], True)
    assert await history(stores, after=3, limit=2) == ([4, 5], False)
    assert await history(stores, after=5) == ([], False)
    assert await history(stores, after=2**53 - 1) == ([], False)


@pytest.mark.parametrize("limit", [1, 3, 7])
async def test_history_pages_join_without_gap_or_double_while_messages_arrive(
    stores: Stores, limit: int
) -> None:
    await say(stores.messages, ANN, BOB, *"abcdefghij")
    back: list[int] = []
    before, more = None, True
    while more:
        seqs, more = await history(stores, before=before, limit=limit)
        back, before = seqs + back, seqs[0]
        await say(stores.messages, BOB, ANN, "meanwhile")
    assert back == list(range(1, 11))
    forth: list[int] = []
    more = True
    while more:
        seqs, more = await history(stores, after=forth[-1] if forth else 0, limit=limit)
        forth += seqs
        if len(forth) < 15:
            await say(stores.messages, CID, BOB, "elsewhere")
            await say(stores.messages, BOB, ANN, "meanwhile")
    assert forth == list(range(1, len(forth) + 1))


async def test_history_of_people_who_never_talked_is_empty(stores: Stores) -> None:
    await say(stores.messages, ANN, BOB, "private")
    assert await history(stores, CID, ANN) == ([], False)
    assert await history(stores, UserId("u_nobody"), UserId("'; --\x00")) == ([], False)
    assert await history(stores, ANN, ANN) == ([], False)


async def test_history_shows_edits_and_tombstones_in_place(stores: Stores) -> None:
    one, two, _ = await say(stores.messages, ANN, BOB, "one", "two", "three")
    await edit(stores.messages, one, "mended", at_ms=9)
    await delete(stores.messages, two)
    page = await stores.archive.history(BOB, ANN, before=None, after=None, limit=50)
    assert [(m.seq, m.text, m.revision, m.deleted) for m in page.messages] == [
        (1, "mended", 1, False),
        (2, "", 1, True),
        (3, "three", 0, False),
    ]
    assert page.messages[0].changed_at_ms == 9


async def test_conversations_come_newest_first_with_all_a_list_shows(
    stores: Stores,
) -> None:
    await say(stores.messages, ANN, BOB, "old", "older")
    await say(stores.messages, CID, BOB, "new")
    (last,) = await say(stores.messages, BOB, ANN, "newest")
    await mark(stores.messages, BOB, ANN, 2)
    await mark(stores.messages, ANN, BOB, 1, read=True)
    with_ann, with_cid = await stores.archive.conversations(BOB, None, 10)
    assert with_ann == ConversationSummary(
        conversation=conversation_id(ANN, BOB),
        peer=ANN,
        peer_last_seen_ms=None,
        last_message=last,
        unread=2,
        received=2,
        read=0,
        peer_received=1,
        peer_read=1,
        position=await stores.messages.position_of(BOB),
    )
    assert (with_cid.peer, with_cid.unread, with_cid.last_message.text) == (CID, 1, "new")


async def test_conversations_of_a_newcomer_are_none(stores: Stores) -> None:
    assert await stores.archive.conversations(UserId("u_new"), None, 10) == []


@pytest.mark.parametrize("limit", [1, 2, 50])
async def test_conversation_pages_join_without_double_while_messages_arrive(
    stores: Stores, limit: int
) -> None:
    peers = [UserId(f"u_{n:02}") for n in range(9)]
    for peer in peers:
        await say(stores.messages, peer, BOB, "hi")
    seen: list[UserId] = []
    before: int | None = None
    while page := await stores.archive.conversations(BOB, before, limit):
        seen += [summary.peer for summary in page]
        before = page[-1].position
        await say(stores.messages, peers[-1], BOB, "again")  # on the first page already
        await say(stores.messages, UserId(f"u_later{len(seen)}"), BOB, "hi")
    assert seen == peers[::-1]


async def test_unread_counts_what_the_peer_wrote_after_the_read_mark(
    stores: Stores,
) -> None:
    """Whoever has the lower id, whatever order they wrote in."""
    choice = random.Random(7)
    writers: list[UserId] = []
    read = {ANN: 0, BOB: 0}
    for _ in range(120):
        writer = choice.choice([ANN, BOB])
        writers.append(writer)
        await say(stores.messages, writer, BOB if writer == ANN else ANN, "x")
        if choice.random() < 0.2:
            reader = choice.choice([ANN, BOB])
            seq = choice.randint(1, len(writers))
            await mark(stores.messages, reader, BOB if reader == ANN else ANN, seq, read=True)
            read[reader] = max(read[reader], seq)
        for user in (ANN, BOB):
            (summary,) = await stores.archive.conversations(user, None, 10)
            assert summary.unread == sum(w != user for w in writers[read[user] :])
            assert summary.read == read[user]


async def test_unread_is_nothing_right_after_reading_everything(stores: Stores) -> None:
    await say(stores.messages, ANN, BOB, *"abc")
    await mark(stores.messages, BOB, ANN, 3, read=True)
    await say(stores.messages, BOB, ANN, "own", "own")
    assert [s.unread for s in await stores.archive.conversations(BOB, None, 10)] == [0]


async def keep_reads_from_ann(stores: Stores, how: str) -> None:
    """Bob does: from everybody, or from whom he blocks."""
    if how == "preference":
        await stores.people.set_preferences(BOB, shares_reads=False)
    else:
        await stores.people.block(BOB, ANN, 1)


async def show_reads_again(stores: Stores, how: str) -> None:
    if how == "preference":
        await stores.people.set_preferences(BOB, shares_reads=True)
    else:
        await stores.people.unblock(BOB, ANN)


BOTH_WAYS = pytest.mark.parametrize("how", ["preference", "block"])


@BOTH_WAYS
async def test_private_reads_are_not_in_the_peers_list(stores: Stores, how: str) -> None:
    await say(stores.messages, ANN, BOB, "a")
    await mark(stores.messages, BOB, ANN, 1, read=True)
    (shown,) = await stores.archive.conversations(ANN, None, 10)
    await keep_reads_from_ann(stores, how)
    (hidden,) = await stores.archive.conversations(ANN, None, 10)
    (own,) = await stores.archive.conversations(BOB, None, 10)
    assert (hidden.peer_read, hidden.peer_received, own.read) == (None, 1, 1)
    await show_reads_again(stores, how)
    (again,) = await stores.archive.conversations(ANN, None, 10)
    assert shown.peer_read == again.peer_read == 1


async def test_private_presence_is_not_in_the_peers_list(stores: Stores) -> None:
    await say(stores.messages, ANN, BOB, "a")
    await stores.people.set_last_seen(BOB, 777)
    (shown,) = await stores.archive.conversations(ANN, None, 10)
    await stores.people.set_preferences(BOB, shares_presence=False)
    (hidden,) = await stores.archive.conversations(ANN, None, 10)
    assert (shown.peer_last_seen_ms, hidden.peer_last_seen_ms) == (777, None)


@pytest.mark.parametrize(("blocker", "blocked"), [(ANN, BOB), (BOB, ANN)])
async def test_a_block_hides_when_either_was_last_seen(
    stores: Stores, blocker: UserId, blocked: UserId
) -> None:
    await say(stores.messages, ANN, BOB, "a")
    for user in (ANN, BOB):
        await stores.people.set_last_seen(user, 777)
    await stores.people.block(blocker, blocked, 1)
    for user in (ANN, BOB):
        (summary,) = await stores.archive.conversations(user, None, 10)
        assert summary.peer_last_seen_ms is None


async def found(
    stores: Stores, query: str, user: UserId = ANN, peer: UserId | None = None
) -> list[str]:
    """The texts that a search finds, best first."""
    page = await stores.archive.search(user, query, peer, upto=None, offset=0, limit=50)
    assert page.complete
    return [hit.message.text for hit in page.hits]


@pytest.mark.parametrize(
    ("query", "finds"),
    [
        ("coffee", True),
        ("COFFEE", True),
        ("coff", True),
        ("ffee", False),
        ("cafe", True),
        ("CAFÉ", True),
        ("café coffee", True),
        ("coffee tea", False),
        ("cof café", False),
        ("привет", True),
        ("ПРИВ", True),
        ("strasse", False),
        ("naïve!", True),
        ("coffee !", True),
        ("- coffee", True),
        ("coffee 😀", True),
        ("co-op", True),
        ("(coffee)", True),
        ("coffee*", True),
        ('"coffee', True),
        ('coffee"', True),
        ("coffee\x00tea", False),
        ("coffee\x00", True),
        ("text:coffee", False),
        ("people:u1", False),
        ("u1", False),
        ("coffee OR tea", False),
        ("NOT tea", False),
        ("NEAR(coffee)", False),
        ("^coffee", True),
        ("{coffee}", True),
        ("coffee AND", False),
        ("\\coffee", True),
        ("%", False),
        ("!", False),
        ('"', False),
        ("\x00", False),
        (" ", False),
        ("\u200b", False),
    ],
)
async def test_search_finds_words_and_starts_of_words_whatever_else_is_typed(
    stores: Stores, query: str, finds: bool
) -> None:
    text = "Coffee at the Café? Привет, naïve co-op"
    await say(stores.messages, ANN, BOB, text, "nothing of the kind")
    assert await found(stores, query) == ([text] if finds else [])


async def test_search_takes_the_longest_query_of_many_words(stores: Stores) -> None:
    text = " ".join("a" * 100)
    await say(stores.messages, ANN, BOB, text)
    assert await found(stores, text) == [text]
    assert await found(stores, "a" * 200) == []


async def test_nobody_finds_other_peoples_messages(stores: Stores) -> None:
    """Not even whose key is the beginning of another's, nor by the name of a key."""
    users = [UserId(f"u_{n}") for n in range(12)]  # keys 1 to 12: u1 is the beginning of u10
    for user, peer in itertools.pairwise(users):
        await say(stores.messages, user, peer, f"secret u1 u10 between {user} and {peer}")
    for n, user in enumerate(users):
        own = [n - 1] * (n > 0) + [n] * (n < 11)
        texts = [f"secret u1 u10 between {users[i]} and {users[i + 1]}" for i in own]
        for query in ("secret", "u1", "u10", "u"):
            assert sorted(await found(stores, query, user)) == sorted(texts)
    stranger = UserId("u_stranger")
    assert await found(stores, "secret", stranger) == []
    assert await found(stores, "secret", stranger, ANN) == []


async def test_search_with_one_person_finds_only_what_was_said_between_the_two(
    stores: Stores,
) -> None:
    await say(stores.messages, ANN, BOB, "word to Bob")
    await say(stores.messages, ANN, CID, "word to Cid")
    await say(stores.messages, BOB, CID, "word between others")
    assert await found(stores, "word", ANN, BOB) == ["word to Bob"]
    assert await found(stores, "word", BOB, ANN) == ["word to Bob"]
    assert sorted(await found(stores, "word", ANN)) == ["word to Bob", "word to Cid"]
    assert await found(stores, "word", ANN, UserId("u_nobody")) == []
    assert await found(stores, "word", ANN, UserId("\x00")) == []
    assert await found(stores, "word", ANN, ANN) == []


async def test_search_follows_edits_and_forgets_deleted_text(
    stores: Stores, engine: Engine
) -> None:
    one, two, three = await say(stores.messages, ANN, BOB, "alpha one", "alpha two", "alpha three")
    assert len(await found(stores, "alpha")) == 3
    await edit(stores.messages, one, "beta one")
    await delete(stores.messages, two)
    assert await found(stores, "alpha") == [three.text]
    assert await found(stores, "beta") == ["beta one"]
    assert await found(stores, "two") == []
    assert engine.search_is_sound()


async def test_changes_before_the_index_caught_up_are_indexed_as_they_are(
    stores: Stores, engine: Engine
) -> None:
    one, two, _ = await say(stores.messages, ANN, BOB, "alpha one", "alpha two", "alpha three")
    await edit(stores.messages, one, "beta one")
    await delete(stores.messages, two)
    assert await found(stores, "alpha") == ["alpha three"]
    assert await found(stores, "beta") == ["beta one"]
    assert engine.search_is_sound()


async def test_index_is_sound_after_random_changes(stores: Stores, engine: Engine) -> None:
    choice = random.Random(11)
    words = ["alpha", "beta", "gamma", "café", "привет"]
    live: dict[int, Message] = {}
    text: dict[int, str] = {}
    for step in range(300):
        users = choice.sample([ANN, BOB, CID], 2)
        action = choice.random()
        if action < 0.5 or not live:
            words_of = " ".join(choice.choices(words, k=choice.randint(1, 4)))
            (message,) = await say(stores.messages, users[0], users[1], words_of)
            live[message.position], text[message.position] = message, words_of
        elif action < 0.75:
            position = choice.choice(list(live))
            text[position] = choice.choice(words)
            await edit(stores.messages, live[position], text[position])
        elif action < 0.95:
            position = choice.choice(list(live))
            await delete(stores.messages, live.pop(position))
            del text[position]
        else:
            await stores.tidy_up(lambda: False)
        if step == 200:
            await erase(stores.messages, CID)
            live = {p: m for p, m in live.items() if m.sender != CID}
            text = {p: text[p] for p in live}
    for word in words:
        for user in (ANN, BOB, CID):
            expected = [
                text[p]
                for p, m in live.items()
                if word in text[p].split() and user in (m.sender, m.recipient)
            ]
            page = await stores.archive.search(user, word, None, upto=None, offset=0, limit=200)
            assert sorted(hit.message.text for hit in page.hits) == sorted(expected)
    assert engine.search_is_sound()


async def test_deleted_text_is_in_no_row_of_the_messages(stores: Stores, engine: Engine) -> None:
    one, two, three = await say(stores.messages, ANN, BOB, "secretone", "secrettwo", "secretsix")
    await stores.tidy_up(lambda: False)
    await edit(stores.messages, one, "mended")
    await delete(stores.messages, two)
    await delete(stores.messages, three)
    await stores.tidy_up(lambda: True)
    assert [row for row in engine.rows() if "secret" in row] == []


async def test_snippet_shows_the_match_and_its_surroundings(stores: Stores) -> None:
    await say(stores.messages, ANN, BOB, f"{'before ' * 30}needle {'after ' * 30}")
    page = await stores.archive.search(BOB, "needle", None, upto=None, offset=0, limit=10)
    (snippet,) = [hit.snippet for hit in page.hits]
    assert "«needle»" in snippet
    assert snippet.startswith("…")
    assert len(snippet) < 120


async def test_better_matches_come_first(stores: Stores) -> None:
    await say(stores.messages, ANN, BOB, f"word {'and many more ' * 20}", "word word word")
    await say(stores.messages, ANN, BOB, f"{'nothing of it ' * 20} word")
    assert (await found(stores, "word"))[0] == "word word word"


@pytest.mark.parametrize("limit", [1, 3, 10])
async def test_search_pages_join_without_gap_or_double_while_messages_arrive(
    stores: Stores, limit: int
) -> None:
    texts = [f"word {'x ' * n}".strip() for n in range(10)]
    await say(stores.messages, ANN, BOB, *texts)
    hits: list[SearchHit] = []
    upto: int | None = None
    more = True
    while more:
        page = await stores.archive.search(
            BOB, "word", None, upto=upto, offset=len(hits), limit=limit
        )
        hits, more, upto = hits + page.hits, page.more, page.upto
        await say(stores.messages, ANN, BOB, "word")  # would be the best of all
    assert [hit.message.text for hit in hits] == texts


async def test_search_answers_from_what_is_indexed_when_nothing_can_be_written(
    stores: Stores, engine: Engine
) -> None:
    await say(stores.messages, ANN, BOB, "word one")
    await found(stores, "word")
    await say(stores.messages, ANN, BOB, "word two")
    with engine.unwritable():
        page = await stores.archive.search(BOB, "word", None, upto=None, offset=0, limit=10)
    assert [hit.message.text for hit in page.hits] == ["word one"]
    assert not page.complete
    assert len(await found(stores, "word")) == 2


async def test_trace_tells_what_happened_to_an_own_message(stores: Stores) -> None:
    messages = await say(stores.messages, ANN, BOB, "a", "b", "c", at_ms=10)
    conversation = messages[0].conversation
    stores.messages.note_deliveries([(messages[0].position, 2)], 20)
    stores.messages.note_deliveries([(messages[0].position, 1)], 25)
    await mark(stores.messages, BOB, ANN, 2, at_ms=30)
    await mark(stores.messages, BOB, ANN, 1, read=True, at_ms=40)
    await mark(stores.messages, BOB, ANN, 2, read=True, at_ms=50)
    first = await stores.archive.trace(ANN, conversation, 1)
    second = await stores.archive.trace(ANN, conversation, 2)
    third = await stores.archive.trace(ANN, conversation, 3)
    assert first is not None
    assert second is not None
    assert third is not None
    assert (first.message.sent_at_ms, first.delivered_at_ms, first.delivered_connections) == (
        10,
        20,
        2,
    )
    assert (first.received_at_ms, first.read_at_ms) == (30, 40)
    assert (second.received_at_ms, second.read_at_ms) == (30, 50)
    assert (second.delivered_at_ms, second.delivered_connections) == (None, 0)
    assert (third.received_at_ms, third.read_at_ms) == (None, None)


async def test_trace_is_for_the_sender_alone(stores: Stores) -> None:
    (message,) = await say(stores.messages, ANN, BOB, "a")
    for user in (BOB, CID):
        assert await stores.archive.trace(user, message.conversation, 1) is None
    assert await stores.archive.trace(ANN, message.conversation, 2) is None
    assert await stores.archive.trace(ANN, message.conversation, 2**53 - 1) is None
    assert await stores.archive.trace(ANN, ConversationId("\x00"), 1) is None
    assert await stores.archive.trace(ANN, conversation_id(ANN, CID), 1) is None


@BOTH_WAYS
async def test_private_read_shows_as_received_and_no_more(stores: Stores, how: str) -> None:
    (message,) = await say(stores.messages, ANN, BOB, "a")
    await keep_reads_from_ann(stores, how)
    await mark(stores.messages, BOB, ANN, 1, read=True, at_ms=30)
    hidden = await stores.archive.trace(ANN, message.conversation, 1)
    await show_reads_again(stores, how)
    shown = await stores.archive.trace(ANN, message.conversation, 1)
    assert hidden is not None
    assert shown is not None
    assert (hidden.received_at_ms, hidden.read_at_ms) == (30, None)
    assert (shown.received_at_ms, shown.read_at_ms) == (30, 30)


@BOTH_WAYS
async def test_private_read_alone_moves_nothing_that_the_peer_is_told(
    stores: Stores, how: str
) -> None:
    await say(stores.messages, ANN, BOB, "a")
    await keep_reads_from_ann(stores, how)
    await mark(stores.messages, BOB, ANN, 1)
    for user in (ANN, BOB):
        await say(stores.messages, CID, user, *(str(n) for n in range(100)))  # long after it
    conversation = conversation_id(ANN, BOB)
    hers, his = [await stores.messages.position_of(user) for user in (ANN, BOB)]
    await mark(stores.messages, BOB, ANN, 1, read=True)
    assert await stores.messages.receipts_after(ANN, hers) == []
    assert await stores.messages.receipts_after(ANN, 0) == [(conversation, BOB, 1, 0)]
    assert await stores.messages.receipts_after(BOB, his) == [(conversation, BOB, 1, 1)]
    await show_reads_again(stores, how)
    assert await stores.messages.receipts_after(ANN, hers) == [(conversation, BOB, 1, 1)]


@BOTH_WAYS
async def test_mark_says_whether_its_read_is_private(stores: Stores, how: str) -> None:
    await say(stores.messages, ANN, BOB, "a", "b", "c")
    shown = []
    for seq in (1, 2, 3):
        marked = await mark(stores.messages, BOB, ANN, seq, read=True)
        assert isinstance(marked, Marked)
        shown.append(marked.shows_read)
        await (show_reads_again if seq == 2 else keep_reads_from_ann)(stores, how)
    assert shown == [True, False, True]


@pytest.mark.parametrize("beside", [[], [Edit(ANN, "e", conversation_id(ANN, BOB), 1, "b")]])
async def test_a_block_hides_the_reads_of_the_blocker_from_the_blocked_alone(
    stores: Stores, beside: list[Edit]
) -> None:
    """Also where a batch holds what is not only appended."""
    pairs = [(ANN, BOB), (ANN, CID), (BOB, ANN), (BOB, CID), (CID, ANN), (CID, BOB)]
    for user, peer in pairs:
        await say(stores.messages, user, peer, "a")
    await stores.people.block(BOB, ANN, 1)
    marks = [Mark(user, None, conversation_id(user, peer), 1, read=True) for user, peer in pairs]
    outcomes = await stores.messages.append_batch([*marks, *beside], 2)
    shows = [outcome.shows_read for outcome in outcomes if isinstance(outcome, Marked)]
    assert shows == [pair != (BOB, ANN) for pair in pairs]
    for user in (ANN, BOB, CID):
        seen = {
            summary.peer: summary.peer_read
            for summary in await stores.archive.conversations(user, None, 10)
        }
        assert seen == {peer: None if (peer, user) == (BOB, ANN) else 1 for peer in seen}
