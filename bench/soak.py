"""`python -m bench soak`: both services under a steady load for long; is their memory flat?

What is bounded but fills slowly at such a pace is filled first, at full speed: SQLite's page caches
(64 MB a service) and the tokens that the profile service remembers. What grows after that, leaks.
"""

import argparse
import datetime
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import httpx
import msgspec

from bench import tool
from bench.chart import Axis, Series, document, panel
from bench.http_load import HttpPlan, HttpResult
from bench.load import LoadPlan, LoadResult
from bench.machine import machine
from bench.people import sign_up
from bench.record import Machine
from bench.services import Services, services
from bench.soak_load import SoakPlan, SoakResult, Usage
from bench.stage import PEOPLE, duet_pairs, say

__all__ = ["SoakRecord", "Trend", "main", "trend"]

_FLAT_SHARE_PER_HOUR = 0.05
"""Memory is flat when it grows by less than such a part of itself in an hour."""
_MIB = 2**20
_FILLING_SENDS_S = 15.0
_FILLING_REFRESHES_S = 120.0


class Trend(msgspec.Struct, frozen=True, kw_only=True):
    """A line through memory after the warm-up, by least squares."""

    service: str
    mean_bytes: float
    bytes_per_hour: float
    is_flat: bool


class SoakRecord(msgspec.Struct, frozen=True, kw_only=True):
    """All of one soak."""

    machine: Machine
    messages_per_s: float
    warm_up_s: float
    trends: list[Trend]
    result: SoakResult


def main(arguments: list[str], results: Path) -> int:
    """Run a soak and report. Returns 0, or 1 when memory was not flat, a message was lost, or the
    services could not keep up."""
    asked = _parser(results).parse_args(arguments)
    seconds, directory = asked.minutes * 60, Path(asked.directory)
    try:
        record = _soak(directory, seconds, asked.rate, asked.warm_up_minutes * 60)
    except (RuntimeError, httpx.HTTPError) as error:
        print(f"the soak ended early: {error}", file=sys.stderr)
        return 1
    results = Path(asked.results)
    results.mkdir(parents=True, exist_ok=True)
    (results / "soak.json").write_bytes(msgspec.json.format(msgspec.json.encode(record)))
    (results / "soak.svg").write_text(soak_plot(record))
    print(_summary(record))
    print(f"Details: {results / 'soak.json'}, plot: {results / 'soak.svg'}")
    return 0 if all(t.is_flat for t in record.trends) and not record.result.lost else 1


def _soak(directory: Path, seconds: float, rate: float, warm_up_s: float) -> SoakRecord:
    measured_on = machine(directory)
    with (
        tempfile.TemporaryDirectory(dir=directory, prefix="duet-soak-") as data_dir,
        services(Path(data_dir)) as duet,
    ):
        people = sign_up(duet.profile_url, PEOPLE)
        _fill_caches(duet)
        ends = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=seconds)
        say(f"a soak of {seconds / 60:g} minutes at {rate:,.0f} msg/s, until {ends:%H:%M} UTC")
        plan = SoakPlan(
            url=duet.url,
            profile_url=duet.profile_url,
            gateway_pid=duet.gateway_pid,
            profile_pid=duet.profile_pid,
            people=people,
            seconds=seconds,
            messages_per_s=rate,
        )
        result = tool.run("bench.soak_load", plan, SoakResult, timeout_s=seconds + 120)
    return SoakRecord(
        machine=measured_on,
        messages_per_s=rate,
        warm_up_s=warm_up_s,
        trends=[
            trend("gateway", result.usage, warm_up_s, lambda usage: usage.gateway_bytes),
            trend("profile service", result.usage, warm_up_s, lambda usage: usage.profile_bytes),
        ],
        result=result,
    )


