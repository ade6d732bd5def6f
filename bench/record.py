"""What a run of the bench measured: written as JSON, printed as a table, drawn as a plot."""

import statistics
from collections.abc import Iterable

import msgspec

from bench.connects import ConnectsResult
from bench.durable_commit import CommitResult
from bench.footprint import FootprintResult
from bench.http_load import HttpResult
from bench.load import LoadResult
from bench.past import PastResult
from bench.start import StartResult

__all__ = ["Machine", "Point", "Record", "Row", "Spread", "Throughput", "exactly", "spread"]


class Spread(msgspec.Struct, frozen=True):
    """The middle of several measurements, and how far they lie apart."""

    median: float
    low: float
    high: float


def spread(values: Iterable[float]) -> Spread:
    """Take the median and the extremes."""
    listed = list(values)
    return Spread(statistics.median(listed), min(listed), max(listed))


def exactly(value: float) -> Spread:
    """A value that was measured once."""
    return Spread(value, value, value)


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the table."""

    what: str
    value: Spread
    unit: str
    target: float | None = None
    at_most: bool = False
    """Whether the target is an upper bound."""
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the median reaches the target, when there is one."""
        if self.target is None:
            return None
        return (
            self.value.median <= self.target if self.at_most else (self.value.median >= self.target)
        )


class Throughput(msgspec.Struct, kw_only=True):
    """Closed loop: repetitions of the relay and of Duet in turns."""

    pairs: int
    window: int
    relay: list[LoadResult] = []
    duet: list[LoadResult] = []
    commits: list[CommitResult] = []
    """One for each repetition, with one pair and one message in flight."""


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """Open loop: latency at one rate."""

    server: str
    share_of_peak: float
    rate_per_s: float
    result: LoadResult


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """What it was measured on."""

    date: str
    processor: str
    cores: int
    kernel: str
    python: str
    sqlite: str
    file_system: str
    load_average: float
    """Of the last minute, before the run: what else the machine was doing."""


class Record(msgspec.Struct, kw_only=True):
    """All of one run."""

    machine: Machine
    throughput: list[Throughput] = []
    points: list[Point] = []
    connects: dict[str, ConnectsResult] = {}
    profile: dict[str, HttpResult] = {}
    past: list[PastResult] = []
    footprint: FootprintResult | None = None
    starts: list[StartResult] = []
    rows: list[Row] = []
    failures: list[str] = []
    warnings: list[str] = []
