"""What the gateway remembers of people, on SQLite."""

import sqlite3
from collections.abc import Callable, Sequence

from shared.batching import Batcher
from shared.ids import UserId
from shared.sqlite import Database
from ws_gateway.adapters.sqlite_rows import available
from ws_gateway.ports import Circle, Preferences

__all__ = ["SqlitePeopleStore"]

_CIRCLES_A_READ = 16
"""Some people talk with a thousand: other reads wait for all of it."""
_KEY = "(SELECT key FROM users WHERE id = ?)"


class SqlitePeopleStore:
    """A `PeopleStore` on an open database.

    `forget_route` is told of each block, within its transaction, in the writer's thread.
    """

    def __init__(self, database: Database, forget_route: Callable[[UserId, UserId], None]) -> None:
        self._database = database
        self._forget_route = forget_route
        self._circles: Batcher[tuple[UserId, int], Circle] = Batcher(
            self._read_circles, max_batch=_CIRCLES_A_READ
        )

    async def circle(self, user_id: UserId, limit: int) -> Circle:
        """Return whom a user talks with, and what they let them see; see `PeopleStore`."""
        return await self._circles.submit((user_id, limit))

    async def preferences(self, user_id: UserId) -> Preferences:
        """Return what a user lets others see."""
        return await available(self._database.read(lambda c: _preferences(c, user_id)))

    async def set_preferences(
        self,
        user_id: UserId,
        *,
        shares_reads: bool | None = None,
        shares_presence: bool | None = None,
    ) -> Preferences:
        """Remember what a user lets others see; see `PeopleStore`."""

        def work(connection: sqlite3.Connection) -> Preferences:
            connection.execute(_SET_PREFERENCES, (user_id, shares_reads, shares_presence))
            return _preferences(connection, user_id)

        return await available(self._database.write(work))

    async def set_last_seen(self, user_id: UserId, at_ms: int) -> None:
        """Remember when a user was last here; somebody who never talked needs no row."""
        await self._write("UPDATE users SET last_seen_ms = ? WHERE id = ?", at_ms, user_id)

    async def block(self, blocker: UserId, blocked: UserId, at_ms: int) -> None:
        """Refuse what `blocked` sends to `blocker`."""

        def work(connection: sqlite3.Connection) -> None:
            for user_id in (blocker, blocked):
                connection.execute("INSERT OR IGNORE INTO users (id) VALUES (?)", (user_id,))
            connection.execute(
                f"INSERT OR IGNORE INTO blocks VALUES ({_KEY}, {_KEY}, ?)",
                (blocker, blocked, at_ms),
            )
            self._forget_route(blocked, blocker)

        await available(self._database.write(work))

    async def unblock(self, blocker: UserId, blocked: UserId) -> None:
        """Take what they send again."""

        def work(connection: sqlite3.Connection) -> None:
            connection.execute(
                f"DELETE FROM blocks WHERE blocker = {_KEY} AND blocked = {_KEY}",
                (blocker, blocked),
            )
            self._forget_route(blocked, blocker)

        await available(self._database.write(work))

    async def blocks(self, blocker: UserId) -> list[UserId]:
        """Return whom a user blocks, newest first."""
        rows = await self._read(
            "SELECT users.id FROM blocks JOIN users ON users.key = blocks.blocked"
            f" WHERE blocker = {_KEY} ORDER BY at_ms DESC, users.key DESC",
            blocker,
        )
        return [user_id for (user_id,) in rows]

    async def feed_event_id(self) -> str | None:
        """Return how far the revocation feed has been followed."""
        ((event_id,),) = await self._read("SELECT feed_event_id FROM life")
        return event_id

    async def follow_feed(self, event_id: str, deleted: Sequence[UserId] = ()) -> None:
        """Remember how far the feed has been followed; see `PeopleStore`."""

        def work(connection: sqlite3.Connection) -> None:
            connection.executemany(
                "INSERT OR IGNORE INTO erasures VALUES (?)", [(user_id,) for user_id in deleted]
            )
            connection.execute("UPDATE life SET feed_event_id = ?", (event_id,))

        await available(self._database.write(work))

    async def known_users(self, after: UserId | None, limit: int) -> list[UserId]:
        """Return users that are known here; see `PeopleStore`."""
        rows = await self._read(
            "SELECT id FROM users WHERE id > ? ORDER BY id LIMIT ?", after or "", limit
        )
        return [user_id for (user_id,) in rows]

    async def users_to_erase(self) -> list[UserId]:
        """Return the users whose erasure was not finished."""
        rows = await self._read("SELECT user_id FROM erasures")
        return [user_id for (user_id,) in rows]

    async def finish_erasure(self, user_id: UserId) -> None:
        """Forget that a user is to be erased, whom they blocked, and when they were here."""

        def work(connection: sqlite3.Connection) -> None:
            connection.execute(f"DELETE FROM blocks WHERE blocker = {_KEY}", (user_id,))
            connection.execute(
                "UPDATE users SET last_seen_ms = NULL, shares_presence = 0 WHERE id = ?", (user_id,)
            )
            connection.execute("DELETE FROM erasures WHERE user_id = ?", (user_id,))

        await available(self._database.write(work))

    async def _read_circles(self, asked: Sequence[tuple[UserId, int]]) -> list[Circle]:
        return await available(
            self._database.read(lambda c: [_circle(c, user_id, limit) for user_id, limit in asked])
        )

    async def _read(self, sql: str, *arguments: object) -> list[tuple[UserId, ...]]:
        return await available(self._database.read(lambda c: c.execute(sql, arguments).fetchall()))

    async def _write(self, sql: str, *arguments: object) -> None:
        await available(self._database.write(lambda c: c.execute(sql, arguments) and None))


def _circle(connection: sqlite3.Connection, user_id: UserId, limit: int) -> Circle:
    rows = connection.execute(_PEERS, (user_id, limit)).fetchall()
    return Circle([peer for (peer,) in rows], _preferences(connection, user_id))


def _preferences(connection: sqlite3.Connection, user_id: UserId) -> Preferences:
    row = connection.execute(
        "SELECT shares_reads, shares_presence FROM users WHERE id = ?", (user_id,)
    ).fetchone()
    return Preferences(*map(bool, row)) if row else Preferences()


_SET_PREFERENCES = """
INSERT INTO users (id, shares_reads, shares_presence)
VALUES (?1, coalesce(?2, true), coalesce(?3, true))
ON CONFLICT (id) DO UPDATE
SET shares_reads = coalesce(?2, shares_reads), shares_presence = coalesce(?3, shares_presence)
"""

_PEERS = """
SELECT peer.id
FROM members AS mine
CROSS JOIN users AS peer ON peer.key = mine.peer
WHERE mine.user = (SELECT key FROM users WHERE id = ?)
  AND NOT EXISTS (SELECT 1 FROM blocks WHERE blocker = mine.user AND blocked = mine.peer)
  AND NOT EXISTS (SELECT 1 FROM blocks WHERE blocker = mine.peer AND blocked = mine.user)
ORDER BY mine.last_position DESC LIMIT ?
"""
