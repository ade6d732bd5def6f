"""What a fault run measures and prints: one figure a fault, one table for all."""

import math
import textwrap
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TypeAlias

import msgspec

__all__ = ["Fault", "Figure", "Plan", "percentile", "table"]


class Plan(msgspec.Struct, frozen=True):
    """How much to do, and where state may be written."""

    directory: Path
    long: bool = False

    def of(self, short: int, long: int) -> int:
        """Choose a count."""
        return long if self.long else short


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one fault."""

    fault: str
    tries: int
    counted: str
    passed: bool
    skipped: str | None = None
    """Why this was not tried here; such a figure has neither passed nor failed."""

    @property
    def verdict(self) -> str:
        """The last column."""
        if self.skipped is not None:
            return "skipped"
        return "pass" if self.passed else "FAIL"


Fault: TypeAlias = Callable[[Plan], Awaitable[list[Figure]]]


def percentile(values: Sequence[float], share: float) -> float:
    """The value that `share` of all are at most."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def table(figures: Sequence[Figure], width: int = 72) -> str:
    """Print figures below each other, as Markdown that reads well in a terminal too."""
    lines = ["| fault | tries | what was counted | pass |", "|---|---:|---|---|"]
    for figure in figures:
        counted = figure.counted if figure.skipped is None else figure.skipped
        shown = textwrap.shorten(counted, 10 * width)
        lines.append(f"| {figure.fault} | {figure.tries} | {shown} | {figure.verdict} |")
    return "\n".join(lines)
