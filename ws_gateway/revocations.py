"""Closes the connections of sessions that have ended, whichever way the news arrives.

The feed brings it at once. While the feed is down, and whenever it cannot say what happened
meanwhile, the sessions that are held are checked one by one against the profile service.
"""

import asyncio
import collections
import random
import time
from collections.abc import Callable, Iterable

import structlog

from shared.ids import UserId
from shared.revocation import MAX_SESSIONS, Revocation
from ws_gateway.delivery.connection_map import ConnectionMap, LiveConnection
from ws_gateway.identity import Identity
from ws_gateway.metrics import Metrics
from ws_gateway.ports import (
    FeedReady,
    FeedReset,
    PeopleStore,
    ProfileServiceUnavailable,
    RevocationFeed,
    StoreUnavailable,
)

__all__ = ["RevocationWatch"]

_USERS_AT_ONCE = 1000

_log = structlog.get_logger(__name__)


class RevocationWatch:
    """Listens to the feed for as long as `run` runs; `poll` is its backstop, in a second task.

    For one event loop.
    """

    def __init__(
        self,
        feed: RevocationFeed,
        connections: ConnectionMap,
        people: PeopleStore,
        metrics: Metrics,
        *,
        end_connection: Callable[[LiveConnection], None],
        user_deleted: Callable[[UserId], None],
        poll_interval_s: float = 30.0,
        remember_s: float = 60.0,
        max_backoff_s: float = 5.0,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """`user_deleted` is called once the store knows of it."""
        self._feed = feed
        self._connections = connections
        self._people = people
        self._metrics = metrics
        self._end_connection = end_connection
        self._user_deleted = user_deleted
        self._poll_interval_s = poll_interval_s
        self._remember_s = remember_s
        self._max_backoff_s = max_backoff_s
        self._now = now
        self._recent: collections.deque[tuple[float, Revocation]] = collections.deque(maxlen=50_000)
        self._event_id: str | None = None
        """How far the feed was followed here. The store says how far anybody has: not enough, once
        there are connections here which that may concern."""
        self.connected = asyncio.Event()
        """Set while the feed is connected."""

    def has_ended(self, identity: Identity) -> bool:
        """Whether the session ended while its tokens were being verified.

        The news may overtake the verdict; a connection that joins the map later would stay.
        """
        while self._recent and self._recent[0][0] < self._now() - self._remember_s:
            self._recent.popleft()
        return any(identity.is_ended_by(revocation) for _, revocation in self._recent)

    async def run(self) -> None:
        """Listen for ever, reconnecting with jittered backoff when the feed breaks off."""
        failures = 0
        while True:
            try:
                after = self._event_id or await self._people.feed_event_id()
                async for event_id, event in self._feed.events(after):
                    failures = 0
                    await self._receive(event_id, event)
                reason = "it ended"
            except (ProfileServiceUnavailable, StoreUnavailable) as error:
                reason = str(error)
            finally:
                was_connected = self.connected.is_set()
                self.connected.clear()
                self._metrics.feed_connected.set(0)
            if was_connected or failures == 0:
                _log.warning("the revocation feed is down; polling instead", reason=reason)
            longest_s = min(self._max_backoff_s, 0.1 * 2**failures)
            failures = min(failures + 1, 16)
            await asyncio.sleep(random.uniform(longest_s / 2, longest_s))  # noqa: S311

    async def poll(self) -> None:
        """Check the held sessions every `poll_interval_s` while the feed is down."""
        while True:
            await asyncio.sleep(self._poll_interval_s)
            if not self.connected.is_set():
                await self.check_held_sessions()

    async def check_held_sessions(self) -> None:
        """Ask which of the held sessions have ended and close their connections.

        When nobody can tell, connections stay: they end with their tokens at the latest.
        """
        held = self._connections.sessions()
        for start in range(0, len(held), MAX_SESSIONS):
            try:
                ended = set(await self._feed.ended(held[start : start + MAX_SESSIONS]))
            except ProfileServiceUnavailable as error:
                _log.warning("the held sessions cannot be checked", reason=str(error))
                return
            self._end(c for c in self._connections if c.identity.session_id in ended)

    async def _receive(self, event_id: str, event: FeedReady | FeedReset | Revocation) -> None:
        deleted: list[UserId] = []
        match event:
            case FeedReady():
                _log.info("the revocation feed is connected")
                self.connected.set()
                self._metrics.feed_connected.set(1)
            case FeedReset():
                await self.check_held_sessions()
                deleted = await self._deleted_unheard()
            case Revocation():
                self._recent.append((self._now(), event))
                self._end(self._connections.ended_by(event))
                if event.kind == "user_deleted":
                    deleted = [event.user_id]
        await self._people.follow_feed(event_id, deleted)
        self._event_id = event_id
        for user_id in deleted:
            self._user_deleted(user_id)

    async def _deleted_unheard(self) -> list[UserId]:
        """Ask about everybody who is known here: the feed will not tell of them again."""
        deleted: list[UserId] = []
        after: UserId | None = None
        while known := await self._people.known_users(after, _USERS_AT_ONCE):
            deleted += await self._feed.deleted(known)
            after = known[-1]
        return deleted

    def _end(self, connections: Iterable[LiveConnection]) -> None:
        for connection in list(connections):
            self._metrics.revoked.inc()
            self._end_connection(connection)
