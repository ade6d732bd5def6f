"""How often cores that have nothing else to do stand still: nothing on them can answer meanwhile.

What takes them away is the kernel's own threads or, on a virtual machine, the host. A latency near
these gaps is the machine's, not the server's. All cores of a run are kept busy at once, as they are
then: what disturbs one would else find another that is free.
"""

import concurrent.futures
import os
import sys
import time

import msgspec

from bench.tool import main

__all__ = ["GapsPlan", "GapsResult"]

_GAP_NS = 1_000_000


class GapsPlan(msgspec.Struct, frozen=True, kw_only=True):
    """One measurement: look at the clock for so long, without pause."""

    cores: list[int]
    measured_s: float = 3.0


class GapsResult(msgspec.Struct, frozen=True, kw_only=True):
    """Gaps of a millisecond or more between two looks, on one core."""

    longest_ms: float
    """The longest of all gaps, however short."""
    lost_ms_per_s: float
    """What they take together."""
    gaps_per_s: float


async def _measure(plan: GapsPlan) -> list[GapsResult]:
    with concurrent.futures.ProcessPoolExecutor(len(plan.cores)) as pool:
        watched = [pool.submit(_watch, core, plan.measured_s) for core in plan.cores]
        return [one.result() for one in watched]


def _watch(core: int, measured_s: float) -> GapsResult:
    os.sched_setaffinity(0, {core})
    gaps_ns: list[int] = []
    longest_ns = 0
    started_ns = earlier_ns = time.perf_counter_ns()
    end_ns = started_ns + int(measured_s * 1e9)
    while earlier_ns < end_ns:
        now_ns = time.perf_counter_ns()
        gap_ns, earlier_ns = now_ns - earlier_ns, now_ns
        longest_ns = max(longest_ns, gap_ns)
        if gap_ns >= _GAP_NS:
            gaps_ns.append(gap_ns)
    elapsed_s = (earlier_ns - started_ns) / 1e9
    return GapsResult(
        longest_ms=longest_ns / 1e6,
        lost_ms_per_s=sum(gaps_ns) / 1e6 / elapsed_s,
        gaps_per_s=len(gaps_ns) / elapsed_s,
    )


if __name__ == "__main__":
    sys.exit(main(GapsPlan, _measure))
