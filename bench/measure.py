"""One run: measures what was asked for, on servers that it starts and stops."""

import time
from collections.abc import Collection

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
QUICK_SCENARIOS = ("start", *_ON_STAGE)
SCENARIOS = (*QUICK_SCENARIOS, "filled", "memory")


def measure(options: Options, only: Collection[str], within_s: float | None = None) -> Record:
    """Measure some of `SCENARIOS`; with `within_s`, begin no other after so long.

    What stops the run early is the record's `failure`.
    """
    record = Record(machine=machine(options.directory))
    if record.machine.file_system == "tmpfs":
        record.warnings.append("databases are on tmpfs: durable writes cost nothing here")
    started = time.monotonic()
    try:
        if "start" in only:
            service_scenarios.start(options, record)
        wanted = [name for name in _ON_STAGE if name in only]
        if wanted:
            with stage(options, record, options.directory) as on:
                for name in wanted:
                    if within_s is not None and time.monotonic() - started > within_s:
                        record.warnings.append(f"a quick run has no time left for: {name}")
                    else:
                        _ON_STAGE[name](on, options, record)
        if "filled" in only:
            message_scenarios.filled(options, record)
        if "memory" in only:
            service_scenarios.memory(options, record)
    except (RuntimeError, httpx.HTTPError) as error:
        record.failure = f"stopped early: {error}"
    return record
