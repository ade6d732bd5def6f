"""What becomes of the gateway's PostgreSQL database after it was restored."""

from shared.postgres import Connection, Postgres
from ws_gateway.adapters.postgres_stores import MIGRATIONS, SCHEMA

__all__ = ["begin_new_life"]

_RENAME = "UPDATE life SET epoch = left(replace(gen_random_uuid()::text, '-', ''), 12)"


async def begin_new_life(url: str) -> None:
    """Rename the life of a restored database, so that cursors of the lost one are noticed.

    Raises:
        DatabaseUnavailable: nothing was changed.
        ValueError: the URL cannot be used.
    """

    async def rename(connection: Connection) -> None:
        await connection.execute(_RENAME)

    async with await Postgres.open(url, MIGRATIONS, schema=SCHEMA) as database:
        await database.write(rename)
