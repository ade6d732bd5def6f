"""What grew with what, as plots and tables."""

import itertools
import math
from collections.abc import Sequence

import msgspec

from bench.chart import Axis, Series, document, panel
from bench.fill import FillResult
from bench.growth_axes import Cost, Growth
from bench.load import LoadResult
from bench.record import Machine, spread
from bench.report import number

__all__ = ["GrowthRecord", "growth_plot", "growth_table"]

_GREEN, _GREY = "#0b6e4f", "#8a8f98"
_COLOURS = ("#0b6e4f", "#8a5a00", "#4053a8", "#a83a5c", "#5c7a00", "#555b63")


class GrowthRecord(msgspec.Struct, kw_only=True):
    """All of one run."""

    machine: Machine
    rate_per_s: float
    axes: list[Growth] = []
    fills: list[FillResult] = []
    """What filling the largest database took, step by step."""
    warnings: list[str] = []


def growth_plot(record: GrowthRecord) -> str:
    """Draw throughput, latencies and processor time against each size, as an SVG document."""
    panels = []
    for growth in record.axes:
        x = Axis(label=growth.what, scale="log", zero_at=_below(growth.costs))
        panels += [
            panel(
                f"Throughput, {growth.loop} under way each",
                _throughput(growth),
                x,
                Axis(label="messages a second"),
            ),
            panel(
                f"Latency against {growth.what}",
                _latencies(growth),
                x,
                Axis(label="latency", scale="log", unit="ms"),
            ),
            panel(
                "Processor time of a message, at full throughput",
                [
                    Series(
                        points=[(float(cost.size), _cpu_us(cost.duet)) for cost in growth.costs],
                        colour=_GREEN,
                        label="Duet's gateway",
                    )
                ],
                x,
                Axis(label="processor time", unit="us"),
            ),
        ]
    return document("Throughput, latency and cost against size", panels, columns=3)


def growth_table(record: GrowthRecord) -> str:
    """Lay everything out as Markdown; it reads well on a terminal too."""
    machine = record.machine
    lines = [
        f"{machine.date}, {machine.processor}, Python {machine.python}, SQLite {machine.sqlite}, "
        f"load average before {machine.load_average:.2f}; latency at {record.rate_per_s:,.0f} "
        "msg/s of 50 pairs"
    ]
    for growth in record.axes:
        also = list(growth.costs[0].also_ms) if growth.costs else []
        lines += [
            "",
            f"| {growth.what} | {growth.loop} | x relay | processor, us a message | ack p50, ms "
            f"| ack p99, ms |{''.join(f' {name}, ms |' for name in also)}",
            "|---" * (6 + len(also)) + "|",
            *(_line(cost, also) for cost in growth.costs),
            "",
            _verdict(growth),
        ]
    lines += ["", *map(_filled, record.fills), *(f"WARNING: {w}" for w in record.warnings)]
    return "\n".join([*lines, ""])


def _throughput(growth: Growth) -> list[Series]:
    relay = [(float(cost.size), _rate(cost.relay)) for cost in growth.costs if cost.relay]
    series = [
        Series(
            points=[(float(cost.size), _rate(cost.duet)) for cost in growth.costs],
            colour=_GREEN,
            label="Duet, every message on disk",
        )
    ]
    if relay:
        series.append(Series(points=relay, colour=_GREY, label="bare relay, nothing stored"))
    return series


def _latencies(growth: Growth) -> list[Series]:
    named: dict[str, list[tuple[float, float]]] = {}
    for cost in growth.costs:
        latencies_ms = {
            "ack p50": cost.steady.ack.p50_us / 1000,
            "ack p99": cost.steady.ack.p99_us / 1000,
            **cost.also_ms,
        }
        for name, ms in latencies_ms.items():
            named.setdefault(name, []).append((float(cost.size), ms))
    return [
        Series(points=points, colour=colour, label=name, dashed="p50" in name)
        for (name, points), colour in zip(named.items(), _COLOURS * 2, strict=False)
    ]


def _line(cost: Cost, also: Sequence[str]) -> str:
    ratio = f"{_rate(cost.duet) / _rate(cost.relay):.2f}" if cost.relay else ""
    cells = [
        f"{cost.size:,}",
        f"{_rate(cost.duet):,.0f} msg/s",
        ratio,
        f"{_cpu_us(cost.duet):.1f}",
        number(cost.steady.ack.p50_us / 1000),
        number(cost.steady.ack.p99_us / 1000),
        *(number(cost.also_ms[name]) for name in also),
    ]
    return f"| {' | '.join(cells)} |"


def _verdict(growth: Growth) -> str:
    """Say by how much the processor time of a message grows, all along and with each factor of
    ten: logarithmic growth adds the same each time."""
    costs = [(max(1.0, float(cost.size)), _cpu_us(cost.duet)) for cost in growth.costs]
    if len(costs) < 2:
        return ""
    (_, first_us), (_, last_us) = costs[0], costs[-1]
    a_decade = [
        (later_us - earlier_us) / first_us / math.log10(larger / smaller)
        for (smaller, earlier_us), (larger, later_us) in itertools.pairwise(costs)
    ]
    return (
        f"Processor time of a message: {last_us / first_us - 1:+.0%} from the smallest size to the "
        f"largest; for each ten times as much {', '.join(f'{share:+.0%}' for share in a_decade)}."
    )


def _filled(step: FillResult) -> str:
    return (
        f"Filling up to {step.messages:,} messages: {step.written:,} in {step.append_s:,.0f} s "
        f"({step.written / step.append_s:,.0f}/s), indexed for search in {step.index_s:,.0f} s; "
        f"{step.file_bytes / 1e9:.2f} GB, {step.file_bytes / step.messages:,.0f} bytes a message."
    )


def _rate(results: Sequence[LoadResult]) -> float:
    return spread(result.messages_per_s for result in results).median


def _cpu_us(results: Sequence[LoadResult]) -> float:
    return spread(r.cpu.server / r.messages_per_s * 1e6 for r in results).median


def _below(costs: Sequence[Cost]) -> float | None:
    """Where to show size zero, if there is one: ten times below the smallest other."""
    sizes = [cost.size for cost in costs]
    return min(filter(None, sizes), default=10) / 10 if 0 in sizes else None
