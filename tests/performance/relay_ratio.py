"""Messages that Duet moves with a second of processor time, against those of the bare relay.

Processor time, not the clock on the wall: a machine that is busy with something else makes both
slower, and hardly dearer. What is left of its noise only ever makes a try worse, for its caches are
others' too; so the best of a few tries counts.
"""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from bench import tool
from bench.load import LoadPlan, LoadResult, PairPlan
from bench.people import Person, sign_up
from bench.services import relay, services
from bench.stage import duet_pairs, relay_pairs

__all__ = ["Comparison", "comparison"]

_WARM_UP_S = 0.4
_MEASURED_S = 0.8
_PAIRS = 50


class Comparison:
    """Both servers, running."""

    def __init__(self, relay: tuple[str, int], duet: tuple[str, int], people: list[Person]) -> None:
        self._relay = relay
        self._duet = duet
        self._people = people

    def ratio(self, window: int) -> float:
        """Measure one after the other, each pair with `window` messages under way."""
        baseline = _load(*self._relay, relay_pairs(_PAIRS), window)
        product = _load(*self._duet, duet_pairs(self._people, _PAIRS), window)
        return _messages_for_cpu_s(product) / _messages_for_cpu_s(baseline)


@contextlib.contextmanager
def comparison() -> Iterator[Comparison]:
    """Start both, the product as a user does, but for cheap password hashes."""
    with (
        tempfile.TemporaryDirectory() as directory,
        relay() as baseline,
        services(Path(directory), DUET_ARGON2_MEMORY_KIB="8") as duet,
    ):
        people = sign_up(duet.profile_url, 2 * _PAIRS)
        yield Comparison((baseline.url, baseline.pid), (duet.url, duet.gateway_pid), people)


def _load(url: str, server_pid: int, pairs: list[PairPlan], window: int) -> LoadResult:
    plan = LoadPlan(
        url=url,
        server_pid=server_pid,
        pairs=pairs,
        window=window,
        warm_up_s=_WARM_UP_S,
        measured_s=_MEASURED_S,
    )
    return tool.run("bench.load", plan, LoadResult)


def _messages_for_cpu_s(result: LoadResult) -> float:
    assert result.lost == 0
    return result.messages_per_s / result.cpu.server
