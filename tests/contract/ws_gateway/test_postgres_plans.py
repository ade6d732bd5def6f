"""Reads on PostgreSQL go by an index, and never through a whole conversation."""

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import asyncpg
import pytest

from tests.support.postgres import Databases
from ws_gateway.adapters import (
    postgres_append,
    postgres_archive,
    postgres_attendance,
    postgres_people,
    postgres_revise,
    postgres_store,
)
from ws_gateway.adapters.postgres_stores import MIGRATIONS, SCHEMA

READS: dict[str, tuple[str, tuple[object, ...]]] = {
    "history before": (postgres_archive._HISTORY_BEFORE, ("c", 1, 2)),
    "history after": (postgres_archive._HISTORY_AFTER, ("c", 1, 2)),
    "conversations": (postgres_archive._CONVERSATIONS, ("u", 1, 2)),
    "peers": (postgres_archive._PEERS, ("u", 1, 2)),
    "trace": (postgres_archive._TRACE, ("c", 1)),
    "not yet indexed": (postgres_archive._PENDING, (1, None)),
    "search": (postgres_archive._SEARCH, ("'a'", "'a'", 1, 2, 3, 4)),
    "events": (postgres_store._EVENTS, ("u", 1, 2)),
    "position": (postgres_store._POSITION, ("u",)),
    "receipts": (postgres_store._RECEIPTS, ("u", 1)),
    "to erase": (postgres_store._TO_ERASE, ("u", "c")),
    "people": (postgres_people._PEERS, ("u", 1)),
    "message": (postgres_revise._MESSAGE, (1, 2)),
    "texts to erase": (postgres_revise._TEXTS, (1, 2, 3, 4)),
    "change": (postgres_revise._MADE, ("c", 1)),
    "marks": (postgres_append.APPEND, (1, *[[]] * 26)),
}


@pytest.fixture
async def connection(postgres_databases: Databases) -> AsyncIterator[asyncpg.Connection]:
    url = postgres_databases.migrated(MIGRATIONS, SCHEMA)
    settings = {
        "search_path": SCHEMA,
        "enable_seqscan": "off",
        "plan_cache_mode": "force_generic_plan",
    }
    connection = await asyncpg.connect(url, server_settings=settings)
    yield connection
    await connection.close()


@pytest.mark.parametrize("name", READS)
async def test_reads_go_by_an_index(connection: asyncpg.Connection, name: str) -> None:
    statement, arguments = READS[name]
    plan = json.loads(await connection.fetchval("EXPLAIN (FORMAT JSON) " + statement, *arguments))[
        0
    ]["Plan"]
    for step, above in steps(plan, "nothing"):
        about = step.get("Relation Name")
        assert step["Node Type"] != "Seq Scan" or about == "life", step
        condition = str(step.get("Index Cond", step.get("Recheck Cond")))
        assert "blocker" in condition or about != "blocks", step  # not all of them
        if about in {"messages", "revisions", "search"} and name != "to erase":
            assert "seq" in condition or "position" in condition or "words" in condition, step
        if about in {"messages", "revisions"} and "<" in condition_of(step):
            assert above == "Limit", step  # it ends with the page, and nothing is sorted before


async def test_restoring_compares_no_row_with_each_connection(
    connection: asyncpg.Connection,
) -> None:
    statement = "EXPLAIN " + postgres_attendance._FORGET_OTHERS
    plan = [line for (line,) in await connection.fetch(statement, "g", ["n"])]
    assert any("hashed SubPlan" in line for line in plan), plan


def condition_of(step: dict[str, Any]) -> str:
    return str(step.get("Index Cond", "")).replace(">", "<")


def steps(plan: dict[str, Any], above: str) -> Iterator[tuple[dict[str, Any], str]]:
    """Every step of a plan, with the kind of the one that it is for."""
    yield plan, above
    for below in plan.get("Plans", []):
        yield from steps(below, plan["Node Type"])
