"""What a message costs on the disk, and what becomes of the space when it is erased."""

import itertools
import sqlite3
import time
from contextlib import closing
from pathlib import Path

from shared.ids import UserId
from tests.faults.figures import Figure, Plan
from tests.support.talk import erase
from ws_gateway.adapters.sqlite_stores import SqliteStores, open_sqlite_stores
from ws_gateway.conversations import Draft
from ws_gateway.settings import Settings
from ws_gateway.upkeep import shrink

__all__ = ["disk_use"]

PEERS = [UserId(f"u_{number:026}") for number in range(50)]
MOST_BYTES = 300
"""For each message of some fifty characters, with every index and search."""


async def disk_use(plan: Plan) -> list[Figure]:
    """Two people write as much; one of them is erased; others write on; the file is compacted."""
    count = plan.of(20_000, 200_000)
    plan.directory.mkdir(parents=True, exist_ok=True)
    path, hours = plan.directory / "messages.db", itertools.count()
    async with open_sqlite_stores(path, clock=lambda: next(hours) * 3600.0) as stores:
        ids = itertools.count()
        await _tidied(stores)
        empty = _size(path)
        for sender in (UserId("u_erased"), UserId("u_kept")):
            await _write(stores, sender, count // 2, ids)
        await _tidied(stores)
        full = _size(path)
        await erase(stores.messages, UserId("u_erased"))
        await _tidied(stores)
        erased, free = _size(path), _free_bytes(path)
        await _write(stores, UserId("u_new"), count // 10, ids)
        await _tidied(stores)
        grown = _size(path)
    started = time.monotonic()
    before, after = shrink(Settings(data_dir=plan.directory))
    took_s = time.monotonic() - started
    cost = (full - empty) / count
    reused = 1 - (grown - erased) / (cost * count / 10)
    return [
        Figure(
            fault=f"{count} messages of 53 characters, half of them erased",
            tries=1,
            counted=f"{cost:.0f} bytes a message; {full / 1e6:.1f} MB before the erasure, of which "
            f"it freed {free / 1e6:.1f} MB for later rows; {100 * reused:.0f} % of what the next "
            f"{count // 10} needed came from there; compact: {before / 1e6:.1f} MB before, "
            f"{after / 1e6:.1f} MB after, in {took_s:.1f} s",
            passed=cost < MOST_BYTES and free > 0 and reused > 0.5 and after < before,
        )
    ]


async def _write(
    stores: SqliteStores, sender: UserId, count: int, ids: "itertools.count[int]"
) -> None:
    """Write to all peers in turn, as a busy gateway stores it."""
    for _ in range(count // 500):
        drafts = [
            Draft(
                sender,
                PEERS[number % len(PEERS)],
                f"019ac7d2-7c40-7000-8000-{next(ids):012}",
                f"See you at {number:03} in front of the old cinema, or then.",
            )
            for number in range(500)
        ]
        await stores.messages.append_batch(drafts, 1_800_000_000_000)
        await stores.tidy_up(lambda: False)


async def _tidied(stores: SqliteStores) -> None:
    await stores.messages.settle_all()
    for _ in range(300):
        await stores.tidy_up(lambda: False)


def _size(path: Path) -> int:
    """Of both files, without their logs, which have 16 MB at most in normal operation."""
    return _pages(path, "page_count")


def _free_bytes(path: Path) -> int:
    return _pages(path, "freelist_count")


def _pages(path: Path, which: str) -> int:
    """Return how many bytes such pages of the database and of its search index take."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        connection.execute("ATTACH ? AS search", (f"file:{path.with_name('search.db')}?mode=ro",))
        pages = [connection.execute(f"PRAGMA {file}.{which}") for file in ("main", "search")]
        (page_bytes,) = connection.execute("PRAGMA page_size").fetchone()
        return sum(int(found.fetchone()[0]) for found in pages) * int(page_bytes)
