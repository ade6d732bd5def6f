"""Run the gateway, or do something to its data: `python -m ws_gateway --help`.

Settings come from the environment (docs/operations.md).
"""

import argparse
import errno
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import structlog
import uvloop

from shared.database import DatabaseInUse, DatabaseUnavailable, RelocationRefused, WrongEngine
from shared.logs import configure_logging
from shared.settings import SettingsError
from shared.sqlite_backup import BackupUnusable
from ws_gateway import upkeep
from ws_gateway.app import run
from ws_gateway.protocol import asyncapi
from ws_gateway.server import PATH, SUBPROTOCOL
from ws_gateway.settings import Settings

_LOAD_ANEW = "Clients that connect will load their conversations anew."
_EXIT_FAILED = 1
_EXIT_USAGE = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command. Returns 0, or 1 when it could not be done, or 2 for unusable settings."""
    parsed = _parser().parse_args(arguments)
    if parsed.command == "asyncapi":
        _say(json.dumps(asyncapi.describe(PATH, SUBPROTOCOL), indent=2, ensure_ascii=False))
        return 0
    try:
        settings = Settings.load()
    except SettingsError as error:
        return _fail(str(error), _EXIT_USAGE)
    if parsed.command in {None, "serve"}:
        return _serve(settings)
    return _do(parsed, settings)


def _serve(settings: Settings) -> int:
    configure_logging("ws_gateway", level=settings.log_level, log_format=settings.log_format)
    log = structlog.get_logger("ws_gateway")
    try:
        uvloop.run(run(settings))
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            where = f"{settings.gateway_host}:{settings.gateway_port}"
            log.error(f"{where} is in use; stop what listens there, or set DUET_GATEWAY_PORT")
        else:
            log.error(f"cannot start: {error}")
        return _EXIT_FAILED
    except (DatabaseInUse, DatabaseUnavailable, ValueError) as error:
        log.error(f"cannot start: {error}")
        return _EXIT_FAILED
    return 0


def _do(parsed: argparse.Namespace, settings: Settings) -> int:
    try:
        match parsed.command:
            case "backup":
                upkeep.copy(settings, parsed.file)
            case "restore":
                _say(f"{upkeep.put_back(settings, parsed.file)}. {_LOAD_ANEW}")
            case "compact":
                before, after = upkeep.shrink(settings)
                _say(f"{before / 1e6:.1f} MB before, {after / 1e6:.1f} MB now")
            case "move-to-postgresql":
                for line in uvloop.run(upkeep.move(settings, _progress)):
                    _say(line)
                _say("moved. Start the gateway with DUET_DATABASE_URL; the file is of no more use.")
            case "after-restore":
                uvloop.run(upkeep.begin_life_after_restore(settings))
                _say(_LOAD_ANEW)
    except DatabaseInUse as error:
        return _fail(f"{error}; stop the gateway first")
    except (
        BackupUnusable,
        DatabaseUnavailable,
        RelocationRefused,
        WrongEngine,
        ValueError,
        OSError,
    ) as error:
        return _fail(str(error))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m ws_gateway",
        description="Duet's gateway. Settings come from variables that begin with DUET_.",
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    commands.add_parser("serve", help="serve (the default)")
    commands.add_parser("asyncapi", help="print the AsyncAPI document of the protocol")
    for name, purpose in (
        ("backup", "copy the SQLite database to FILE; the gateway may be running"),
        ("restore", "put the copy in FILE in the database's place; the gateway must be stopped"),
    ):
        commands.add_parser(name, help=purpose).add_argument("file", type=Path, metavar="FILE")
    commands.add_parser(
        "compact", help="give the SQLite file's free space back; the gateway must be stopped"
    )
    commands.add_parser(
        "move-to-postgresql",
        help="copy everything from the data directory to DUET_DATABASE_URL; the gateway must be"
        " stopped; run it again to continue",
    )
    commands.add_parser(
        "after-restore",
        help="have clients load everything anew, after PostgreSQL was put back to an earlier time",
    )
    return parser


def _say(text: str) -> None:
    print(text)  # noqa: T201 - the result of a command


def _progress(table: str, rows: int) -> None:
    print(f"{table}: {rows} rows copied", file=sys.stderr)  # noqa: T201 - there is no log


def _fail(message: str, status: int = _EXIT_FAILED) -> int:
    print(f"ws_gateway: {message}", file=sys.stderr)  # noqa: T201 - before there is a log
    return status


if __name__ == "__main__":
    sys.exit(main())
