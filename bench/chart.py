"""Line charts as SVG, without a library: panels, and documents made of them."""

import html
import math
from collections.abc import Sequence
from typing import Literal

import msgspec

__all__ = ["Axis", "Series", "document", "panel"]

WIDTH, HEIGHT = 760, 460
_LEFT, _RIGHT, _TOP, _BOTTOM = 84, 34, 52, 56
_STYLE = "font-family='system-ui, sans-serif' fill='#22272e'"
_SUFFIXES = ((1e9, "G"), (1e6, "M"), (1e3, "k"))


class Axis(msgspec.Struct, frozen=True, kw_only=True):
    """How values become places. A linear axis begins at zero, a logarithmic one at a decade."""

    label: str
    scale: Literal["linear", "log"] = "linear"
    unit: str = ""
    zero_at: float | None = None
    """Where a logarithmic axis shows the value zero, which it has no place for."""


class Series(msgspec.Struct, frozen=True, kw_only=True):
    """One line. Without a label it is not in the legend."""

    points: Sequence[tuple[float, float]]
    colour: str
    label: str = ""
    dashed: bool = False
    dots: bool = True


class _Scale:
    """Places the values of an axis between two ends, and knows where its ticks are."""

    def __init__(self, axis: Axis, values: Sequence[float], start: float, end: float) -> None:
        self._axis, self._start, self._end = axis, start, end
        if axis.scale == "linear":
            self._low, self._high = 0.0, _ceiling(max(values, default=1.0) or 1.0)
        else:
            shown = [value or axis.zero_at or 1.0 for value in values] or [0.1, 10.0]
            self._low = math.floor(math.log10(min(shown)))
            self._high = max(self._low + 1, math.ceil(math.log10(max(shown))))

    def at(self, value: float) -> float:
        """The coordinate of a value."""
        if self._axis.scale == "log":
            value = math.log10(value or self._axis.zero_at or 1.0)
        share = (value - self._low) / (self._high - self._low)
        return self._start + share * (self._end - self._start)

    def ticks(self) -> list[tuple[float, str]]:
        """Coordinates and labels."""
        if self._axis.scale == "log":
            values = [10.0**e for e in range(int(self._low), int(self._high) + 1)]
        else:
            values = [self._high * step / 5 for step in range(6)]
        return [(self.at(value), self._tick_label(value)) for value in values]

    def _tick_label(self, value: float) -> str:
        number = "0" if value == self._axis.zero_at else _short(value)
        return f"{number} {self._axis.unit}".rstrip()


def panel(title: str, series: Sequence[Series], x: Axis, y: Axis) -> str:
    """Draw one chart, of `WIDTH` by `HEIGHT`; lines of the legend that have no room go below."""
    points = [point for one in series for point in one.points]
    across = _Scale(x, [point[0] for point in points], _LEFT, WIDTH - _RIGHT)
    upward = _Scale(y, [point[1] for point in points], HEIGHT - _BOTTOM, _TOP)
    parts = [
        f"<rect width='{WIDTH}' height='{HEIGHT}' fill='#ffffff'/>",
        _text(_LEFT, 22, title, size=16),
    ]
    for place, label in upward.ticks():
        parts.append(_line(_LEFT, place, WIDTH - _RIGHT, place))
        parts.append(_text(_LEFT - 8, place + 4, label, anchor="end"))
    parts += [
        _text(place, HEIGHT - _BOTTOM + 20, label, anchor="middle")
        for place, label in across.ticks()
    ]
    parts.append(_text((_LEFT + WIDTH - _RIGHT) / 2, HEIGHT - 12, x.label, anchor="middle"))
    for one in series:
        parts.append(_curve([(across.at(a), upward.at(b)) for a, b in one.points], one))
    left = float(_LEFT)
    for one in series:
        if one.label:
            parts.append(_line(left, 38, left + 26, 38, colour=one.colour, width=3))
            parts.append(_text(left + 32, 42, one.label))
            left += 50 + 6.2 * len(one.label)
    return "\n".join(parts)


def document(label: str, panels: Sequence[str], *, columns: int = 1) -> str:
    """Put panels beside and below each other in an SVG document."""
    rows = math.ceil(len(panels) / columns)
    return "\n".join(
        [
            f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {WIDTH * columns} "
            f"{HEIGHT * rows}' role='img' aria-label='{html.escape(label, quote=True)}'>",
            *(
                f"<g transform='translate({WIDTH * (number % columns)} "
                f"{HEIGHT * (number // columns)})'>\n{one}\n</g>"
                for number, one in enumerate(panels)
            ),
            "</svg>",
            "",
        ]
    )


def _ceiling(value: float) -> float:
    """Round up to a number that five steps divide well."""
    power = 10.0 ** math.floor(math.log10(value))
    return next(m * power for m in (1, 1.5, 2, 2.5, 3, 4, 5, 7.5, 10) if m * power >= value)


def _short(value: float) -> str:
    for factor, suffix in _SUFFIXES:
        if value >= factor:
            return f"{value / factor:g}{suffix}"
    return f"{value:g}"


def _curve(points: list[tuple[float, float]], series: Series) -> str:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    dots = "".join(
        f"<circle cx='{x:.1f}' cy='{y:.1f}' r='3' fill='{series.colour}'/>" for x, y in points
    )
    dash = " stroke-dasharray='6 4'" if series.dashed else ""
    line = (
        f"<polyline points='{path}' fill='none' stroke='{series.colour}' stroke-width='2'{dash}/>"
    )
    return line + (dots if series.dots else "")


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
        f"{html.escape(text)}</text>"
    )
