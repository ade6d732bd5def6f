"""What this disk and SQLite take for one durable commit of one small row, and nothing else."""

import contextlib
import sqlite3
import sys
import tempfile
import time
from pathlib import Path

import msgspec

from bench.tool import main

__all__ = ["CommitPlan", "CommitResult"]


class CommitPlan(msgspec.Struct, frozen=True, kw_only=True):
    """One measurement, in a new file in `directory`."""

    directory: str
    commits: int = 3000


class CommitResult(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it."""

    p50_us: float
    p99_us: float


async def _measure(plan: CommitPlan) -> CommitResult:
    took_ns = []
    text = "x" * 53
    with (
        tempfile.TemporaryDirectory(dir=plan.directory) as directory,
        contextlib.closing(
            sqlite3.connect(Path(directory) / "commit.db", isolation_level=None)
        ) as connection,
    ):
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("CREATE TABLE row (id INTEGER PRIMARY KEY, text TEXT)")
        for _ in range(plan.commits):
            started_ns = time.perf_counter_ns()
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("INSERT INTO row (text) VALUES (?)", (text,))
            connection.execute("COMMIT")
            took_ns.append(time.perf_counter_ns() - started_ns)
    took_ns.sort()
    return CommitResult(
        p50_us=took_ns[len(took_ns) // 2] / 1000, p99_us=took_ns[len(took_ns) * 99 // 100] / 1000
    )


if __name__ == "__main__":
    sys.exit(main(CommitPlan, _measure))
