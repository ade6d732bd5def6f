"""A database that an older version made is brought up to date at the start, and loses nothing.

Every file in `schemas` is one, dumped by `python -m tests.upgrades` of that version.
"""

import contextlib
import sqlite3
from pathlib import Path

import pytest

from tests.upgrades.contents import CHECKED, MADE

SCHEMAS = Path(__file__).parent / "schemas"


def loaded(dump: Path, directory: Path) -> Path:
    """Make the database of a dump."""
    name = dump.stem.partition("-")[0]
    path = directory / f"{name}.db"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript(dump.read_text())
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    return path


@pytest.mark.parametrize("dump", sorted(SCHEMAS.glob("*.sql")), ids=lambda dump: dump.stem)
async def test_database_of_an_older_version_is_upgraded_and_holds_what_it_held(
    dump: Path, tmp_path: Path
) -> None:
    path = loaded(dump, tmp_path)
    await CHECKED[path.stem](path)


@pytest.mark.parametrize("name", MADE)
async def test_database_of_this_version_holds_what_is_looked_for(name: str, tmp_path: Path) -> None:
    path = tmp_path / f"{name}.db"
    await MADE[name](path)
    await CHECKED[name](path)


@pytest.mark.parametrize("dump", sorted(SCHEMAS.glob("*.sql")), ids=lambda dump: dump.stem)
async def test_upgraded_database_has_the_schema_of_a_new_one(dump: Path, tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    path = loaded(dump, tmp_path)
    new = tmp_path / "new" / path.name
    await CHECKED[path.stem](path)
    await MADE[path.stem](new)
    assert _columns(path) == _columns(new)


def _columns(path: Path) -> set[tuple[str, str, str]]:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return set(
            connection.execute(
                "SELECT m.type, m.name, coalesce(p.name || ' ' || p.type || ' ' || p.pk, '')"
                " FROM sqlite_master AS m LEFT JOIN pragma_table_info(m.name) AS p"
                " WHERE m.name NOT LIKE '%yoyo%' AND m.name NOT LIKE 'sqlite_%'"
            )
        )
