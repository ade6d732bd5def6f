"""`python -m bench targets`: every target, three runs one after the other, one table.

Some 10 minutes on a quiet machine. What needs ten million messages stored uses a database that is
kept; when it is not there yet, it is made first, which takes another 10 minutes.
"""

import argparse
import tempfile
from pathlib import Path

import msgspec

from bench import merge, plot, report
from bench.filled import data_directory
from bench.measure import SCENARIOS, measure
from bench.record import Record
from bench.stage import Options, say

__all__ = ["filled_in", "main", "report_main"]


def filled_in(directory: Path) -> Path:
    """Where databases are kept that hold many messages."""
    return directory / "duet-bench-filled"


def main(arguments: list[str], results: Path) -> int:
    """Run, and report. Returns 0, or 1 when something failed; missed targets are no failure."""
    asked = _parser(results).parse_args(arguments)
    results = Path(asked.results)
    options = _options(Path(asked.directory), asked.patience)
    if options.filled is not None and "filled" in asked.only:
        for messages in (100_000, 1_000_000, options.stored_messages):
            data_directory(options.filled, messages)
    records, only = [], set(asked.only)
    for run in range(1, asked.runs + 1):
        say(f"run {run} of {asked.runs}")
        record = measure(options, only)
        # What has no target is measured once.
        options, only = msgspec.structs.replace(options, shares_of_peak=(0.5,)), only - {"memory"}
        print(report.table(record))
        results.mkdir(parents=True, exist_ok=True)
        kept = results / f"targets-{run}.json"
        kept.write_bytes(msgspec.json.format(msgspec.json.encode(record)))
        records.append(record)
    _report(records, results)
    return 1 if any(record.failures for record in records) else 0


def report_main(arguments: list[str], results: Path) -> int:
    """Merge runs that are over. Returns 0."""
    parser = argparse.ArgumentParser(
        prog="python -m bench report", description="Merge runs into one table."
    )
    parser.add_argument("runs", nargs="+", type=Path, help="their JSON files")
    parser.add_argument("--results", default=results, help="where targets.md and the plot go")
    asked = parser.parse_args(arguments)
    records = [msgspec.json.decode(path.read_bytes(), type=Record) for path in asked.runs]
    _report(records, Path(asked.results))
    return 0


def _report(records: list[Record], results: Path) -> None:
    rows = merge.merged(records)
    rows += merge.peer_rows(rows)
    results.mkdir(parents=True, exist_ok=True)
    (results / "targets.md").write_text(merge.markdown(records, rows))
    print(merge.plain(records, rows))
    print(f"As Markdown: {results / 'targets.md'}")
    points = next((record.points for record in records if record.points), [])
    if points:
        (results / "latency.svg").write_text(plot.latency_plot(points))
        print(f"Plot, of the first run: {results / 'latency.svg'}")


def _options(directory: Path, patience_s: float) -> Options:
    return Options(
        directory=directory,
        repetitions=3,
        warm_up_s=0.7,
        measured_s=2.0,
        shares_of_peak=(0.1, 0.25, 0.5, 0.65, 0.8),
        connections=10_000,
        missed_messages=10_000,
        history_messages=1_000_000,
        history_pages=3_000,
        filled=filled_in(directory),
        repeats_when_disturbed=10,
        patience_s=patience_s,
    )


def _parser(results: Path) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench targets", description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument(
        "--only", nargs="+", choices=SCENARIOS, default=SCENARIOS, help="some of the measurements"
    )
    parser.add_argument(
        "--patience",
        type=float,
        default=30,
        metavar="SECONDS",
        help="how long each run waits, in all, for a quiet machine",
    )
    parser.add_argument(
        "--directory", default=tempfile.gettempdir(), help="where databases are made: on a disk"
    )
    parser.add_argument("--results", default=results, help="where the runs and the table go")
    return parser