def _fill_caches(duet: Services) -> None:
    """Let others send and refresh as fast as they can."""
    say("filling caches")
    others = sign_up(duet.profile_url, PEOPLE)
    sends = LoadPlan(
        url=duet.url,
        server_pid=duet.gateway_pid,
        pairs=duet_pairs(others, PEOPLE // 2),
        window=20,
        measured_s=_FILLING_SENDS_S,
    )
    tool.run("bench.load", sends, LoadResult)
    refreshes = HttpPlan(
        port=duet.profile_port,
        server_pid=duet.profile_pid,
        path="/v1/token",
        bodies=[f'{{"refresh_token":"{person.refresh_token}"}}' for person in others],
        rotate=True,
        measured_s=_FILLING_REFRESHES_S,
        expected='"refresh_token"',
    )
    tool.run("bench.http_load", refreshes, HttpResult)


def trend(
    service: str, usage: list[Usage], warm_up_s: float, bytes_of: Callable[[Usage], int]
) -> Trend:
    """Fit a line to what was used after the warm-up."""
    settled = [(one.at_s, bytes_of(one)) for one in usage if one.at_s >= warm_up_s]
    at_s, used = [float(s) for s, _ in settled], [float(b) for _, b in settled]
    slope = statistics.linear_regression(at_s, used).slope * 3600
    mean = statistics.fmean(used)
    return Trend(
        service=service,
        mean_bytes=mean,
        bytes_per_hour=slope,
        is_flat=slope < _FLAT_SHARE_PER_HOUR * mean,
    )


def soak_plot(record: SoakRecord) -> str:
    """Draw memory of both services and the acks' p99 against time, as an SVG document."""
    result = record.result
    gateway = [(usage.at_s / 60, usage.gateway_bytes / _MIB) for usage in result.usage]
    profile = [(usage.at_s / 60, usage.profile_bytes / _MIB) for usage in result.usage]
    verdicts = "; ".join(map(_verdict, record.trends))
    latency = [(n + 1.0, minute.ack_p99_us / 1000) for n, minute in enumerate(result.minutes)]
    minutes = Axis(label="minutes")
    return document(
        "Memory of both services under a steady load",
        [
            panel(
                f"Resident memory at {record.messages_per_s:,.0f} msg/s, with everything else",
                [
                    Series(points=gateway, colour="#0b6e4f", label="gateway", dots=False),
                    Series(points=profile, colour="#8a5a00", label="profile service", dots=False),
                ],
                Axis(label=f"minutes ({verdicts})"),
                Axis(label="memory", unit="MiB"),
            ),
            panel(
                "Acknowledgement p99 of each minute",
                [Series(points=latency, colour="#0b6e4f", label="ack p99")],
                minutes,
                Axis(label="latency", unit="ms"),
            ),
        ],
    )


def _verdict(one: Trend) -> str:
    return (
        f"{one.service}: {one.bytes_per_hour / _MIB:+.1f} MiB an hour, "
        f"{'flat' if one.is_flat else 'NOT FLAT'}"
    )


def _summary(record: SoakRecord) -> str:
    result = record.result
    p99_ms = sorted(minute.ack_p99_us / 1000 for minute in result.minutes)
    lines = [
        f"{record.machine.date}: {result.sent:,} messages, {result.lost} lost; "
        f"{result.receipts:,} receipts, {result.pages:,} history pages, {result.visits:,} visits "
        f"with {result.resumed_messages:,} messages, {result.refreshes:,} refreshes",
        *(
            f"{_verdict(one)} (mean {one.mean_bytes / _MIB:.1f} MiB, after "
            f"{record.warm_up_s / 60:g} minutes)"
            for one in record.trends
        ),
    ]
    if p99_ms:
        median = statistics.median(p99_ms)
        lines.append(f"ack p99 of a minute: median {median:.1f} ms, worst {p99_ms[-1]:.1f} ms")
    return "\n".join(lines)


def _parser(results: Path) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--warm-up-minutes", type=float, default=10)
    parser.add_argument("--rate", type=float, default=1000, help="messages a second")
    parser.add_argument(
        "--directory", default=tempfile.gettempdir(), help="where databases are made: on a disk"
    )
    parser.add_argument("--results", default=results, help="where soak.json and the plot go")
    return parser
