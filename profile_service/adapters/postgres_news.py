"""Hears from PostgreSQL that another service has appended to the feed (LISTEN and NOTIFY)."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import structlog

from profile_service.adapters.postgres_rows import CHANNEL
from shared.database import DatabaseUnavailable
from shared.postgres import Connection, Postgres

__all__ = ["listening"]

CHECK_INTERVAL_S = 10.0
"""How soon it is noticed that the network has swallowed the connection."""
RECONNECT_DELAY_S = 1.0

_log = structlog.get_logger(__name__)


@contextlib.asynccontextmanager
async def listening(database: Postgres, on_news: Callable[[], None]) -> AsyncIterator[None]:
    """Call `on_news` whenever the feed may have grown, while the context lasts.

    What is sent while the connection is being made again is lost; then `on_news` is called, too.
    """
    task = asyncio.create_task(_listen_for_ever(database, on_news))
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def _listen_for_ever(database: Postgres, on_news: Callable[[], None]) -> None:
    while True:
        try:
            async with database.connection() as connection:
                await _listen(connection, on_news)
        except DatabaseUnavailable as error:
            _log.debug("not_listening", reason=str(error))
        except Exception:  # a bug, or a refusal that nobody thought of
            _log.exception("listening_failed")
        await asyncio.sleep(RECONNECT_DELAY_S)


async def _listen(connection: Connection, on_news: Callable[[], None]) -> None:
    """Return when the connection is lost."""
    lost = asyncio.Event()
    connection.add_termination_listener(lambda _connection: lost.set())
    await connection.add_listener(CHANNEL, lambda *_news: on_news())
    on_news()
    while not lost.is_set():
        try:
            async with asyncio.timeout(CHECK_INTERVAL_S):
                await lost.wait()
        except TimeoutError:
            await connection.execute("SELECT 1")
