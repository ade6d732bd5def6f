"""What a load's clients saw, beside what is stored."""

import contextlib
import itertools
import sqlite3
from pathlib import Path
from typing import NamedTuple, TypeAlias

import msgspec

__all__ = ["Books", "BySender", "StoredRow", "holes", "rows_in_sqlite"]


class StoredRow(NamedTuple):
    """A message in a database, of either engine."""

    conversation: str
    seq: int
    sender: str
    client_id: str


BySender: TypeAlias = dict[tuple[str, str], list[tuple[int, str]]]
"""By conversation and sender: (seq, client id) in the order of `seq`."""


class Books(msgspec.Struct, frozen=True):
    """What a load's books say in the end; the first three must be 0."""

    lost: int
    doubled: int
    disordered: int
    acknowledged: int
    integrity: str

    @property
    def are_good(self) -> bool:
        """Whether nothing happened that must not."""
        wrong = self.lost or self.doubled or self.disordered
        return not wrong and self.integrity == "ok" and self.acknowledged > 0

    def __str__(self) -> str:
        return (
            f"{self.acknowledged} acknowledged: {self.lost} lost, {self.doubled} doubled, "
            f"{self.disordered} out of order"
        )


def rows_in_sqlite(database: Path) -> tuple[list[StoredRow], str]:
    """Everything in a SQLite database; and its integrity."""
    with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        rows = connection.execute(
            """SELECT conversations.id, seq, users.id, client_id FROM messages
            JOIN conversations ON conversations.key = messages.conversation
            JOIN users ON users.key = messages.sender"""
        )
        found = list(itertools.starmap(StoredRow, rows))
        (integrity,) = connection.execute("PRAGMA integrity_check").fetchone()
    return found, str(integrity)


def holes(stored: BySender, conversation: str) -> int:
    """Sequence numbers of a conversation that nobody's message has, or two have."""
    seqs = sorted(seq for key, rows in stored.items() if key[0] == conversation for seq, _ in rows)
    return sum(seq != place for place, seq in enumerate(seqs, start=1))
