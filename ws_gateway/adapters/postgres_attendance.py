"""Who is connected to which gateway, in the PostgreSQL database that the gateways share."""

import secrets
from collections.abc import Collection, Sequence

from shared.batching import Batcher
from shared.ids import ConnectionId, UserId
from shared.postgres import Connection, Postgres
from ws_gateway.adapters.postgres_rows import available
from ws_gateway.ports import Arrival, Pulse

__all__ = ["PostgresAttendance"]

_DEAD_AFTER_S = 15.0
_MAX_BATCH = 500


class PostgresAttendance:
    """An `Attendance` for one life of one gateway. Make a new one for the next.

    A gateway that is silent for `dead_after_s` is dead, by the clock of the database. The first
    other gateway that looks takes its rows; nobody else sees them then.
    """

    def __init__(
        self,
        database: Postgres,
        *,
        max_connections_per_user: int,
        dead_after_s: float = _DEAD_AFTER_S,
    ) -> None:
        self._database = database
        self._max_connections_per_user = max_connections_per_user
        self._dead_after_s = dead_after_s
        self._gateway = secrets.token_hex(8)
        self._has_begun = False
        self._was_forgotten = False
        """The others took this gateway for dead, and nothing was restored since."""
        self._arrivals: Batcher[tuple[UserId, ConnectionId], Arrival] = Batcher(
            self._arrive, max_batch=_MAX_BATCH
        )

    async def arrive(self, user_id: UserId, connection_id: ConnectionId) -> Arrival:
        """Note a new connection, together with others that come now; see `Attendance`."""
        return await self._arrivals.submit((user_id, connection_id))

    async def leave(self, connection_id: ConnectionId, *, may_return: bool) -> None:
        """Note that a connection is gone; see `Attendance`."""
        statement = _LEAVING if may_return else _LEFT

        async def work(connection: Connection) -> None:
            await connection.execute(statement, connection_id)

        await available(self._database.autocommit(work))

    async def depart(self, user_id: UserId) -> bool:
        """Forget a user who did not return here; see `Attendance`.

        Two statements: of two gateways that do this at once, the later one sees that nobody is left
        (or both do), and somebody is told.
        """

        async def work(connection: Connection) -> bool:
            await connection.execute(_DEPART, user_id, self._gateway)
            return not await connection.fetchval(_IS_ANYWHERE, user_id)

        return await available(self._database.autocommit(work))

    async def elsewhere(self, user_ids: Collection[UserId], viewer: UserId) -> set[UserId]:
        """Return who is on other gateways; see `Attendance`."""

        async def work(connection: Connection) -> set[UserId]:
            rows = await connection.fetch(_ELSEWHERE, list(user_ids), self._gateway, viewer)
            return {UserId(row["person"]) for row in rows}

        return await available(self._database.read(work))

    async def beat(self, *, hears: bool) -> Pulse:
        """Say that this gateway lives, and take what dead ones left; see `Attendance`."""

        async def work(connection: Connection) -> Pulse:
            was_known = await connection.fetchval(_BEAT, self._gateway, hears)
            self._was_forgotten |= self._has_begun and not was_known
            if not self._has_begun:
                await connection.execute(_CLEAR)
            departed = await connection.fetch(_BURY, self._dead_after_s)
            others, deaf = await connection.fetchrow(_OTHERS, self._gateway)
            return Pulse(
                was_forgotten=self._was_forgotten,
                departed=[(UserId(row["person"]), row["seen_at_ms"]) for row in departed],
                others=others,
                others_are_deaf=deaf,
            )

        pulse = await available(self._database.autocommit(work))
        self._has_begun = True
        return pulse

    async def restore(self, connections: Sequence[tuple[UserId, ConnectionId]]) -> None:
        """Write all connections of this gateway anew; see `Attendance`."""
        people = [user_id for user_id, _ in connections]
        names = [connection_id for _, connection_id in connections]

        async def work(connection: Connection) -> None:
            await connection.execute(_FORGET_OTHERS, self._gateway, names)
            await connection.execute(_ARRIVE, names, people, self._gateway)

        await available(self._database.write(work))
        self._was_forgotten = False

    async def _arrive(self, arrivals: Sequence[tuple[UserId, ConnectionId]]) -> Sequence[Arrival]:
        people = [user_id for user_id, _ in arrivals]
        names = [connection_id for _, connection_id in arrivals]

        async def work(connection: Connection) -> Sequence[Arrival]:
            # In this order: who returns is somewhere all the while, for peers who look just now.
            await connection.execute(_ARRIVE, names, people, self._gateway)
            await connection.execute(_RETURNED, people, self._gateway)
            rows = await connection.fetch(
                _CONSEQUENCES, people, self._gateway, self._max_connections_per_user
            )
            found = {row["person"]: row for row in rows}
            return [
                Arrival(
                    is_first=found[person]["is_first"],
                    evicted=[ConnectionId(each) for each in found[person]["evicted"]],
                )
                if person in found
                else Arrival()  # it is gone already
                for person in people
            ]

        return await available(self._database.autocommit(work))


