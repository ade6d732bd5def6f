"""What gateways remember of people, on PostgreSQL."""

from collections.abc import Sequence
from typing import Any

from shared.ids import UserId
from shared.postgres import Connection, Postgres
from ws_gateway.adapters.postgres_rows import available, is_storable
from ws_gateway.ports import Circle, Preferences

__all__ = ["PostgresPeopleStore"]


class PostgresPeopleStore:
    """A `PeopleStore` on an open database."""

    def __init__(self, database: Postgres) -> None:
        self._database = database

    async def circle(self, user_id: UserId, limit: int) -> Circle:
        """Return whom a user talks with, and what they let them see; see `PeopleStore`."""
        return Circle(await self._ids(_PEERS, user_id, limit), await self.preferences(user_id))

    async def preferences(self, user_id: UserId) -> Preferences:
        """Return what a user lets others see."""
        rows = await self._fetch(
            "SELECT shares_reads, shares_presence FROM users WHERE id = $1", user_id
        )
        return Preferences(*rows[0]) if rows else Preferences()

    async def set_preferences(
        self,
        user_id: UserId,
        *,
        shares_reads: bool | None = None,
        shares_presence: bool | None = None,
    ) -> Preferences:
        """Remember what a user lets others see; see `PeopleStore`."""

        async def write(connection: Connection) -> Any:
            return await connection.fetchrow(
                _SET_PREFERENCES, user_id, shares_reads, shares_presence
            )

        return Preferences(*await available(self._database.autocommit(write)))

    async def set_last_seen(self, user_id: UserId, at_ms: int) -> None:
        """Remember when a user was last here; somebody who never talked needs no row."""
        await self._execute("UPDATE users SET last_seen_ms = $2 WHERE id = $1", user_id, at_ms)

    async def block(self, blocker: UserId, blocked: UserId, at_ms: int) -> None:
        """Refuse what `blocked` sends to `blocker`: from when this returns, on every gateway."""

        async def work(connection: Connection) -> None:
            await connection.execute(_MAKE_USERS, [blocker, blocked])
            await connection.execute(_LOCK, [blocker, blocked])  # sends under way come before
            await connection.execute(_BLOCK, blocker, blocked, at_ms)

        if is_storable(blocked):
            await available(self._database.write(work))

    async def unblock(self, blocker: UserId, blocked: UserId) -> None:
        """Take what they send again."""
        if is_storable(blocked):
            await self._execute(_UNBLOCK, blocker, blocked)

    async def blocks(self, blocker: UserId) -> list[UserId]:
        """Return whom a user blocks, newest first."""
        return await self._ids(_BLOCKS, blocker)

    async def feed_event_id(self) -> str | None:
        """Return how far the revocation feed has been followed, by one gateway at least."""
        rows = await self._fetch("SELECT feed_event_id FROM life")
        event_id: str | None = rows[0]["feed_event_id"]
        return event_id

    async def follow_feed(self, event_id: str, deleted: Sequence[UserId] = ()) -> None:
        """Remember how far the feed has been followed; see `PeopleStore`."""
        await self._execute(_FOLLOW, event_id, sorted(deleted))

    async def known_users(self, after: UserId | None, limit: int) -> list[UserId]:
        """Return users that are known here; see `PeopleStore`."""
        return await self._ids(
            "SELECT id FROM users WHERE id > $1 ORDER BY id LIMIT $2", after or "", limit
        )

    async def users_to_erase(self) -> list[UserId]:
        """Return the users whose erasure was not finished."""
        return await self._ids("SELECT user_id AS id FROM erasures")

    async def finish_erasure(self, user_id: UserId) -> None:
        """Forget that a user is to be erased, whom they blocked, and when they were here."""
        await self._execute(_FINISH_ERASURE, user_id)

    async def _ids(self, statement: str, *arguments: object) -> list[UserId]:
        return [UserId(row["id"]) for row in await self._fetch(statement, *arguments)]

    async def _fetch(self, statement: str, *arguments: object) -> list[Any]:
        async def read(connection: Connection) -> Any:
            return await connection.fetch(statement, *arguments)

        return list(await available(self._database.read(read)))

    async def _execute(self, statement: str, *arguments: object) -> None:
        async def write(connection: Connection) -> None:
            await connection.execute(statement, *arguments)

        await available(self._database.autocommit(write))


_PEERS = """
WITH me AS MATERIALIZED (SELECT key FROM users WHERE id = $1)
SELECT peer.id
FROM (
    (SELECT high AS peer, low_position AS place
     FROM conversations
     WHERE low = (SELECT key FROM me) AND last_seq > 0
       AND NOT EXISTS (SELECT FROM blocks WHERE (blocker, blocked) = (low, high))
       AND NOT EXISTS (SELECT FROM blocks WHERE (blocker, blocked) = (high, low))
     ORDER BY low_recency DESC, low_position DESC LIMIT $2)
    UNION ALL
    (SELECT low, high_position
     FROM conversations
     WHERE high = (SELECT key FROM me) AND last_seq > 0
       AND NOT EXISTS (SELECT FROM blocks WHERE (blocker, blocked) = (low, high))
       AND NOT EXISTS (SELECT FROM blocks WHERE (blocker, blocked) = (high, low))
     ORDER BY high_recency DESC, high_position DESC LIMIT $2)
    ORDER BY place DESC LIMIT $2
) AS chat
JOIN users AS peer ON peer.key = chat.peer
ORDER BY chat.place DESC
"""

_SET_PREFERENCES = """
INSERT INTO users (id, position, shares_reads, shares_presence)
SELECT $1, first_position, coalesce($2, true), coalesce($3, true) FROM life
ON CONFLICT (id) DO UPDATE
SET shares_reads = coalesce($2, users.shares_reads),
    shares_presence = coalesce($3, users.shares_presence)
RETURNING shares_reads, shares_presence
"""

_MAKE_USERS = """
INSERT INTO users (id, position)
SELECT wanted.id, first_position FROM unnest($1::text[]) AS wanted (id), life
WHERE NOT EXISTS (SELECT FROM users WHERE users.id = wanted.id)
ORDER BY wanted.id COLLATE "C"
ON CONFLICT DO NOTHING
"""

_LOCK = "SELECT FROM users WHERE id = ANY ($1) ORDER BY key FOR NO KEY UPDATE"

_BLOCK = """
INSERT INTO blocks (blocker, blocked, at_ms)
SELECT one.key, other.key, $3 FROM users AS one, users AS other WHERE one.id = $1 AND other.id = $2
ON CONFLICT DO NOTHING
"""

_UNBLOCK = """
DELETE FROM blocks USING users AS one, users AS other
WHERE one.id = $1 AND other.id = $2 AND blocker = one.key AND blocked = other.key
"""

_BLOCKS = """
SELECT blocked.id
FROM users AS me
JOIN blocks ON blocks.blocker = me.key
JOIN users AS blocked ON blocked.key = blocks.blocked
WHERE me.id = $1 ORDER BY blocks.at_ms DESC, blocked.key DESC
"""

_FOLLOW = """
WITH deleted AS (
    INSERT INTO erasures (user_id) SELECT unnest($2::text[]) ON CONFLICT DO NOTHING
)
UPDATE life SET feed_event_id = $1
"""

_FINISH_ERASURE = """
WITH me AS (
    UPDATE users SET last_seen_ms = NULL, shares_presence = false WHERE id = $1 RETURNING key
), forgotten AS (
    DELETE FROM blocks USING me WHERE blocker = me.key
)
DELETE FROM erasures WHERE user_id = $1
"""
