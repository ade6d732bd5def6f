"""Several runs of one machine and day as one table: each target, what was reached, how steadily."""

from collections.abc import Sequence

import msgspec

from bench.record import Machine, Record, Row, Spread, spread
from bench.report import number

__all__ = ["MergedRow", "markdown", "merged", "peer_rows", "plain"]

_PEERS = (
    ("ejabberd 23.01, archive in PostgreSQL", 1_900, 20.0),
    ("ejabberd 23.01, archive in SQLite", 479, 80.0),
    ("Prosody 0.12, archive in SQLite", 467, 80.0),
    ("Synapse 1.163, SQLite, 20 pairs", 64, 500.0),
    ("ejabberd 23.01, no archive", 10_800, 3.0),
)
"""Messages a second of the best loop of each, measured in November 2026 on another machine of this
kind, and how many times as many are wanted."""
_PEAK_ROW = "50 pairs x 20: Duet"


class MergedRow(msgspec.Struct, frozen=True, kw_only=True):
    """One line: the median of the runs' medians is what counts."""

    what: str
    runs: list[float]
    extremes: Spread
    """Over all measurements of all runs."""
    unit: str
    target: float | None
    at_most: bool
    note: str

    @property
    def value(self) -> float:
        """What counts."""
        return spread(self.runs).median

    @property
    def met(self) -> bool | None:
        """Whether the target is reached, when there is one."""
        if self.target is None:
            return None
        return self.value <= self.target if self.at_most else self.value >= self.target


def merged(records: Sequence[Record]) -> list[MergedRow]:
    """Merge rows of the same name, in the order of their first run. A row may miss in a run."""
    names = dict.fromkeys(row.what for record in records for row in record.rows)
    return [
        _merge([row for record in records for row in record.rows if row.what == name])
        for name in names
    ]


def peer_rows(rows: Sequence[MergedRow]) -> list[MergedRow]:
    """Compare with servers that were measured on another day."""
    peak = next((row for row in rows if row.what == _PEAK_ROW), None)
    if peak is None:
        return []
    return [
        MergedRow(
            what=f"50 pairs x 20: Duet / {peer}",
            runs=[reached / baseline for reached in peak.runs],
            extremes=Spread(
                peak.value / baseline, peak.extremes.low / baseline, peak.extremes.high / baseline
            ),
            unit="x",
            target=target,
            at_most=False,
            note=f"{baseline:,} msg/s, on another day",
        )
        for peer, baseline, target in _PEERS
    ]


def plain(records: Sequence[Record], rows: Sequence[MergedRow]) -> str:
    """Lay the table out for a terminal."""
    cells = [_cells(row) for row in rows]
    cells.insert(0, ("", "median", "each run", "lowest .. highest", "target", ""))
    widths = [max(len(line[column]) for line in cells) for column in range(6)]
    lines = [_heading(record.machine) for record in records]
    lines += [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in cells
    ]
    for run, record in enumerate(records, 1):
        lines += [f"WARNING, run {run}: {warning}" for warning in record.warnings]
        lines += [f"FAILED, run {run}: {failure}" for failure in record.failures]
    with_target = [row for row in rows if row.met is not None]
    lines.append(f"{sum(row.met is True for row in with_target)} of {len(with_target)} targets met")
    return "\n".join(lines)


def markdown(records: Sequence[Record], rows: Sequence[MergedRow]) -> str:
    """Lay the rows out that have a target, then the others, for `docs/performance.md`."""
    lines = [f"- run {n}: {_heading(record.machine)}" for n, record in enumerate(records, 1)]
    for title, wanted in (("Target", True), ("Also measured", False)):
        lines += [
            "",
            f"| {title} | Median | Each run | Lowest – highest | Wanted | | Beside it |",
            "|---|---|---|---|---|---|---|",
        ]
        for row in rows:
            if (row.target is not None) == wanted:
                what, median, runs, extremes, target, met = _cells(row)
                verdict = f"**{met.lower()}**" if met else ""
                extremes = extremes.replace(" .. ", " – ")
                lines.append(
                    f"| {what.replace(' x ', ' × ')} | {median} | {runs} | {extremes} | {target} | "
                    f"{verdict} | {row.note} |"
                )
    warnings = [
        f"- run {n}: {warning}"
        for n, record in enumerate(records, 1)
        for warning in [*record.warnings, *record.failures]
    ]
    return "\n".join([*lines, *(["", *warnings] if warnings else []), ""])


def _merge(same: Sequence[Row]) -> MergedRow:
    middle = sorted(same, key=lambda row: row.value.median)[len(same) // 2]
    return MergedRow(
        what=middle.what,
        runs=[row.value.median for row in same],
        extremes=Spread(
            middle.value.median,
            min(row.value.low for row in same),
            max(row.value.high for row in same),
        ),
        unit=middle.unit,
        target=middle.target,
        at_most=middle.at_most,
        note=middle.note,
    )


def _cells(row: MergedRow) -> tuple[str, str, str, str, str, str]:
    bound = "" if row.target is None else f"{'<=' if row.at_most else '>='} {number(row.target)}"
    return (
        row.what,
        f"{number(row.value)} {row.unit}",
        ", ".join(map(number, row.runs)),
        f"{number(row.extremes.low)} .. {number(row.extremes.high)}",
        f"{bound} {row.unit}" if bound else "",
        {True: "met", False: "MISSED", None: ""}[row.met],
    )


def _heading(machine: Machine) -> str:
    return (
        f"{machine.date}, {machine.processor}, {machine.cores} cores, Linux {machine.kernel}, "
        f"Python {machine.python}, SQLite {machine.sqlite} on {machine.file_system}, "
        f"load average before {machine.load_average:.2f}"
    )
