"""What a run was measured on, and what it needs of the machine."""

import datetime
import os
import platform
import resource
import sqlite3
from pathlib import Path

from bench import proc
from bench.record import Machine

__all__ = ["allow_many_files", "machine"]


def machine(directory: Path) -> Machine:
    """Describe this machine, with the disk of `directory`."""
    models = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return Machine(
        date=f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC",
        processor=models[0] if models else platform.machine(),
        cores=os.cpu_count() or 1,
        kernel=platform.release(),
        python=platform.python_version(),
        sqlite=sqlite3.sqlite_version,
        file_system=proc.file_system(directory),
        load_average=os.getloadavg()[0],
    )


def allow_many_files() -> None:
    """Raise the soft limit of open files, which the servers inherit, to the hard one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
