"""`python -m bench growth`: throughput and latency against size: messages stored (to ten million),
connections (to 10,000), conversations of a person (to 100,000), bytes of a message (to 4,000).

Some 8 minutes, and 10 more the first time, to fill the databases that are kept.
"""

import argparse
import tempfile
from pathlib import Path

import httpx
import msgspec

from bench.filled import data_directory
from bench.growth_axes import AXES, Sizes
from bench.growth_report import GrowthRecord, growth_plot, growth_table
from bench.machine import machine
from bench.record import Record
from bench.stage import Pace
from bench.targets import filled_in

__all__ = ["main"]


def main(arguments: list[str], results: Path) -> int:
    """Measure and report. Returns 0, or 1 when something failed."""
    asked = _parser(results).parse_args(arguments)
    directory, results = Path(asked.directory), Path(asked.results)
    sizes = Sizes(rate_per_s=asked.rate, filled=filled_in(directory), directory=directory)
    pace = Pace(
        repetitions=asked.repetitions,
        warm_up_s=0.7,
        measured_s=2.0,
        repeats_when_disturbed=10,
        patience_s=asked.patience,
    )
    record = GrowthRecord(machine=machine(directory), rate_per_s=asked.rate)
    beside = Record(machine=record.machine)
    failed = False
    try:
        if {"stored", "conversations"} & set(asked.only):
            for messages in filter(None, sizes.stored_messages):
                _, made = data_directory(sizes.filled, messages)
                record.fills = made.steps
        for name in asked.only:
            record.axes.append(AXES[name](pace, sizes, beside))
    except (RuntimeError, httpx.HTTPError) as error:
        beside.warnings.append(f"stopped early: {error}")
        failed = True
    record.warnings = beside.warnings
    _write(record, results)
    return 1 if failed else 0


def _write(record: GrowthRecord, results: Path) -> None:
    results.mkdir(parents=True, exist_ok=True)
    (results / "growth.json").write_bytes(msgspec.json.format(msgspec.json.encode(record)))
    (results / "growth.svg").write_text(growth_plot(record))
    (results / "growth.md").write_text(growth_table(record))
    print(growth_table(record))
    print(f"Details: {results / 'growth.json'}, growth.md, growth.svg")


def _parser(results: Path) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench growth", description=__doc__)
    parser.add_argument(
        "--only", nargs="+", choices=[*AXES], default=[*AXES], help="some of the sizes"
    )
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument(
        "--rate", type=float, default=5000, help="messages a second at which latency is taken"
    )
    parser.add_argument("--patience", type=float, default=60, metavar="SECONDS")
    parser.add_argument(
        "--directory", default=tempfile.gettempdir(), help="where databases are made: on a disk"
    )
    parser.add_argument("--results", default=results, help="where growth.json and the plot go")
    return parser
