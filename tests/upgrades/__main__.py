"""Store this version's databases, before one adds a migration: `python -m tests.upgrades`.

Every later version must open the dumps in `schemas`, which are named by the last migration in them.
"""

import asyncio
import contextlib
import re
import sqlite3
import tempfile
from pathlib import Path

from tests.upgrades.contents import MADE
from tests.upgrades.test_upgrades import SCHEMAS

_LEFT_OUT = re.compile(r'INSERT INTO "(_yoyo_log|yoyo_lock|search)"')
"""Who migrated where; and rows of a virtual table, whose own tables are dumped anyway."""


async def main() -> None:
    """Write a dump of each database."""
    for name, make in MADE.items():
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / f"{name}.db"
            await make(path)
            with contextlib.closing(sqlite3.connect(path)) as connection:
                (last,) = connection.execute(
                    "SELECT max(migration_id) FROM _yoyo_migration"
                ).fetchone()
                lines = list(connection.iterdump())
        kept = [line for line in lines if not _LEFT_OUT.match(line)]
        number = last.partition(".")[0]
        (SCHEMAS / f"{name}-{number}.sql").write_text("\n".join(kept) + "\n")


asyncio.run(main())
