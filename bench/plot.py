"""Latency against throughput, as SVG."""

from collections.abc import Sequence
from statistics import median

from bench.chart import Axis, Series, document, panel
from bench.record import Point

__all__ = ["latency_plot"]

_SERVERS = (
    ("duet", "Duet, every message on disk", "#0b6e4f"),
    ("relay", "bare relay, nothing stored", "#8a8f98"),
)


def latency_plot(points: Sequence[Point]) -> str:
    """Draw p50 (solid) and p99 (dashed) of the ack over the rate, latency on a log scale.

    Returns an SVG document. Without points it is empty but for its axes.
    """
    series = []
    for server, label, colour in _SERVERS:
        mine = [point for point in points if point.server == server]
        rates = sorted({point.rate_per_s for point in mine})
        acks = {rate: [p.result.ack for p in mine if p.rate_per_s == rate] for rate in rates}
        p50 = [(rate, median(ack.p50_us for ack in acks[rate]) / 1e3) for rate in rates]
        p99 = [(rate, median(ack.p99_us for ack in acks[rate]) / 1e3) for rate in rates]
        series += [
            Series(points=p50, colour=colour, label=f"{label} (p50; dashed: p99)"),
            Series(points=p99, colour=colour, dashed=True),
        ]
    title = "Acknowledgement latency against throughput"
    return document(
        title,
        [
            panel(
                f"{title} (open loop)",
                series,
                Axis(label="messages a second"),
                Axis(label="latency", scale="log", unit="ms"),
            )
        ],
    )
