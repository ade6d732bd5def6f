"""Latency against throughput, as SVG without a library."""

import math
from collections.abc import Sequence

from bench.record import Point

__all__ = ["latency_plot"]

_WIDTH, _HEIGHT = 760, 460
_LEFT, _RIGHT, _TOP, _BOTTOM = 78, 34, 52, 56
_SERIES = (
    ("duet", "Duet, every message on disk", "#0b6e4f"),
    ("relay", "bare relay, nothing stored", "#8a8f98"),
)
_STYLE = "font-family='system-ui, sans-serif' fill='#22272e'"


def latency_plot(points: Sequence[Point]) -> str:
    """Draw p50 (solid) and p99 (dashed) of the ack over the rate, latency on a log scale.

    Returns an SVG document. Without points it is empty but for its axes.
    """
    max_rate = _ceiling(max((p.rate_per_s for p in points), default=1.0))
    latencies_ms = [
        ms for p in points for ms in (p.result.ack.p50_us / 1e3, p.result.ack.p99_us / 1e3)
    ]
    low = math.floor(math.log10(min(latencies_ms, default=0.1)))
    high = max(low + 1, math.ceil(math.log10(max(latencies_ms, default=10.0))))

    def x(rate: float) -> float:
        return _LEFT + rate / max_rate * (_WIDTH - _LEFT - _RIGHT)

    def y(milliseconds: float) -> float:
        share = (math.log10(milliseconds) - low) / (high - low)
        return _HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM)

    parts = [
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {_WIDTH} {_HEIGHT}' role='img' "
        "aria-label='Acknowledgement latency against throughput'>",
        f"<rect width='{_WIDTH}' height='{_HEIGHT}' fill='#ffffff'/>",
        _text(_LEFT, 22, "Acknowledgement latency against throughput (open loop)", size=16),
    ]
    for exponent in range(low, high + 1):
        parts.append(_line(_LEFT, y(10.0**exponent), _WIDTH - _RIGHT, y(10.0**exponent)))
        label = f"{10.0**exponent:g} ms"
        parts.append(_text(_LEFT - 8, y(10.0**exponent) + 4, label, anchor="end"))
    for step in range(6):
        rate = max_rate * step / 5
        parts.append(_text(x(rate), _HEIGHT - _BOTTOM + 20, f"{rate:,.0f}", anchor="middle"))
    parts.append(
        _text((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 12, "messages a second", anchor="middle")
    )
    for number, (server, label, colour) in enumerate(_SERIES):
        mine = sorted((p for p in points if p.server == server), key=lambda p: p.rate_per_s)
        p50 = [(x(p.rate_per_s), y(p.result.ack.p50_us / 1e3)) for p in mine]
        p99 = [(x(p.rate_per_s), y(p.result.ack.p99_us / 1e3)) for p in mine]
        parts += [_curve(p50, colour), _curve(p99, colour, dashed=True)]
        left = _LEFT + 345 * number
        parts.append(_line(left, 38, left + 26, 38, colour=colour, width=3))
        parts.append(_text(left + 32, 42, f"{label} (p50; dashed: p99)"))
    return "\n".join([*parts, "</svg>", ""])


def _ceiling(value: float) -> float:
    """Round up to a number that five steps divide well."""
    power = 10.0 ** math.floor(math.log10(value))
    return next(m * power for m in (1, 1.5, 2, 2.5, 3, 4, 5, 7.5, 10) if m * power >= value)


def _curve(points: list[tuple[float, float]], colour: str, *, dashed: bool = False) -> str:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    dots = "".join(f"<circle cx='{x:.1f}' cy='{y:.1f}' r='3' fill='{colour}'/>" for x, y in points)
    dash = " stroke-dasharray='6 4'" if dashed else ""
    return f"<polyline points='{path}' fill='none' stroke='{colour}' stroke-width='2'{dash}/>{dots}"


def _line(
    x1: float, y1: float, x2: float, y2: float, *, colour: str = "#dfe3e8", width: int = 1
) -> str:
    return (
        f"<line x1='{x1:.1f}' y1='{y1:.1f}' x2='{x2:.1f}' y2='{y2:.1f}' "
        f"stroke='{colour}' stroke-width='{width}'/>"
    )


def _text(x: float, y: float, text: str, *, size: int = 12, anchor: str = "start") -> str:
    return (
        f"<text x='{x:.1f}' y='{y:.1f}' font-size='{size}' text-anchor='{anchor}' {_STYLE}>"
        f"{text}</text>"
    )
