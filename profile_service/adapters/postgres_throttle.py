"""`Throttle` in PostgreSQL: several services count together."""

import hashlib
from collections.abc import Callable, Sequence

import asyncpg
import msgspec

from profile_service.adapters.postgres_access import StorePostgres
from profile_service.allowances import Charge, Refusal, retry_after_s, spend
from shared.postgres import Connection, Postgres

__all__ = ["PostgresThrottle"]

_MAKE = (
    "INSERT INTO throttle (key, full_at_s, refused) SELECT unnest($1::bytea[]), $2, false "
    "ON CONFLICT (key) DO NOTHING"
)
_LOCK = (
    "SELECT key, full_at_s, refused FROM throttle WHERE key = ANY($1::bytea[]) "
    "ORDER BY key FOR UPDATE"
)
_SPEND = (
    "UPDATE throttle AS t SET full_at_s = new.full_at_s, refused = false "
    "FROM unnest($1::bytea[], $2::float8[]) AS new (key, full_at_s) WHERE t.key = new.key"
)
_REFUND = """
UPDATE throttle AS t SET full_at_s = t.full_at_s - given.interval_s
FROM (
    SELECT t.key, given.interval_s
    FROM throttle AS t
    JOIN unnest($1::bytea[], $2::float8[]) AS given (key, interval_s) USING (key)
    ORDER BY t.key FOR UPDATE OF t
) AS given
WHERE t.key = given.key
"""


class PostgresThrottle:
    """Keeps allowances in a `Postgres` that was opened with this package's migrations.

    `now` gives seconds since the epoch; the clocks of the services should agree to a few seconds.
    """

    def __init__(self, database: Postgres, *, now: Callable[[], float]) -> None:
        self._database = StorePostgres(database)
        self._now = now

    async def charge(self, charges: Sequence[Charge]) -> Refusal | None:
        keys = [_hash(charge) for charge in charges]
        in_order = sorted(keys)  # so that no two services wait for each other

        async def take(connection: Connection) -> Refusal | None:
            now_s = self._now()
            await connection.execute(_MAKE, in_order, now_s)
            rows = {row["key"]: row for row in await connection.fetch(_LOCK, in_order)}
            full_at_s = []
            for charge, key in zip(charges, keys, strict=True):
                before_s = rows[key]["full_at_s"] if key in rows else now_s
                # a clock that was far ahead once must not keep anybody out for longer than a window
                before_s = min(before_s, now_s + charge.limit.window_s)
                then_s = spend(charge.limit, before_s, now_s)
                if then_s is None:
                    wait_s = retry_after_s(charge.limit, before_s, now_s)
                    return await _refuse(connection, rows[key], Refusal(charge.limit, wait_s, True))
                full_at_s.append(then_s)
            await connection.execute(_SPEND, keys, full_at_s)
            return None

        return await self._database.write(take)

    async def refund(self, charges: Sequence[Charge]) -> None:
        keys = [_hash(charge) for charge in charges]
        intervals_s = [charge.limit.interval_s for charge in charges]
        await self._database.autocommit(
            lambda connection: connection.execute(_REFUND, keys, intervals_s)
        )


async def _refuse(connection: Connection, row: "asyncpg.Record", refusal: Refusal) -> Refusal:
    if row["refused"]:
        return msgspec.structs.replace(refusal, first=False)
    await connection.execute("UPDATE throttle SET refused = true WHERE key = $1", row["key"])
    return refusal


def _hash(charge: Charge) -> bytes:
    """Names that were tried, and addresses, need not be kept to be counted."""
    text = f"{charge.limit.name} {charge.key}".encode("utf-8", "surrogatepass")
    return hashlib.blake2b(text, digest_size=16).digest()
