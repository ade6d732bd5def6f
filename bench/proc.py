"""What the kernel says and does: processor time, memory, cores (proc(5)), files in memory."""

import os
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

__all__ = [
    "CpuMeter",
    "CpuShares",
    "cpu_s",
    "file_system",
    "forget_files",
    "pin",
    "read_files",
    "rss_bytes",
]

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_SCHEDULER_CLOCK = 2
_READ_BYTES = 1 << 20


class CpuShares(msgspec.Struct, frozen=True):
    """Who used the processor during a measurement, in cores."""

    generator: float
    server: float
    others: float
    """Everybody but the generator, the server and its companions: what disturbed the measurement,
    on all cores together."""


class CpuMeter:
    """Measures shares from its making to `shares`, for the process that makes it as generator."""

    def __init__(self, server_pid: int, companions: Sequence[int] = ()) -> None:
        self._server_pid = server_pid
        self._companions = companions
        self._before = self._read()

    def shares(self) -> CpuShares:
        """Return what was used since."""
        elapsed_s, generator_s, server_s, companions_s, busy_s = (
            after - before for before, after in zip(self._before, self._read(), strict=True)
        )
        others_s = busy_s - generator_s - server_s - companions_s
        return CpuShares(
            generator_s / elapsed_s, server_s / elapsed_s, max(0.0, others_s) / elapsed_s
        )

    def _read(self) -> tuple[float, ...]:
        return (
            time.monotonic(),
            time.process_time(),
            cpu_s(self._server_pid),
            sum(map(cpu_s, self._companions)),
            _busy_s(),
        )


def cpu_s(pid: int) -> float:
    """Processor seconds of all threads of a process, by its own clock (clock_getcpuclockid(3))."""
    return time.clock_gettime(~pid << 3 | _SCHEDULER_CLOCK)


def _busy_s() -> float:
    """Seconds that all cores together were not idle, stolen time included."""
    user, nice, system, _idle, _iowait, *rest = map(
        int, Path("/proc/stat").read_text().splitlines()[0].split()[1:9]
    )
    return (user + nice + system + sum(rest)) / _TICKS_PER_S


def rss_bytes(pid: int) -> int:
    """Resident memory of a process."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Rss:"):
            return int(line.split()[1]) * 1024
    raise ValueError(f"no Rss in /proc/{pid}/smaps_rollup")


def pin(pid: int, core: int) -> None:
    """Move every thread of a running process to a core."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(task.name), {core})


def file_system(path: Path) -> str:
    """The type of the file system that holds a path: on tmpfs, durable writes cost nothing."""
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    holding = [m for m in mounts if path.resolve().is_relative_to(m[1])]
    return max(holding, key=lambda mount: len(mount[1]))[2]


def forget_files(directory: Path) -> None:
    """Have the kernel drop what it holds in memory of the files in a directory."""
    for path in _files(directory):
        with path.open("rb") as file:
            os.fsync(file.fileno())  # only what is written can be dropped
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def read_files(directory: Path) -> None:
    """Have the kernel hold the files in a directory in memory, as it does once they are used."""
    for path in _files(directory):
        with path.open("rb") as file:
            while file.read(_READ_BYTES):
                pass


def _files(directory: Path) -> list[Path]:
    return [path for path in directory.iterdir() if path.is_file()]
