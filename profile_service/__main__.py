"""Run the profile service, or do something to its data: `python -m profile_service --help`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import uvloop

from profile_service.adapters.sqlite_life import DATABASE_NAME, begin_new_life
from profile_service.app import (
    SERVICE_NAME,
    KeySetUnreadable,
    KeysUnusable,
    Settings,
    keys_of,
    serve,
)
from profile_service.server import AddressUnusable
from shared.logs import configure_logging
from shared.settings import SettingsError
from shared.sqlite import DatabaseInUse, DatabaseUnavailable
from shared.sqlite_backup import BackupUnusable, back_up, restore

ROTATED_KEY_MARGIN_S = 86_400
"""A key is kept this much longer than the longest-lived token that it signed."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command. Returns 0, or 1 when it could not be done, or 2 for unusable settings."""
    parsed = _parser().parse_args(arguments)
    try:
        settings = Settings.load()
    except SettingsError as error:
        return _fail(str(error), status=2)
    try:
        if parsed.command in {"backup", "restore"}:
            return _copy(parsed.command, settings.data_dir / DATABASE_NAME, parsed.file)
        if parsed.command == "rotate-keys":
            keep_s = settings.refresh_token_lifetime_s + ROTATED_KEY_MARGIN_S
            print(f"signing with {keys_of(settings).rotate(keep_s)}")  # noqa: T201 - its result
            return 0
        configure_logging(SERVICE_NAME, level=settings.log_level, log_format=settings.log_format)
        uvloop.run(serve(settings))
    except KeyboardInterrupt:  # a second Ctrl-C, when the stop is almost done
        return 130
    except (
        AddressUnusable,
        DatabaseInUse,
        DatabaseUnavailable,
        KeySetUnreadable,
        KeysUnusable,
    ) as error:
        return _fail(str(error))
    except (OSError, ValueError) as error:  # the service secret
        return _fail(f"cannot start: {error}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m profile_service",
        description="Duet's profile service. Settings come from variables that begin with DUET_.",
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    commands.add_parser("serve", help="serve (the default)")
    commands.add_parser(
        "rotate-keys", help="make a new signing key; a running service takes it up within seconds"
    )
    for name, purpose in (
        ("backup", "copy the database to FILE; the service may be running"),
        ("restore", "put the copy in FILE in the database's place; the service must be stopped"),
    ):
        commands.add_parser(name, help=purpose).add_argument("file", type=Path, metavar="FILE")
    return parser


def _copy(command: str, database: Path, file: Path) -> int:
    try:
        if command == "backup":
            back_up(database, file)
            return 0
        replaced = restore(file, database, begin_new_life)
    except DatabaseInUse as error:
        return _fail(f"{error}; stop the profile service first")
    except BackupUnusable as error:
        return _fail(str(error))
    kept = f"; what it replaced is {replaced}" if replaced else ""
    print(f"restored {database}{kept}. Everybody must log in again.")  # noqa: T201 - its result
    return 0


def _fail(message: str, status: int = 1) -> int:
    print(f"profile_service: {message}", file=sys.stderr)  # noqa: T201 - before there is a log
    return status


if __name__ == "__main__":
    sys.exit(main())
