"""What every test gets: the event loops it runs on, and an environment without our settings."""

import asyncio
import os
from collections.abc import Callable, Mapping

import pytest
import structlog
import uvloop

from tests.support.engines import engines
from tests.support.nats_server import nats_url
from tests.support.postgres import _shared_server, postgres_databases, postgres_server

__all__ = ["_shared_server", "engines", "nats_url", "postgres_databases", "postgres_server"]

LoopFactory = Callable[[], asyncio.AbstractEventLoop]

_ON_BOTH_LOOPS = "tests/integration/ws_gateway/"


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, LoopFactory]:
    """Run what depends on transports on uvloop, which serves, and on asyncio, which embedders use.

    Everything else runs on asyncio alone.
    """
    if _ON_BOTH_LOOPS in item.nodeid:
        return {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop}
    return {"asyncio": asyncio.new_event_loop}


@pytest.fixture(autouse=True)
def _without_settings_of_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.upper().startswith("DUET_"):
            monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def _default_logging() -> None:
    """Undo `configure_logging` of an earlier test: structlog keeps its configuration globally."""
    structlog.reset_defaults()
    structlog.configure(
        processors=[
            structlog.stdlib.add_log_level,
            structlog.processors.format_exc_info,
            structlog.processors.KeyValueRenderer(key_order=["event"]),
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
