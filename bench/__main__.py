"""`python -m bench`: Duet beside a bare relay, and every target that can be measured.

Linux, with two cores: the server on the first, the load generator on the second. Other commands,
each with a `--help` of its own: `targets` (three runs, one table), `report` (that table from
runs that are over), `growth` (cost against size), `soak` (memory over time), `scale` (several
gateways on PostgreSQL and NATS).
"""

import argparse
import sys
import tempfile
from pathlib import Path

import msgspec

from bench import growth, plot, report, scale, soak, targets
from bench.machine import allow_many_files
from bench.measure import QUICK_SCENARIOS, SCENARIOS, measure
from bench.record import Record
from bench.stage import Options

__all__ = ["main"]

COMMANDS = {
    "growth": growth.main,
    "report": targets.report_main,
    "scale": scale.main,
    "soak": soak.main,
    "targets": targets.main,
}
RESULTS = Path(__file__).parent / "results"

_QUICK_S = 150
"""After so long, a quick run begins no other measurement: on a busy machine each takes longer."""


def main(arguments: list[str]) -> int:
    """Measure and report. Returns 0, or 1 when something failed; missed targets are no failure."""
    allow_many_files()
    if arguments[:1] and arguments[0] in COMMANDS:
        return COMMANDS[arguments[0]](arguments[1:], RESULTS)
    asked = _parser().parse_args(arguments)
    is_quick = asked.mode == "quick"
    only = asked.only or (QUICK_SCENARIOS if is_quick else SCENARIOS)
    record = measure(_options(asked, is_quick), only, _QUICK_S if is_quick else None)
    print(report.table(record))
    _write(record, Path(asked.results))
    return 1 if record.failures else 0


def _write(record: Record, results: Path) -> None:
    results.mkdir(parents=True, exist_ok=True)
    (results / "bench.json").write_bytes(msgspec.json.format(msgspec.json.encode(record)))
    print(f"Details: {results / 'bench.json'}")
    if record.points:
        (results / "latency.svg").write_text(plot.latency_plot(record.points))
        print(f"Plot: {results / 'latency.svg'}")


def _options(asked: argparse.Namespace, is_quick: bool) -> Options:
    directory = Path(asked.directory)
    if is_quick:
        return Options(
            directory=directory,
            repetitions=asked.repetitions or 3,
            warm_up_s=0.7,
            measured_s=2.0,
            shares_of_peak=(0.25, 0.5, 0.75),
            connections=1_000,
            missed_messages=10_000,
            history_messages=50_000,
            history_pages=500,
            repeats_when_disturbed=6,
            patience_s=20 if asked.patience is None else asked.patience,
            client_ids=asked.client_ids,
        )
    return Options(
        directory=directory,
        repetitions=asked.repetitions or 5,
        warm_up_s=1.0,
        measured_s=5.0,
        shares_of_peak=(0.1, 0.25, 0.5, 0.6, 0.7, 0.8, 0.9),
        connections=10_000,
        missed_messages=10_000,
        history_messages=1_000_000,
        history_pages=3_000,
        filled=targets.filled_in(directory),
        repeats_when_disturbed=30,
        patience_s=300 if asked.patience is None else asked.patience,
        client_ids=asked.client_ids,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("mode", nargs="?", choices=("quick", "full"), default="quick")
    parser.add_argument("--only", nargs="+", choices=SCENARIOS, help="some of the measurements")
    parser.add_argument("--repetitions", type=int, help="3 (quick) or 5 (full)")
    parser.add_argument(
        "--patience",
        type=float,
        metavar="SECONDS",
        help="how long to wait, in all, for a quiet machine: 20 (quick) or 300 (full)",
    )
    parser.add_argument(
        "--client-ids", choices=("uuid7", "uuid4"), default="uuid7", help="how messages are named"
    )
    parser.add_argument(
        "--directory", default=tempfile.gettempdir(), help="where databases are made: on a disk"
    )
    parser.add_argument("--results", default=RESULTS, help="where bench.json and the plot go")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
