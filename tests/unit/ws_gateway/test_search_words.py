"""Words for search: the same ones that FTS5 sees, so that both engines find the same."""

import contextlib
import sqlite3
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ws_gateway.adapters.search_words import phrases_of, snippet, words_of

TYPED = st.text(
    st.one_of(
        st.characters(max_codepoint=0x17F),
        st.characters(min_codepoint=0x400, max_codepoint=0x44F),
        st.characters(min_codepoint=0x3B1, max_codepoint=0x3C9),
        st.sampled_from("  -_'\"«»👋…漢字かなשלוםéè\u0301\u0308"),
    ).filter(lambda c: c != "\x00"),
    max_size=40,
)
"""What people type, of letters that are as old as SQLite's tables of them."""


@pytest.fixture(scope="module")
def fts() -> Iterator[sqlite3.Connection]:
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        connection.execute(
            "CREATE VIRTUAL TABLE search USING fts5"
            " (text, tokenize = 'unicode61 remove_diacritics 2')"
        )
        connection.execute("CREATE VIRTUAL TABLE words USING fts5vocab (search, 'instance')")
        yield connection


def words_of_fts(connection: sqlite3.Connection, text: str) -> list[str]:
    connection.execute("DELETE FROM search")
    connection.execute("INSERT INTO search VALUES (?)", (text,))
    return [term for (term,) in connection.execute("SELECT term FROM words ORDER BY offset")]


@given(TYPED)
def test_words_are_those_that_sqlite_sees(fts: sqlite3.Connection, text: str) -> None:
    assert words_of(text) == words_of_fts(fts, text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Coffee at the CAFÉ?", ["coffee", "at", "the", "cafe"]),
        ("co-op, e\u0301te\u0301 İstanbul", ["co", "op", "ete", "istanbul"]),
        ("Ελληνικός МОЙ", ["ελληνικοσ", "мой"]),
        ("snake_case 1e5 'quoted' a:b\\c", ["snake", "case", "1e5", "quoted", "a", "b", "c"]),
        ("👋 !? …", []),
    ],
)
def test_words_are_folded_runs_of_letters_and_digits(text: str, words: list[str]) -> None:
    assert words_of(text) == words


def test_endless_word_is_known_by_its_beginning() -> None:
    assert words_of("é" * 4000) == ["e" * 255]
    assert words_of("e" * 4000) == ["e" * 255]


@pytest.mark.parametrize(
    ("query", "phrases", "last_is_prefix"),
    [
        ("co-op caf", [["co", "op"], ["caf"]], True),
        ("coffee !", [["coffee"]], False),
        ("a\x00b", [["a"], ["b"]], True),
        ("! 👋", [], False),
        ("", [], False),
    ],
)
def test_query_is_phrases_and_the_last_may_be_a_beginning(
    query: str, phrases: list[list[str]], last_is_prefix: bool
) -> None:
    assert phrases_of(query) == (phrases, last_is_prefix)


@pytest.mark.parametrize(
    ("text", "query", "shown"),
    [
        ("one needle here", "needle", "one «needle» here"),
        ("Au Café Noir.", "caf noi", "Au Café «Noir»."),
        ("a co-op, a co op", "co-op", "a «co-op», a «co op»"),
        (f"{'x ' * 20}needle{' y' * 20}", "needle", "…x x x x x «needle» y y y y y y…"),
        ("needle first" + " z" * 20, "needle", "«needle» first z z z z z z z z z z…"),
        ("z " * 20 + "last needle", "needle", "…z z z z z z z z z z last «needle»"),
        ("nothing of it", "needle", "nothing of it"),
    ],
)
def test_snippet_shows_matches_in_what_surrounds_them(text: str, query: str, shown: str) -> None:
    assert snippet(text, *phrases_of(query)) == shown


@given(TYPED, TYPED)
def test_snippet_is_a_piece_of_the_text(text: str, query: str) -> None:
    text = text.translate({ord(sign): None for sign in "«»…"})
    shown = snippet(text, *phrases_of(query))
    assert shown.translate({ord(sign): None for sign in "«»…"}) in text
    assert shown.count("«") == shown.count("»")
