"""What a load through a fault comes to, one row of the table."""

import time
from collections.abc import Sequence

from tests.faults.figures import Figure
from tests.faults.load import Load
from tests.scale.cluster import Cluster

__all__ = ["LIVE_WITHIN_S", "judge", "live_again"]

LIVE_WITHIN_S = 10.0
SETTLED_WITHIN_S = 60.0
"""Longer than a gateway takes to notice by itself what the bus has lost."""


async def live_again(load: Load, moment: float | None = None) -> float:
    """Wait until everybody had an ack and a message after a moment, by default now.

    Returns the seconds that took.
    """
    moment = time.monotonic() if moment is None else moment
    acknowledged_s = await load.everybody_acknowledged_since(moment, within_s=SETTLED_WITHIN_S)
    return max(acknowledged_s, await load.everybody_heard_since(moment, SETTLED_WITHIN_S))


async def judge(
    fault: str,
    tries: int,
    cluster: Cluster,
    load: Load,
    back_s: Sequence[float],
    *notes: str,
    also: bool = True,
) -> Figure:
    """Stop the load, and compare what its clients saw with what PostgreSQL holds.

    `also` is what else must hold for the fault to pass.
    """
    await load.settle(within_s=SETTLED_WITHIN_S)
    books = load.compare(*await cluster.stored())
    tracebacks = cluster.tracebacks()
    errors = sorted({error for member in load.members for error in member.errors})
    counted = [
        str(books),
        f"indexes {books.integrity}",
        f"everybody talks again after at most {max(back_s):.1f} s",
        *([f"errors, each retried: {', '.join(errors)}"] if errors else []),
        *([f"{tracebacks} tracebacks"] if tracebacks else []),
        *notes,
    ]
    return Figure(
        fault=fault,
        tries=tries,
        counted="; ".join(counted),
        passed=books.are_good and max(back_s) < LIVE_WITHIN_S and not tracebacks and also,
    )
