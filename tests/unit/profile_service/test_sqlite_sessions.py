"""What the store on SQLite does beside its contract: nobody waits for it for long."""

from pathlib import Path

from profile_service.adapters.sqlite_sessions import SqliteSessionStore
from profile_service.adapters.sqlite_stores import MIGRATIONS
from shared.sqlite import Database

REVOCATIONS = 50_000
STEPS = 1000
"""Of SQLite's virtual machine, between two looks."""


async def test_pruning_takes_as_long_however_many_revocations_are_kept(tmp_path: Path) -> None:
    database = await Database.open(tmp_path / "users.db", MIGRATIONS)
    looks = 0

    def look() -> None:
        nonlocal looks
        looks += 1

    try:
        await database.write(
            lambda connection: connection.executemany(
                "INSERT INTO revocations (nonce, at_ms, event) VALUES ('', ?, '')",
                ((at_ms,) for at_ms in range(REVOCATIONS)),
            )
        )
        await database.write(lambda connection: connection.set_progress_handler(look, STEPS))
        store = SqliteSessionStore(database)
        assert await store.prune(sessions_ms=0, revocations_ms=10, audit_ms=0) == 10
        assert await store.prune(sessions_ms=0, revocations_ms=10, audit_ms=0) == 0
        assert looks < REVOCATIONS / STEPS
    finally:
        await database.close()
