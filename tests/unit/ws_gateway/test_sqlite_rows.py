"""Many rows with one statement."""

import contextlib
import sqlite3

import pytest

from ws_gateway.adapters.sqlite_rows import insert_rows


@pytest.mark.parametrize("rows", [0, 1, 2, 63, 64, 65, 128, 200])
def test_every_row_is_inserted_once_whatever_their_number(rows: int) -> None:
    values: list[int | str] = [value for n in range(rows) for value in (n, f"text {n}")]
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("CREATE TABLE kept (number INTEGER, text TEXT, empty TEXT)")

        insert_rows(connection, "INSERT INTO kept", "(?, ?, NULL)", values)

        stored = connection.execute("SELECT * FROM kept ORDER BY rowid").fetchall()
    assert stored == [(n, f"text {n}", None) for n in range(rows)]
