"""`python -m bench`: Duet beside a bare relay, and every target that can be measured so far.

Linux, with two cores: the server on the first, the load generator on the second.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import httpx
import msgspec

from bench import message_scenarios, plot, report, service_scenarios, soak
from bench.machine import allow_many_files, machine
from bench.record import Record
from bench.stage import Options, stage

__all__ = ["main"]

ON_STAGE = {
    "connects": service_scenarios.connects,
    "throughput": message_scenarios.throughput,
    "latency": message_scenarios.latency,
    "past": message_scenarios.past,
    "profile": service_scenarios.profile,
}
SCENARIOS = ("start", *ON_STAGE)
COMMANDS = {"soak": soak.main}
RESULTS = Path(__file__).parent / "results"

_QUICK_S = 150
"""After so long, a quick run begins no other measurement: on a busy machine each takes longer."""


def main() -> int:
    """Measure and report. Returns 0, or 1 when something failed; missed targets are no failure."""
    allow_many_files()
    if sys.argv[1:2] and sys.argv[1] in COMMANDS:
        return COMMANDS[sys.argv[1]](sys.argv[2:], RESULTS)
    arguments = _parser().parse_args()
    directory = Path(arguments.directory)
    record = Record(machine=machine(directory))
    if record.machine.file_system == "tmpfs":
        record.warnings.append("databases are on tmpfs: durable writes cost nothing here")
    options = _options(arguments, directory)
    started, failed = time.monotonic(), False
    try:
        if "start" in arguments.only:
            service_scenarios.start(options, record)
        wanted = [name for name in ON_STAGE if name in arguments.only]
        if wanted:
            with stage(options, record) as on:
                for name in wanted:
                    if arguments.mode == "quick" and time.monotonic() - started > _QUICK_S:
                        record.warnings.append(f"a quick run has no time left for: {name}")
                    else:
                        ON_STAGE[name](on, options, record)
    except (RuntimeError, httpx.HTTPError) as error:
        record.warnings.append(f"stopped early: {error}")
        failed = True
    print(report.table(record))
    _write(record, Path(arguments.results))
    return 1 if failed else 0


def _write(record: Record, results: Path) -> None:
    results.mkdir(parents=True, exist_ok=True)
    (results / "bench.json").write_bytes(msgspec.json.format(msgspec.json.encode(record)))
    print(f"Details: {results / 'bench.json'}")
    if record.points:
        (results / "latency.svg").write_text(plot.latency_plot(record.points))
        print(f"Plot: {results / 'latency.svg'}")


def _options(arguments: argparse.Namespace, directory: Path) -> Options:
    if arguments.mode == "quick":
        return Options(
            directory=directory,
            repetitions=arguments.repetitions or 3,
            warm_up_s=0.7,
            measured_s=2.0,
            shares_of_peak=(0.25, 0.5, 0.75),
            connections=1_000,
            missed_messages=10_000,
            history_messages=50_000,
            history_pages=500,
            repeats_when_disturbed=6,
            patience_s=20 if arguments.patience is None else arguments.patience,
            client_ids=arguments.client_ids,
        )
    return Options(
        directory=directory,
        repetitions=arguments.repetitions or 5,
        warm_up_s=1.0,
        measured_s=5.0,
        shares_of_peak=(0.1, 0.25, 0.5, 0.6, 0.7, 0.8, 0.9),
        connections=10_000,
        missed_messages=10_000,
        history_messages=1_000_000,
        history_pages=3_000,
        repeats_when_disturbed=30,
        patience_s=300 if arguments.patience is None else arguments.patience,
        client_ids=arguments.client_ids,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("mode", nargs="?", choices=("quick", "full"), default="quick")
    parser.add_argument(
        "--only", nargs="+", choices=SCENARIOS, default=SCENARIOS, help="some of the measurements"
    )
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
    sys.exit(main())
