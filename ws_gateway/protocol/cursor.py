"""Cursors: where in the log a client stands. Opaque to clients, and bound to one database life."""

import msgspec

__all__ = ["Cursors", "ForeignCursor"]

_MAX_DIGITS = 18  # of what a 64-bit integer always holds


class ForeignCursor(ValueError):
    """The cursor is not of this database: malformed, or of one that was replaced by a backup."""


class Cursors(msgspec.Struct, frozen=True):
    """Writes and reads the cursors of the database whose life is called `epoch`."""

    epoch: str

    def encode(self, position: int) -> str:
        """Make the cursor that stands just after the event at `position`."""
        return f"{self.epoch}.{position}"

    def decode(self, cursor: str) -> int:
        """Return the position a cursor stands at.

        Raises:
            ForeignCursor: what the client saw is not this database's; it must start afresh.
        """
        epoch, _, position = cursor.rpartition(".")
        is_number = position.isascii() and position.isdigit() and len(position) <= _MAX_DIGITS
        if epoch != self.epoch or not is_number:
            raise ForeignCursor(cursor)
        return int(position)
