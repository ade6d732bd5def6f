"""Fuzz a target, guided by coverage: `python -m tests.fuzz session --executions 1000000`.

Needs `atheris` (a wheel for Linux; `make fuzz` installs it). An input that breaks the target is
printed and written to a file `crash-…` in the current directory; libFuzzer's memory limit of 2 GB
and its limit of 10 s for one input stand.
"""

import argparse
import importlib
import sys
import tempfile
from pathlib import Path
from typing import Any


def main() -> None:
    """Run libFuzzer, which ends the process."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("target", choices=["session", "http"])
    parser.add_argument("--executions", type=int, default=100_000)
    options = parser.parse_args()
    atheris: Any = importlib.import_module("atheris")
    with atheris.instrument_imports(include=["ws_gateway", "profile_service", "shared"]):
        targets = importlib.import_module("tests.fuzz.targets")
    corpus = Path(tempfile.mkdtemp(prefix="duet-fuzz-"))
    for number, seed in enumerate(targets.seeds(options.target)):
        (corpus / f"seed-{number}").write_bytes(seed)
    limits = [f"-runs={options.executions}", "-max_len=8192", "-timeout=10", "-rss_limit_mb=2048"]
    atheris.Setup(
        [sys.argv[0], *limits, "-print_final_stats=1", str(corpus)],
        targets.TARGETS[options.target](),
    )
    atheris.Fuzz()


if __name__ == "__main__":
    main()
