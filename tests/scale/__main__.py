"""Try every fault across nodes: `python -m tests.scale --long`, or `--short`.

Exit status: 0 when nothing failed, 1 otherwise. docs/scale.md shows the last long run.
"""

import asyncio
import sys

from tests.faults.__main__ import main
from tests.scale.catalogue import FAULTS
from tests.scale.cluster import missing

if __name__ == "__main__":
    if reason := missing():
        sys.exit(reason)
    sys.exit(asyncio.run(main("tests.scale", FAULTS)))