_ARRIVE = """
INSERT INTO attendance (connection, person, gateway)
SELECT name, person, $3 FROM unnest($1::text[], $2::text[]) AS arrived (name, person)
ON CONFLICT (connection) DO NOTHING
"""

_RETURNED = "DELETE FROM attendance WHERE person = ANY ($1) AND gateway = $2 AND leaving"

_CONSEQUENCES = """
SELECT person,
       min(arrival) FILTER (WHERE gateway <> $2) IS NULL
       OR min(arrival) FILTER (WHERE gateway <> $2) > min(arrival) FILTER (WHERE gateway = $2)
           AS is_first,
       coalesce(array_agg(connection) FILTER (WHERE NOT leaving AND place > $3), '{}') AS evicted
FROM (
    SELECT person, arrival, gateway, leaving, connection,
           count(*) FILTER (WHERE NOT leaving)
               OVER (PARTITION BY person ORDER BY arrival DESC) AS place
    FROM attendance WHERE person = ANY ($1)
) AS held
GROUP BY person
"""

_LEAVING = "UPDATE attendance SET leaving = true WHERE connection = $1"
_LEFT = "DELETE FROM attendance WHERE connection = $1"
_DEPART = "DELETE FROM attendance WHERE person = $1 AND gateway = $2 AND leaving"
_IS_ANYWHERE = "SELECT EXISTS (SELECT FROM attendance WHERE person = $1)"

_ELSEWHERE = """
SELECT DISTINCT person FROM attendance
LEFT JOIN users ON users.id = person
LEFT JOIN users AS viewer ON viewer.id = $3
WHERE person = ANY ($1) AND gateway <> $2 AND coalesce(users.shares_presence, true)
  AND NOT EXISTS (SELECT FROM blocks WHERE blocker = viewer.key AND blocked = users.key)
  AND NOT EXISTS (SELECT FROM blocks WHERE blocker = users.key AND blocked = viewer.key)
"""

_BEAT = """
INSERT INTO gateways (id, seen_at, hears) VALUES ($1, clock_timestamp(), $2)
ON CONFLICT (id) DO UPDATE SET seen_at = excluded.seen_at, hears = excluded.hears
RETURNING xmax <> 0
"""

_BURY = """
WITH dead AS (
    DELETE FROM gateways WHERE seen_at < clock_timestamp() - make_interval(secs => $1)
    RETURNING id, seen_at
), left_behind AS (
    DELETE FROM attendance USING dead WHERE attendance.gateway = dead.id
    RETURNING attendance.connection, attendance.person, dead.seen_at
)
SELECT person, (extract(epoch FROM max(seen_at)) * 1000)::bigint AS seen_at_ms
FROM left_behind
WHERE NOT EXISTS (
    SELECT FROM attendance
    WHERE attendance.person = left_behind.person
      AND attendance.connection NOT IN (SELECT connection FROM left_behind)
)
GROUP BY person
"""

_CLEAR = "DELETE FROM attendance WHERE gateway NOT IN (SELECT id FROM gateways)"
"""What a gateway wrote after the others took it for dead, and before it died."""

_OTHERS = "SELECT count(*), count(*) FILTER (WHERE NOT hears) > 0 FROM gateways WHERE id <> $1"

_FORGET_OTHERS = """
DELETE FROM attendance WHERE gateway = $1 AND connection NOT IN (SELECT unnest($2::text[]))
"""
"""A subquery is hashed; `= ANY` would compare each row with each connection."""
