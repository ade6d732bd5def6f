"""What can be wrong with a database of either engine, or on the way from one to the other."""

__all__ = [
    "DatabaseInUse",
    "DatabaseTooNew",
    "DatabaseUnavailable",
    "RelocationRefused",
    "WrongEngine",
]


class DatabaseUnavailable(Exception):
    """The database cannot do this now: it is away, locked or full, or its disk fails.

    Nothing was changed, or, when the connection broke during the commit, it is not known whether.
    The same call may succeed later.
    """


class DatabaseTooNew(DatabaseUnavailable):
    """A newer version has changed the schema. Start that one, or restore a backup of this one's."""


class DatabaseInUse(Exception):
    """Another process has this database open. Stop that one, or use another data directory."""


class RelocationRefused(Exception):
    """A move to another engine cannot be done, or is not complete; the message says what to do."""


class WrongEngine(Exception):
    """This is done in another way for the engine that the settings choose; the message says how."""
