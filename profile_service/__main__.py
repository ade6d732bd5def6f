"""Run the profile service, or do something to its data: `python -m profile_service --help`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import structlog
import uvloop

from profile_service import upkeep
from profile_service.app import SERVICE_NAME, KeySetUnreadable, KeysUnusable, Settings, serve
from profile_service.ports import StoreUnavailable
from profile_service.server import AddressUnusable
from shared.database import DatabaseInUse, DatabaseUnavailable, RelocationRefused, WrongEngine
from shared.logs import configure_logging
from shared.settings import SettingsError
from shared.sqlite_backup import BackupUnusable

_COMMANDS = {
    "serve": "serve (the default)",
    "rotate-keys": "make a new signing key; running services take it up within seconds",
    "backup": "copy the SQLite database to FILE; the service may be running",
    "restore": "put the copy in FILE in the database's place; the service must be stopped",
    "compact": "give the SQLite file's free space back; the service must be stopped",
    "move-to-postgresql": "copy everything from the data directory to DUET_DATABASE_URL; the"
    " service must be stopped; run it again to continue",
    "reseal-keys": "encrypt the signing keys in PostgreSQL anew, after the service secret was"
    " changed; FILE holds the old one",
    "after-restore": "log everybody out, after PostgreSQL was put back to an earlier time",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command. Returns 0, or 1 when it could not be done, or 2 for unusable settings."""
    parsed = _parser().parse_args(arguments)
    try:
        settings = Settings.load()
    except SettingsError as error:
        return _fail(str(error), status=2)
    if parsed.command in {None, "serve"}:
        return _serve(settings)
    return _do(parsed, settings)


def _serve(settings: Settings) -> int:
    configure_logging(SERVICE_NAME, level=settings.log_level, log_format=settings.log_format)
    try:
        uvloop.run(serve(settings))
    except KeyboardInterrupt:  # a second Ctrl-C, when the stop is almost done
        return 130
    except (
        AddressUnusable,
        DatabaseInUse,
        DatabaseUnavailable,
        KeySetUnreadable,
        KeysUnusable,
        StoreUnavailable,
        OSError,  # the service secret, or the database's URL
        ValueError,
    ) as error:
        structlog.get_logger(SERVICE_NAME).error(f"cannot start: {error}")
        return 1
    return 0


def _do(parsed: argparse.Namespace, settings: Settings) -> int:
    try:
        _run(parsed, settings)
    except DatabaseInUse as error:
        return _fail(f"{error}; stop the profile service first")
    except (
        BackupUnusable,
        DatabaseUnavailable,
        KeysUnusable,
        StoreUnavailable,
        RelocationRefused,
        WrongEngine,
        OSError,
        ValueError,
    ) as error:
        return _fail(str(error))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m profile_service",
        description="Duet's profile service. Settings come from variables that begin with DUET_.",
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    for name, purpose in _COMMANDS.items():
        command = commands.add_parser(name, help=purpose)
        if name in {"backup", "restore", "reseal-keys"}:
            command.add_argument("file", type=Path, metavar="FILE")
    return parser


def _run(parsed: argparse.Namespace, settings: Settings) -> None:
    match parsed.command:
        case "rotate-keys":
            _say(f"signing with {uvloop.run(upkeep.rotate_keys(settings))}")
        case "backup":
            upkeep.copy(settings, parsed.file)
        case "restore":
            replaced = upkeep.put_back(settings, parsed.file)
            kept = f"; what it replaced is {replaced}" if replaced else ""
            _say(f"restored{kept}. Everybody must log in again.")
        case "compact":
            before, after = upkeep.shrink(settings)
            _say(f"{before / 1e6:.1f} MB before, {after / 1e6:.1f} MB now")
        case "move-to-postgresql":
            for line in uvloop.run(upkeep.move(settings, _progress)):
                _say(line)
            _say(
                "moved. Start the service with DUET_DATABASE_URL; the old files are of no more use."
            )
        case "reseal-keys":
            count = uvloop.run(upkeep.reseal_keys(settings, parsed.file.read_bytes().strip()))
            _say(f"{count} keys are encrypted under the new secret")
        case "after-restore":
            uvloop.run(upkeep.begin_life_after_restore(settings))
            _say("Everybody must log in again.")


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201 - the command's result


def _progress(table: str, rows: int) -> None:
    print(f"{table}: {rows} rows copied", file=sys.stderr)  # noqa: T201 - there is no log


def _fail(message: str, status: int = 1) -> int:
    print(f"profile_service: {message}", file=sys.stderr)  # noqa: T201 - before there is a log
    return status


if __name__ == "__main__":
    sys.exit(main())
