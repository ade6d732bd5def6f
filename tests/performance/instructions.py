"""Counts the instructions that a message costs on the hot path, by valgrind.

The difference between a long run and a short one: neither the start of Python nor the machine's
other work is in it, and two counts differ by less than a millionth. Bounds are kept for the builds
of Python and SQLite that they were counted with; with another build, the count is reported only.

    python -m tests.performance.instructions          counts, and compares with the bound
    python -m tests.performance.instructions --set    makes the count the new bound
"""

import concurrent.futures
import os
import platform
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path

import msgspec

__all__ = ["Bounds", "count", "here", "is_countable", "load_bounds"]

BOUNDS = Path(__file__).with_name("instructions.json")

_SHORT, _LONG = 1000, 4000
_TIMEOUT_S = 100.0


class Bounds(msgspec.Struct):
    """What a message may cost, by build."""

    margin: float
    """A count may exceed its bound by such a part of it."""
    instructions_a_message: dict[str, int]

    def limit(self, build: str) -> float | None:
        """The most that a message may cost with this build, when it was ever counted with it."""
        bound = self.instructions_a_message.get(build)
        return None if bound is None else bound * (1 + self.margin)


def is_countable() -> bool:
    """Whether valgrind is there."""
    return shutil.which("valgrind") is not None


def here() -> str:
    """The build that counts depend on."""
    return (
        f"{platform.python_implementation()} {platform.python_version()} of "
        f"{' '.join(platform.python_build())}, {platform.python_compiler()}, "
        f"SQLite {sqlite3.sqlite_version}, {platform.machine()}"
    )


def count() -> int:
    """Count instructions a message.

    Raises:
        RuntimeError: the run failed.
    """
    with (
        tempfile.TemporaryDirectory() as directory,
        concurrent.futures.ThreadPoolExecutor(2) as executor,
    ):
        short, long = executor.map(lambda n: _instructions(Path(directory), n), (_SHORT, _LONG))
    return (long - short) // (_LONG - _SHORT)


def load_bounds() -> Bounds:
    """Read the bounds."""
    return msgspec.json.decode(BOUNDS.read_bytes(), type=Bounds)


def _instructions(directory: Path, messages: int) -> int:
    database = directory / str(messages) / "messages.db"
    _run([], str(database))
    said = _run(
        ["valgrind", "--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"],
        str(database),
        str(messages),
    )
    found = re.search(r"I +refs: +([\d,]+)", said)
    if found is None:
        raise RuntimeError(f"valgrind counted nothing: {said}")
    return int(found[1].replace(",", ""))


def _run(before: list[str], *arguments: str) -> str:
    """Run the hot path. Nothing of the environment may change what it does."""
    finished = subprocess.run(
        [*before, sys.executable, "-m", "tests.performance.hot_path", *arguments],
        env={"PATH": os.environ["PATH"], "PYTHONHASHSEED": "0", "LC_ALL": "C.UTF-8"},
        cwd=Path(__file__).parents[2],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
        check=False,
    )
    if finished.returncode != 0:
        raise RuntimeError(finished.stderr.strip())
    return finished.stderr


def _main() -> int:
    if not is_countable():
        sys.stderr.write("valgrind is not installed (Debian, Ubuntu: apt install valgrind)\n")
        return 1
    bounds, build, counted = load_bounds(), here(), count()
    bound = bounds.instructions_a_message.get(build)
    change = "no bound yet" if bound is None else f"bound {bound:,}: {counted / bound - 1:+.1%}"
    sys.stdout.write(f"{counted:,} instructions a message ({change}; {build})\n")
    if "--set" in sys.argv[1:]:
        bounds.instructions_a_message[build] = counted
        BOUNDS.write_bytes(msgspec.json.format(msgspec.json.encode(bounds)) + b"\n")
    return 0


if __name__ == "__main__":
    sys.exit(_main())
