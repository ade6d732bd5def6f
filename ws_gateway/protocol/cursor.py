"""Cursors: where in the log a client stands. Opaque to clients, and bound to one database life."""

import msgspec

__all__ = ["Cursors", "ForeignCursor"]


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
        if epoch != self.epoch or not (position.isascii() and position.isdigit()):
            raise ForeignCursor(cursor)
        return int(position)
