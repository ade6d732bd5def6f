"""What operators do to the service's data: the commands of `python -m profile_service`."""

import time
from collections.abc import Callable
from pathlib import Path

from profile_service.adapters.sqlite_life import DATABASE_NAME, begin_new_life
from profile_service.adapters.sqlite_stores import key_directory
from profile_service.app import Settings, open_stores
from shared.sqlite_backup import back_up, restore
from shared.sqlite_compact import compact

__all__ = [
    "begin_life_after_restore",
    "copy",
    "move",
    "put_back",
    "reseal_keys",
    "rotate_keys",
    "shrink",
]

ROTATED_KEY_MARGIN_S = 86_400
"""A key is kept this much longer than the longest-lived token that it signed."""


async def rotate_keys(settings: Settings) -> str:
    """Make a new signing key, and return its id. Services may be running.

    Raises:
        DatabaseUnavailable, StoreUnavailable, KeysUnusable: it cannot be made now.
        ValueError, OSError: the service secret or the database's URL cannot be used.
    """
    keep_s = settings.refresh_token_lifetime_s + ROTATED_KEY_MARGIN_S
    if settings.postgresql_url() is None:
        return await key_directory(settings.data_dir, now=time.time).rotate(keep_s)
    async with open_stores(settings, time.time, time.monotonic) as stores:
        return await stores.keys.rotate(keep_s)


def copy(settings: Settings, backup: Path) -> None:
    """Copy the database to a file that does not exist yet; see `back_up`.

    Raises:
        WrongEngine: PostgreSQL has its own ways.
        BackupUnusable: the message says why.
    """
    settings.require_sqlite("pg_dump or a base backup")
    back_up(settings.data_dir / DATABASE_NAME, backup)


def put_back(settings: Settings, backup: Path) -> Path | None:
    """Put such a copy in the database's place; see `restore`.

    Raises:
        WrongEngine: PostgreSQL has its own ways.
        BackupUnusable: the message says why.
        DatabaseInUse: the service is running.
    """
    settings.require_sqlite(
        "pg_restore or recovery, then `python -m profile_service after-restore`"
    )
    return restore(backup, settings.data_dir / DATABASE_NAME, begin_new_life)


def shrink(settings: Settings) -> tuple[int, int]:
    """Give free space back to the file system; see `compact`.

    Raises:
        WrongEngine: PostgreSQL has its own ways.
        DatabaseInUse: the service is running.
        DatabaseUnavailable: nothing was changed.
    """
    settings.require_sqlite("VACUUM, which it does by itself")
    return compact(settings.data_dir / DATABASE_NAME)


async def begin_life_after_restore(settings: Settings) -> None:
    """Log everybody out, after PostgreSQL was put back to an earlier time.

    Raises:
        WrongEngine: `restore` does it for SQLite.
        DatabaseUnavailable: nothing was changed.
        ValueError, OSError: the database's URL cannot be used.
    """
    url = settings.require_postgresql("`restore` does this itself")
    from profile_service.adapters import postgres_life  # noqa: PLC0415 - only when it is chosen

    await postgres_life.begin_new_life(url)


async def reseal_keys(settings: Settings, old_secret: bytes) -> int:
    """Encrypt the signing keys under the service secret as it is now; return how many there are.

    Raises:
        WrongEngine: key files are not encrypted.
        DatabaseUnavailable, KeysUnusable: nothing was changed.
        ValueError, OSError: a secret or the database's URL cannot be used.
    """
    url = settings.require_postgresql("key files do not depend on the service secret")
    from profile_service.adapters import postgres_life  # noqa: PLC0415 - only when it is chosen

    return await postgres_life.reseal_keys(url, old_secret, settings.shared_secret())


async def move(settings: Settings, report: Callable[[str, int], None]) -> list[str]:
    """Copy everything from the data directory to PostgreSQL; return a line for each table.

    Raises:
        WrongEngine: no URL is set.
        DatabaseInUse: the service is running.
        DatabaseUnavailable, KeysUnusable, RelocationRefused: the message says why.
        ValueError, OSError: the service secret or the database's URL cannot be used.
    """
    url = settings.require_postgresql("set it to where everything goes")
    from profile_service.adapters import relocation  # noqa: PLC0415 - only when it is chosen

    moved = await relocation.move_to_postgres(
        settings.data_dir,
        key_directory(settings.data_dir, now=time.time),
        url,
        settings.shared_secret(),
        report,
    )
    return [f"{one.table}: {one.rows} rows, checksum {one.checksum}" for one in moved]
