"""What operators do to the gateway's data: the commands of `python -m ws_gateway`."""

from collections.abc import Callable
from pathlib import Path

from shared.sqlite import DatabaseUnavailable, remove
from shared.sqlite_backup import back_up, restore
from shared.sqlite_compact import compact
from ws_gateway.adapters.sqlite_life import (
    DATABASE_NAME,
    SEARCH_NAME,
    begin_new_life,
    merge_search,
)
from ws_gateway.settings import Settings

__all__ = ["begin_life_after_restore", "copy", "move", "put_back", "shrink"]


def copy(settings: Settings, backup: Path) -> None:
    """Copy the database to a file that does not exist yet; see `back_up`.

    Raises:
        WrongEngine: PostgreSQL has its own ways.
        BackupUnusable: the message says why.
        ValueError, OSError: the database's URL cannot be used.
    """
    settings.require_sqlite("pg_dump or a base backup")
    back_up(settings.data_dir / DATABASE_NAME, backup)


def put_back(settings: Settings, backup: Path) -> str:
    """Put such a copy in the database's place; see `restore`. Returns what was done.

    Raises:
        WrongEngine: PostgreSQL has its own ways.
        BackupUnusable: the message says why.
        DatabaseInUse: the gateway is running.
        ValueError, OSError: the database's URL cannot be used.
    """
    settings.require_sqlite("pg_restore or recovery, then `python -m ws_gateway after-restore`")
    database = settings.data_dir / DATABASE_NAME
    replaced = restore(backup, database, begin_new_life)
    return f"restored {database}" + (f"; what it replaced is {replaced}" if replaced else "")


def shrink(settings: Settings) -> tuple[int, int]:
    """Give free space back to the file system; see `compact`.

    Raises:
        WrongEngine: PostgreSQL has its own ways.
        DatabaseInUse: the gateway is running.
        DatabaseUnavailable: nothing was changed.
        ValueError, OSError: the database's URL cannot be used.
    """
    settings.require_sqlite("VACUUM, which it does by itself")
    before, after = compact(settings.data_dir / DATABASE_NAME)
    search = settings.data_dir / SEARCH_NAME
    if search.exists():
        try:
            of_search = compact(search, merge_search)
        except DatabaseUnavailable:  # damaged, or the disk is full
            of_search = search.stat().st_size, 0
            remove(search)  # the next start makes it anew
        before, after = before + of_search[0], after + of_search[1]
    return before, after


async def begin_life_after_restore(settings: Settings) -> None:
    """Have clients load their conversations anew, after PostgreSQL was put back.

    Raises:
        WrongEngine: `restore` does it for SQLite.
        DatabaseUnavailable: nothing was changed.
        ValueError, OSError: the database's URL cannot be used.
    """
    url = settings.require_postgresql("`restore` does this itself")
    from ws_gateway.adapters import postgres_life  # noqa: PLC0415 - only when it is chosen

    await postgres_life.begin_new_life(url)


async def move(settings: Settings, report: Callable[[str, int], None]) -> list[str]:
    """Copy everything from the data directory to PostgreSQL; return a line for each table.

    Raises:
        WrongEngine: no URL is set.
        DatabaseInUse: the gateway is running.
        DatabaseUnavailable, RelocationRefused: the message says why.
        ValueError, OSError: the database's URL cannot be used.
    """
    url = settings.require_postgresql("set it to where everything goes")
    from ws_gateway.adapters import relocation  # noqa: PLC0415 - only when it is chosen

    moved = await relocation.move_to_postgres(settings.data_dir, url, report)
    return [f"{one.table}: {one.rows} rows, checksum {one.checksum}" for one in moved]
