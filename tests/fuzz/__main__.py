"""Fuzz a target, guided by coverage: `python -m tests.fuzz session --executions 1000000`.

Needs `atheris` (a wheel for Linux; `make fuzz` installs it). An input that breaks the target is
printed and written to a file `crash-…` in the current directory; libFuzzer's memory limit of 2 GB
and its limit of 10 s for one input stand. `http` writes to a database: with TMPDIR=/dev/shm a sync
costs nothing, and it runs several times as fast.
"""

import argparse
import importlib
import re
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_LIMITS = ("-max_len=8192", "-timeout=10", "-rss_limit_mb=2048", "-print_final_stats=1")


def main() -> None:
    """Run libFuzzer, which ends the process."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("target", choices=["session", "http"])
    parser.add_argument("--executions", type=int, default=100_000)
    options = parser.parse_args()
    atheris: Any = importlib.import_module("atheris")
    with atheris.instrument_imports(include=["ws_gateway", "profile_service", "shared"]):
        targets = importlib.import_module("tests.fuzz.targets")
    corpus, words = Path(tempfile.mkdtemp(prefix="duet-fuzz-")), tempfile.mkstemp()[1]
    seeds = list(targets.seeds(options.target))
    for number, seed in enumerate(seeds):
        (corpus / f"seed-{number}").write_bytes(seed)
    Path(words).write_text(_dictionary(seeds))
    atheris.Setup(
        [sys.argv[0], *_LIMITS, f"-runs={options.executions}", f"-dict={words}", str(corpus)],
        targets.TARGETS[options.target](),
    )
    atheris.Fuzz()


def _dictionary(seeds: Sequence[bytes]) -> str:
    """What the seeds are made of, in libFuzzer's notation: spliced in, it leaves JSON behind."""
    found = {word for seed in seeds for word in re.findall(rb'"[^"]*"|true|null|[][{}]', seed)}
    return "".join(f'"{_escaped(word.decode())}"\n' for word in sorted(found))


def _escaped(word: str) -> str:
    return word.replace("\\", "\\\\").replace('"', '\\"')


if __name__ == "__main__":
    main()
