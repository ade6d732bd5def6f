"""What the stores on SQLite do beside their contract: nobody waits for them for long."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from profile_service.adapters.sqlite_sessions import SqliteSessionStore
from profile_service.adapters.sqlite_stores import MIGRATIONS
from profile_service.adapters.sqlite_users import SqliteUserStore
from profile_service.ports import AuditEntry
from shared.ids import UserId
from shared.sqlite import Database

ROWS = 50_000
STEPS = 1000
"""Of SQLite's virtual machine, between two looks."""


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    database = await Database.open(tmp_path / "users.db", MIGRATIONS)
    try:
        yield database
    finally:
        await database.close()


async def counted_looks(database: Database) -> Callable[[], int]:
    """Count the thousands of steps that writing takes from here on."""
    looks = 0

    def look() -> None:
        nonlocal looks
        looks += 1

    await database.write(lambda connection: connection.set_progress_handler(look, STEPS))
    return lambda: looks


async def test_pruning_takes_as_long_however_many_revocations_are_kept(database: Database) -> None:
    await database.write(
        lambda connection: connection.executemany(
            "INSERT INTO revocations (nonce, at_ms, event) VALUES ('', ?, '')",
            ((at_ms,) for at_ms in range(ROWS)),
        )
    )
    store = SqliteSessionStore(database)
    looks = await counted_looks(database)
    assert await store.prune(sessions_ms=0, revocations_ms=10, audit_ms=0) == 10
    assert await store.prune(sessions_ms=0, revocations_ms=10, audit_ms=0) == 0
    assert looks() < ROWS / STEPS


async def test_deleting_an_account_looks_at_no_session_of_others(database: Database) -> None:
    user = UserId("u_ann")
    await database.write(
        lambda connection: connection.executemany(
            "INSERT INTO users VALUES (?, ?, ?, '', 1, 1, '{}', 0, 0, NULL)",
            [(id_, id_, id_) for id_ in (user, "u_bob")],
        )
    )
    await database.write(
        lambda connection: connection.executemany(
            "INSERT INTO sessions VALUES (?, ?, 'phone', 'browser', 1, 1, 0, 0, 9, ?)",
            (
                (f"s_{number}", user if number < 2 else "u_bob", number % 2 or None)
                for number in range(ROWS)
            ),
        )
    )
    looks = await counted_looks(database)
    audit = AuditEntry(at_ms=5, kind="account_deletion", user_id=user)
    users = SqliteUserStore(database)
    assert await users.delete_user(user, expected_version=1, audit=audit)
    assert looks() < ROWS / STEPS
    kept = await database.read(
        lambda connection: connection.execute(
            "SELECT user_id, count(*) FROM sessions WHERE device_name IS NOT NULL GROUP BY user_id"
        ).fetchall()
    )
    assert kept == [("u_bob", ROWS - 2)]
