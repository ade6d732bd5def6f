"""What the gateway needs from the world, as it says it itself.

Each port has an adapter in `ws_gateway.adapters` (SQLite, this process, the profile service) and
room for another (PostgreSQL, NATS). The contract tests in tests/contract run on every one.
"""

from collections.abc import Callable
from typing import Protocol

from ws_gateway.ports.archive import (
    ConversationSummary,
    MessageArchive,
    MessagePage,
    SearchHit,
    SearchPage,
    Trace,
)
from ws_gateway.ports.attendance import Arrival, Attendance, Pulse
from ws_gateway.ports.bus import MessageBus, Receiver, UserBus
from ws_gateway.ports.messages import EventPage, MessageStore, SharedLogs, StoreUnavailable
from ws_gateway.ports.people import Circle, PeopleStore, Preferences
from ws_gateway.ports.profile import (
    FeedEvent,
    FeedReady,
    FeedReset,
    IdentityVerifier,
    ProfileService,
    ProfileServiceUnavailable,
    RevocationFeed,
    UserDirectory,
)

__all__ = [
    "Arrival",
    "Attendance",
    "Circle",
    "ConversationSummary",
    "EventPage",
    "FeedEvent",
    "FeedReady",
    "FeedReset",
    "IdentityVerifier",
    "MessageArchive",
    "MessageBus",
    "MessagePage",
    "MessageStore",
    "PeopleStore",
    "Preferences",
    "ProfileService",
    "ProfileServiceUnavailable",
    "Pulse",
    "Receiver",
    "RevocationFeed",
    "SearchHit",
    "SearchPage",
    "SharedLogs",
    "StoreUnavailable",
    "Stores",
    "Trace",
    "UserBus",
    "UserDirectory",
]


class Stores(Protocol):
    """All that is kept, in one database."""

    @property
    def messages(self) -> MessageStore: ...
    @property
    def archive(self) -> MessageArchive: ...
    @property
    def people(self) -> PeopleStore: ...
    async def tidy_up(self, is_busy: Callable[[], bool]) -> None:
        """Let what follows the log catch up, in small pieces: one, and more unless it `is_busy`.

        Called again and again. Raises StoreUnavailable: not now.
        """
        ...
