"""The words of a text, as search sees them, and the piece of it that shows what was found. Pure.

As FTS5's `unicode61 remove_diacritics` does it for SQLite: a word is a run of letters and digits,
case and accents aside.
"""

import re
import unicodedata
from collections.abc import Iterator, Sequence

__all__ = ["phrases_of", "snippet", "words_of"]

MAX_WORD_CHARACTERS = 255
"""Longer words are known by their beginning."""

_SNIPPET_WORDS = 12
_WORD = re.compile(r"(?:[^\W_][\u0300-\u036f]*)+")
_MARKS = re.compile(r"[\u0300-\u036f]+")
_ACCENTED = re.compile(r"([\u0000-\u03ff])[\u0300-\u036f]+")
"""Latin and Greek letters; in Cyrillic й is a letter of its own."""
_SAME_LETTERS = str.maketrans("ςµſ", "σμs")
"""Case folding, where lower case is not enough."""


def words_of(text: str) -> list[str]:
    """Return the words of a text in their order, folded."""
    if text.isascii():
        return [word[:MAX_WORD_CHARACTERS] for word in _WORD.findall(text.lower())]
    return [_folded(word) for word in _WORD.findall(text)]


def phrases_of(query: str) -> tuple[list[list[str]], bool]:
    """Return what each word of a query stands for, and whether the last may be the start of one.

    One that is typed without a space may be several for search: "co-op" is "co", then "op".
    """
    pieces = query.replace("\x00", " ").split()
    phrases = [words_of(piece) for piece in pieces]
    return [phrase for phrase in phrases if phrase], bool(phrases and phrases[-1])


def snippet(text: str, phrases: Sequence[Sequence[str]], last_is_prefix: bool) -> str:
    """Return the piece of a text with the most matches: these between « and », cuts as …."""
    spans = [match.span() for match in _WORD.finditer(text)]
    words = [_folded(text[start:end]) for start, end in spans]
    hits = sorted(set(_hits(words, phrases, last_is_prefix)))
    if not hits:
        return text[: spans[_SNIPPET_WORDS][0]] + "…" if len(spans) > _SNIPPET_WORDS else text
    first = _best_window(hits, len(words))
    last = min(first + _SNIPPET_WORDS, len(words)) - 1
    begin = spans[first][0] if first else 0
    end = spans[last][1] if last + 1 < len(words) else len(text)
    shown, at = ["…" if first else ""], begin
    for run_first, run_last in _runs([n for n in hits if first <= n <= last]):
        start, stop = spans[run_first][0], spans[run_last][1]
        shown += [text[at:start], "«", text[start:stop], "»"]
        at = stop
    return "".join([*shown, text[at:end], "…" if last + 1 < len(words) else ""])


def _folded(word: str) -> str:
    word = word.lower()
    if not word.isascii():
        word = _MARKS.sub("", word).translate(_SAME_LETTERS)
        plain = _ACCENTED.sub(r"\1", unicodedata.normalize("NFD", word))
        word = unicodedata.normalize("NFC", plain)
    return word[:MAX_WORD_CHARACTERS]


def _hits(
    words: Sequence[str], phrases: Sequence[Sequence[str]], last_is_prefix: bool
) -> Iterator[int]:
    """Find the places of the words that are part of a whole phrase."""
    for n, phrase in enumerate(phrases, 1):
        is_prefix = last_is_prefix and n == len(phrases)
        for place in range(len(words) - len(phrase) + 1):
            found = words[place : place + len(phrase)]
            ends = found[-1].startswith(phrase[-1]) if is_prefix else found[-1] == phrase[-1]
            if ends and found[:-1] == list(phrase[:-1]):
                yield from range(place, place + len(phrase))


def _best_window(hits: Sequence[int], count: int) -> int:
    """Return the first word of the window that shows the most matches, these in its middle."""
    if count <= _SNIPPET_WORDS:
        return 0
    best = max(hits, key=lambda first: sum(first <= n < first + _SNIPPET_WORDS for n in hits))
    shown = [n for n in hits if best <= n < best + _SNIPPET_WORDS]
    margin = (_SNIPPET_WORDS - (shown[-1] - best + 1)) // 2
    return min(max(best - margin, 0), count - _SNIPPET_WORDS)


def _runs(places: Sequence[int]) -> Iterator[tuple[int, int]]:
    first = last = places[0]
    for place in places[1:]:
        if place != last + 1:
            yield first, last
            first = place
        last = place
    yield first, last
