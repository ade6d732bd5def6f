"""Try every fault and print the table: `python -m tests.faults --long`, or `--short`.

Exit status: 0 when nothing failed, 1 otherwise. docs/reliability.md shows the last long run.
"""

import argparse
import asyncio
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping
from pathlib import Path

from tests.faults.catalogue import FAULTS
from tests.faults.figures import Fault, Figure, Plan, table


async def main(program: str = "tests.faults", faults: Mapping[str, Fault] = FAULTS) -> int:
    """Run what the command line names."""
    options = _options(program, list(faults))
    names = options.only or list(faults)
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory(prefix="duet-faults-", dir=options.directory) as directory:
        for name in names:
            started = time.monotonic()
            try:
                found = await faults[name](Plan(Path(directory), long=options.long))
            except Exception as error:
                _say(traceback.format_exc())
                found = [Figure(fault=name, tries=0, counted=repr(error), passed=False)]
            figures += found
            for figure in found:
                _say(f"{figure.verdict:7} {name}: {figure.skipped or figure.counted}")
            _say(f"        {time.monotonic() - started:.0f} s")
    _say("\n" + table(figures))
    return 1 if any(figure.verdict == "FAIL" for figure in figures) else 0


def _options(program: str, names: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=f"python -m {program}", description=__doc__)
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--short", dest="long", action="store_false", help="few tries (the default)")
    size.add_argument("--long", dest="long", action="store_true", help="the counts of the table")
    parser.set_defaults(long=False)
    parser.add_argument("--only", action="append", choices=names, metavar="NAME")
    parser.add_argument("--directory", type=Path, help="where databases are made; on a disk")
    return parser.parse_args()


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
