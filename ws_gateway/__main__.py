"""`python -m ws_gateway` serves. Settings come from the environment (docs/operations.md)."""

import errno
import sys

import structlog
import uvloop

from shared.logs import configure_logging
from shared.settings import SettingsError
from shared.sqlite import DatabaseInUse, DatabaseUnavailable
from ws_gateway.app import run
from ws_gateway.settings import Settings

_EXIT_FAILED = 1
_EXIT_USAGE = 2


def main() -> int:
    """Run the gateway. Returns the exit status: 0 stopped, 1 could not start, 2 bad settings."""
    try:
        settings = Settings.load()
    except SettingsError as error:
        print(f"ws_gateway: {error}", file=sys.stderr)  # noqa: T201 - logging needs settings
        return _EXIT_USAGE
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


if __name__ == "__main__":
    sys.exit(main())
