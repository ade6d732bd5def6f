"""What a run measures on: the relay, the services and their people, all up at the same time.

Whichever is not measured is idle, so relay and Duet are compared within seconds of each other.
"""

import contextlib
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from bench import proc, tool
from bench.load import LoadPlan, LoadResult, PairPlan
from bench.people import Person, sign_up
from bench.record import Record, spread
from bench.services import Relay, Services, relay, services
from bench.wire import TEXT_CHARACTERS, IdKind

__all__ = ["Options", "Pace", "Stage", "duet_pairs", "relay_pairs", "say", "shares", "stage"]

PEOPLE = 100
GENERATOR_IS_LIMIT = 0.9
"""Share of its core from which on the generator may be what is measured."""
DISTURBED = 0.1
"""Cores that others may use during a measurement before it is done again."""
_TRIES = 3
_LOOK_S = 0.25
_LATE_US = 1000


class Pace(msgspec.Struct, frozen=True, kw_only=True):
    """How long a load lasts, and what to do when others disturb it."""

    repetitions: int
    warm_up_s: float
    measured_s: float
    client_ids: IdKind = "uuid7"
    repeats_when_disturbed: int
    """Measurements that may be done again in the whole run."""
    patience_s: float
    """How long to wait, in the whole run, for others to leave the machine alone."""


class Options(Pace, frozen=True, kw_only=True):
    """What to measure."""

    directory: Path
    """Databases are made in a new directory in here; it must be on a disk."""
    shares_of_peak: tuple[float, ...]
    connections: int
    """Opened and held idle."""
    missed_messages: int
    history_messages: int
    history_pages: int
    filled: Path | None = None
    """Where databases are kept that hold many messages. Without it, what needs them is left out,
    and history is measured in a conversation that is written first."""
    stored_messages: int = 10_000_000


class Stage:
    """Runs message loads against either server."""

    def __init__(
        self,
        baseline: Relay,
        duet: Services,
        people: list[Person],
        pace: Pace,
        record: Record,
    ) -> None:
        self.relay = baseline
        self.duet = duet
        self.people = people
        self._pace = pace
        self._record = record
        self._repeats_left = pace.repeats_when_disturbed
        self._patience_s = pace.patience_s
        self._kept: list[LoadResult] = []

    def load(
        self,
        server: str,
        *,
        pairs: int,
        window: int,
        rate_per_s: float | None = None,
        text_characters: int = TEXT_CHARACTERS,
        people: list[Person] | None = None,
    ) -> LoadResult:
        """Measure "relay" or "duet"; again when others disturbed it, keeping the quietest try.

        `people` are others than those of the stage.

        Raises:
            RuntimeError: the server failed, or a message was lost.
        """
        is_duet, pace = server == "duet", self._pace
        plan = LoadPlan(
            url=self.duet.url if is_duet else self.relay.url,
            server_pid=self.duet.gateway_pid if is_duet else self.relay.pid,
            pairs=duet_pairs(people or self.people, pairs) if is_duet else relay_pairs(pairs),
            window=window,
            rate_per_s=rate_per_s,
            text_characters=text_characters,
            warm_up_s=pace.warm_up_s,
            measured_s=pace.measured_s,
            client_ids=pace.client_ids,
        )
        tries: list[LoadResult] = []
        for _ in range(_TRIES):
            self.wait_for_quiet()
            result = tool.run("bench.load", plan, LoadResult)
            if result.lost:
                raise RuntimeError(f"{server}: {result.lost} of {result.sent} messages were lost")
            tries.append(result)
            if result.cpu.others <= DISTURBED or self._repeats_left == 0:
                break
            self._repeats_left -= 1
        best = min(tries, key=lambda result: result.cpu.others)
        self._kept.append(best)
        return best

    def wait_for_quiet(self) -> None:
        """Let others finish what they do now, as long as patience lasts."""
        while self._patience_s > 0:
            meter = proc.CpuMeter(self.duet.gateway_pid)
            time.sleep(_LOOK_S)
            self._patience_s -= _LOOK_S
            if meter.shares().others <= DISTURBED:
                return

    def warn(self) -> None:
        """Add to the record what may have spoiled measurements."""
        others = [result.cpu.others for result in self._kept if result.cpu.others > DISTURBED]
        limited = [r for r in self._kept if r.cpu.generator > GENERATOR_IS_LIMIT]
        late = [result.late_p99_us for result in self._kept if result.late_p99_us > _LATE_US]
        total = len(self._kept)
        if others:
            self._record.warnings.append(
                f"others used up to {max(others):.0%} of a core during {len(others)} of {total} "
                "loads: trust ratios, and those for each CPU second most"
            )
        if limited:
            self._record.warnings.append(
                f"the generator used its whole core in {len(limited)} of {total} loads and may "
                "have been the limit"
            )
        if late:
            self._record.warnings.append(
                f"the generator was up to {max(late) / 1000:.1f} ms late in {len(late)} of {total} "
                "loads; latencies count from when it should have sent"
            )


@contextlib.contextmanager
def stage(
    pace: Pace, record: Record, directory: Path, *, filled: Path | None = None
) -> Iterator[Stage]:
    """Start relay and services, and sign people up.

    State is in a new directory in `directory`, or in `filled`, which keeps what is added to it.
    """
    with contextlib.ExitStack() as stack:
        data_dir = filled or Path(
            stack.enter_context(tempfile.TemporaryDirectory(dir=directory, prefix="duet-bench-"))
        )
        baseline = stack.enter_context(relay())
        duet = stack.enter_context(services(data_dir))
        say(f"signing {PEOPLE} people up")
        on = Stage(baseline, duet, sign_up(duet.profile_url, PEOPLE), pace, record)
        try:
            yield on
        finally:
            on.warn()


def shares(results: list[LoadResult]) -> str:
    """Say who used how much of its core."""
    server = spread(result.cpu.server for result in results).median
    generator = spread(result.cpu.generator for result in results).median
    return f"server {server:.0%}, generator {generator:.0%} of a core"


def say(line: str) -> None:
    """Tell how far the run is."""
    print(f"bench: {line}", file=sys.stderr, flush=True)


def duet_pairs(people: list[Person], count: int) -> list[PairPlan]:
    """The first people, two and two."""
    return [
        PairPlan(sender.access_token, recipient.access_token, recipient.user_id)
        for sender, recipient in zip(
            people[: 2 * count : 2], people[1 : 2 * count : 2], strict=True
        )
    ]


def relay_pairs(count: int) -> list[PairPlan]:
    """Pairs whose ids are as long as Duet's."""
    return [
        PairPlan(f"u_sender{n:020d}", f"u_recipient{n:017d}", f"u_recipient{n:017d}")
        for n in range(count)
    ]
