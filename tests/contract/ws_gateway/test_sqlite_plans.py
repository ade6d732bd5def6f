"""Reads on SQLite go by an index."""

import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest

from ws_gateway.adapters import (
    sqlite_archive,
    sqlite_index,
    sqlite_people,
    sqlite_revise,
    sqlite_search,
    sqlite_store,
)
from ws_gateway.adapters.sqlite_stores import open_sqlite_stores

_SCANS_OF_FEW = {"SCAN CONSTANT ROW", "SCAN moved", "SCAN newest", "SCAN page", "SCAN recent"}
"""Of what a bounded part of the same statement found, or of what is kept short."""


@pytest.fixture
async def plan(tmp_path: Path) -> AsyncIterator[sqlite3.Connection]:
    path = tmp_path / "messages.db"
    async with open_sqlite_stores(path) as stores:
        await stores.search.catch_up()
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("ATTACH ? AS index_", (str(path.with_name("search.db")),))
            yield connection


@pytest.mark.parametrize(
    ("statement", "arguments", "may_sort"),
    [
        (sqlite_archive._HISTORY_BEFORE, ("c", 1, 2), False),
        (sqlite_archive._HISTORY_AFTER, ("c", 1, 2), False),
        (sqlite_archive._CONVERSATIONS, {"me": 1, "before": 2, "limit": 3}, False),
        (sqlite_archive._TRACE, ("c", 1), False),
        (sqlite_search._FIND, ("word", 9, 0, 1, 2), True),
        (sqlite_index._REMOVALS, (1, 2), False),
        (sqlite_store._EVENTS, (1, 2, 3, 4), False),
        (sqlite_store._RECEIPTS, {"me": 1, "position": 2}, True),
        (sqlite_store._DELIVERED, (1, 2), False),
        (sqlite_store._TO_ERASE, (1, "c"), False),
        (sqlite_revise._SIDE, ("u", "c"), False),
        (sqlite_revise._TEXTS, (1, 0, 2, 3), False),
        (sqlite_people._PEERS, ("u", 2), False),
    ],
    ids=[
        "history before",
        "history after",
        "conversations",
        "trace",
        "search",
        "removals",
        "events",
        "receipts",
        "delivered",
        "to erase",
        "mark",
        "texts to erase",
        "peers",
    ],
)
async def test_reads_go_by_an_index_and_sort_nothing(
    plan: sqlite3.Connection,
    statement: str,
    arguments: tuple[object, ...] | dict[str, object],
    may_sort: bool,
) -> None:
    steps = [row[3] for row in plan.execute("EXPLAIN QUERY PLAN " + statement, arguments)]
    scans = [step for step in steps if step.startswith("SCAN") and "VIRTUAL TABLE" not in step]
    sorts = [step for step in steps if "TEMP B-TREE" in step]
    assert set(scans) <= _SCANS_OF_FEW, steps
    assert sorts == [] or may_sort, steps
