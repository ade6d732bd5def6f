"""A short, repeatable run of each fuzz target: its seeds, and thousands of mutations of them."""

import random
import tracemalloc
from collections.abc import Iterator

import pytest

from tests.fuzz.targets import TARGETS, seeds

_EXECUTIONS = {"session": 20_000, "http": 1500}
_MAX_GROWTH_BYTES = 10_000_000

_SPLICES = [
    b"{", b"}", b"[", b'"', b",", b":", b"\\u0000", b"\\ud800", b"\xff", b"\x00", b"NaN", b"1e999",
    b"-1", b"9007199254740993", b"null", b"true", b'"type":', b"[" * 3000, b"x" * 5000, b"\x1e",
    b"\xef\xbb\xbf", b"\r\n", b"\x1b[31m", b"../", b"%00", b"e\xcc\x81",
]  # fmt: skip


@pytest.mark.parametrize("name", sorted(TARGETS))
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_no_input_breaks_the_target_or_is_kept_in_memory(name: str) -> None:
    target = TARGETS[name]()
    inputs = _inputs(name, _EXECUTIONS[name])
    try:
        for data in seeds(name):
            target(data)
        tracemalloc.start()
        for number, data in enumerate(inputs):
            if number == _EXECUTIONS[name] // 2:
                tracemalloc.reset_peak()
                before, _ = tracemalloc.get_traced_memory()
            target(data)
        after, _ = tracemalloc.get_traced_memory()
        assert after - before < _MAX_GROWTH_BYTES
    finally:
        tracemalloc.stop()
        getattr(target, "close", lambda: None)()


def _inputs(name: str, count: int) -> Iterator[bytes]:
    """Mutations of the seeds: cut, spliced, flipped, doubled. The same ones each time."""
    chance, known = random.Random(name), list(seeds(name))
    for _ in range(count):
        data = bytearray(chance.choice(known))
        for _ in range(chance.randint(1, 4)):
            place = chance.randrange(len(data) + 1)
            match chance.randrange(5):
                case 0:
                    data[place:place] = chance.choice(_SPLICES)
                case 1:
                    del data[place : place + chance.randint(1, 20)]
                case 2 if place < len(data):
                    data[place] ^= 1 << chance.randrange(8)
                case 3:
                    data[place : place + chance.randint(0, 9)] = chance.choice(_SPLICES)
                case _:
                    other = chance.choice(known)
                    data[place:] = other[chance.randrange(len(other)) :]
        yield bytes(data[:8192])
