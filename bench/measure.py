"""One run: measures what was asked for, on servers that it starts and stops."""

import contextlib
import time
from collections.abc import Collection, Iterator

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
_APART = {"filled": message_scenarios.filled, "memory": service_scenarios.memory}
QUICK_SCENARIOS = ("start", *_ON_STAGE)
SCENARIOS = (*QUICK_SCENARIOS, *_APART)


def measure(options: Options, only: Collection[str], within_s: float | None = None) -> Record:
    """Measure some of `SCENARIOS`; with `within_s`, begin no other after so long.

    What fails is among the record's `failures`, and the rest is measured all the same.
    """
    record = Record(machine=machine(options.directory))
    if record.machine.file_system == "tmpfs":
        record.warnings.append("databases are on tmpfs: durable writes cost nothing here")
    started = time.monotonic()
    if "start" in only:
        with _noting_failure("start", record):
            service_scenarios.start(options, record)
    wanted = [name for name in _ON_STAGE if name in only]
    if wanted:
        with _noting_failure("services", record), stage(options, record, options.directory) as on:
            for name in wanted:
                if within_s is not None and time.monotonic() - started > within_s:
                    record.warnings.append(f"a quick run has no time left for: {name}")
                    continue
                with _noting_failure(name, record):
                    _ON_STAGE[name](on, options, record)
    for name, scenario in _APART.items():
        if name in only:
            with _noting_failure(name, record):
                scenario(options, record)
    return record


@contextlib.contextmanager
def _noting_failure(name: str, record: Record) -> Iterator[None]:
    try:
        yield
    except (RuntimeError, httpx.HTTPError) as error:
        record.failures.append(f"{name}: {error}")
