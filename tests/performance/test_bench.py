"""The bench itself: what it fills databases with, and what it says of what it measured."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from xml.etree import ElementTree

import pytest

pytest.importorskip("picows", reason="the load generator is missing: `make check` installs it")

from bench import tool
from bench.chart import Axis, Series, document, panel
from bench.fill import Busy, FillPlan, FillResult, Long
from bench.gaps import GapsPlan, GapsResult
from bench.merge import merged
from bench.record import Machine, Record, Row, Spread
from bench.soak import trend
from bench.soak_load import Usage


def _row(median: float, **also: float) -> Row:
    low, high = also.get("low", median), also.get("high", median)
    return Row(what="some", value=Spread(median, low, high), unit="x", target=1.0)


def _record(*rows: Row) -> Record:
    machine = Machine(
        date="today",
        processor="some",
        cores=2,
        kernel="6",
        python="3.11",
        sqlite="3.40",
        file_system="ext4",
        load_average=0.0,
    )
    return Record(machine=machine, rows=list(rows))


def test_runs_are_merged_to_the_median_of_their_medians() -> None:
    records = [_record(_row(1.2, high=3)), _record(_row(0.5, low=0.1)), _record(_row(1.1))]
    (row,) = merged(records)
    assert (row.value, row.met) == (1.1, True)
    assert (row.runs, row.extremes) == ([1.2, 0.5, 1.1], Spread(1.1, 0.1, 3))


def test_a_row_may_miss_in_a_run() -> None:
    (row,) = merged([_record(), _record(_row(0.9))])
    assert (row.runs, row.met) == ([0.9], False)


def _usage(mib_per_minute: float) -> Iterator[Usage]:
    for second in range(1800):
        warming_up = min(second, 300) / 5
        used = int((100 + warming_up + mib_per_minute * second / 60) * 2**20)
        yield Usage(float(second), used, used)


@pytest.mark.parametrize(("mib_per_minute", "is_flat"), [(0.0, True), (0.05, True), (0.5, False)])
def test_memory_is_flat_when_it_grows_little_after_the_warm_up(
    mib_per_minute: float, is_flat: bool
) -> None:
    found = trend("gateway", list(_usage(mib_per_minute)), 600, lambda usage: usage.gateway_bytes)
    assert found.bytes_per_hour == pytest.approx(mib_per_minute * 60 * 2**20, abs=2**10)
    assert found.is_flat is is_flat


def test_filled_database_holds_what_was_asked_for(tmp_path: Path) -> None:
    plan = FillPlan(
        directory=str(tmp_path),
        messages=5000,
        long=[Long("u_writer", "u_reader", 600)],
        busy=[Busy("u_busy", "u_friend", 100)],
    )
    result = tool.run("bench.fill", plan, FillResult, core=None)
    assert (result.messages, result.written) == (5000, 5000)
    with closing(sqlite3.connect(tmp_path / "messages.db")) as database:
        database.execute("ATTACH ? AS search", (str(tmp_path / "search.db"),))

        def count(query: str, *of: str) -> int:
            (found,) = database.execute(query, of).fetchone()
            return int(found)

        assert count("SELECT count(*) FROM messages") == 5000
        assert count("SELECT count(*) FROM places") == 5000  # all are settled
        assert count("SELECT indexed FROM following") == 5000
        of_user = "FROM members JOIN users ON users.key = user WHERE users.id = ?"
        assert count(f"SELECT count(*) {of_user}", "u_busy") == 100
        assert count(f"SELECT last_seq {of_user}", "u_reader") == 600


def test_gaps_are_watched_on_every_core_at_once() -> None:
    cores = sorted(os.sched_getaffinity(0))
    plan = GapsPlan(cores=cores, measured_s=0.05)
    watched = tool.run("bench.gaps", plan, list[GapsResult], core=None)
    assert len(watched) == len(cores)
    assert all(one.longest_ms > 0 for one in watched)
    assert all(one.gaps_per_s <= one.lost_ms_per_s for one in watched)


def test_chart_is_well_formed_whatever_its_labels_say() -> None:
    drawn = panel(
        "p99 < 5 & more",
        [Series(points=[(0, 0.2), (1e7, 4000)], colour="#000", label="a < b")],
        Axis(label="stored", scale="log", zero_at=1e4),
        Axis(label="latency", scale="log", unit="ms"),
    )
    root = ElementTree.fromstring(document("it's <this>", [drawn, drawn], columns=2))
    assert root.get("aria-label") == "it's <this>"
    texts = {text.text for text in root.iter("{http://www.w3.org/2000/svg}text")}
    assert {"p99 < 5 & more", "a < b", "0", "10M", "0.1 ms", "10k ms"} <= texts


def test_chart_without_points_has_its_axes() -> None:
    drawn = panel("nothing", [], Axis(label="x"), Axis(label="y", scale="log"))
    assert ElementTree.fromstring(document("nothing", [drawn])).get("viewBox") == "0 0 760 460"
