"""One run: measures what was asked for, on servers that it starts and stops."""

import contextlib
import time
from collections.abc import Callable, Collection, Iterator, Mapping

import httpx

from bench import message_scenarios, service_scenarios
from bench.machine import machine
from bench.record import Record
from bench.stage import Options, stage

__all__ = ["QUICK_SCENARIOS", "SCENARIOS", "measure"]

_ON_STAGE = {
    "connects": service_scenarios.connects,
    "throughput": message_scenarios.throughput,
    "latency": message_scenarios.latency,
    "past": message_scenarios.past,
    "profile": service_scenarios.profile,
}
_FIRST = {"gaps": service_scenarios.gaps, "start": service_scenarios.start}
_LAST = {"filled": message_scenarios.filled, "memory": service_scenarios.memory}
QUICK_SCENARIOS = (*_FIRST, *_ON_STAGE)
SCENARIOS = (*QUICK_SCENARIOS, *_LAST)


def measure(options: Options, only: Collection[str], within_s: float | None = None) -> Record:
    """Measure some of `SCENARIOS`; with `within_s`, begin no other after so long.

    What fails is among the record's `failures`, and the rest is measured all the same.
    """
    record = Record(machine=machine(options.directory))
    if record.machine.file_system == "tmpfs":
        record.warnings.append("databases are on tmpfs: durable writes cost nothing here")
    started = time.monotonic()
    _measure_apart(_FIRST, options, only, record)
    wanted = [name for name in _ON_STAGE if name in only]
    if wanted:
        with _noting_failure("services", record), stage(options, record, options.directory) as on:
            for name in wanted:
                if within_s is not None and time.monotonic() - started > within_s:
                    record.warnings.append(f"a quick run has no time left for: {name}")
                    continue
                with _noting_failure(name, record):
                    _ON_STAGE[name](on, options, record)
    _measure_apart(_LAST, options, only, record)
    return record


def _measure_apart(
    scenarios: Mapping[str, Callable[[Options, Record], None]],
    options: Options,
    only: Collection[str],
    record: Record,
) -> None:
    """Measure what needs no stage, or one of its own."""
    for name, scenario in scenarios.items():
        if name in only:
            with _noting_failure(name, record):
                scenario(options, record)


@contextlib.contextmanager
def _noting_failure(name: str, record: Record) -> Iterator[None]:
    try:
        yield
    except (RuntimeError, httpx.HTTPError) as error:
        record.failures.append(f"{name}: {error}")
