"""What the gateway needs from the world, as it says it itself.

Each port has an adapter in `ws_gateway.adapters` (SQLite, this process, the profile service) and
room for another (PostgreSQL, NATS). The contract tests in tests/contract run on every one.
"""

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Protocol, TypeAlias

import msgspec

from shared.ids import ConversationId, SessionId, UserId
from shared.introspection import TokenPair
from shared.revocation import HeldSession, Revocation
from ws_gateway.conversations import Change, Event, Message, Notice, Outcome
from ws_gateway.identity import Identity

__all__ = [
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
    "RevocationFeed",
    "SearchHit",
    "SearchPage",
    "StoreUnavailable",
    "Trace",
    "UserDirectory",
]


class StoreUnavailable(Exception):
    """The store cannot do this now, and has changed nothing. The same call may succeed later."""


class ProfileServiceUnavailable(Exception):
    """The profile service did not answer in time, or not as agreed. Try again later."""


class EventPage(msgspec.Struct, frozen=True):
    """Events of one user after a position, oldest first."""

    events: list[Event]
    upto: int
    """Every event of the user up to this position is in this page or an earlier one."""
    complete: bool
    """Nothing more was in the log when it was read."""


class MessageStore(Protocol):
    """Keeps conversations for ever, in order. One committer calls `append_batch`, one at a time."""

    @property
    def epoch(self) -> str:
        """The name of this database's life: another after a restored backup."""
        ...

    @property
    def position(self) -> int:
        """The position of the last event that was committed; 0 when there is none."""
        ...

    async def append_batch(self, changes: Sequence[Change], at_ms: int) -> list[Outcome]:
        """Make changes in one transaction, in their order; on return they are on the disk.

        Returns an outcome for each change, in the same order. A change whose author and id are
        known is not made again.

        Raises:
            StoreUnavailable: none of them was made.
        """
        ...

    async def events_after(self, user_id: UserId, position: int, limit: int) -> EventPage:
        """Return what concerns a user after `position`, at most `limit` events.

        Raises:
            StoreUnavailable: it cannot be read now.
        """
        ...

    async def receipts_after(
        self, user_id: UserId, position: int
    ) -> list[tuple[ConversationId, UserId, int, int]]:
        """Return marks of the user and their peers that moved after `position`, as the user may
        see them: conversation, whose marks, received, read. The newest 1,000 at most.

        Raises:
            StoreUnavailable: it cannot be read now.
        """
        ...

    def note_delivery(self, position: int, connections: int, at_ms: int) -> None:
        """Remember that an event went out to its recipient; kept with a later transaction.

        For tracing only: what a crash loses here is not missed anywhere else.
        """
        ...

    async def conversations_to_erase(self, user_id: UserId) -> list[ConversationId]:
        """Return some conversations in which messages of this user still have their text.

        Raises:
            StoreUnavailable: it cannot be read now.
        """
        ...

    async def is_available(self) -> bool:
        """Whether the store answers a trivial read."""
        ...


class MessagePage(msgspec.Struct, frozen=True):
    """Messages of one conversation, oldest first; `more` when the limit cut them off."""

    messages: list[Message]
    more: bool


class ConversationSummary(msgspec.Struct, frozen=True):
    """One line of a person's conversation list."""

    conversation: ConversationId
    peer: UserId
    peer_last_seen_ms: int | None
    last_message: Message
    unread: int
    received: int
    read: int
    peer_received: int
    peer_read: int | None
    """None when the peer keeps it private."""
    position: int
    """Where the list goes on after this line."""


class SearchHit(msgspec.Struct, frozen=True):
    """A message that matches, and the piece of it that does, matches between « and »."""

    message: Message
    snippet: str


class SearchPage(msgspec.Struct, frozen=True):
    """The best hits first; `more` when the limit cut them off."""

    hits: list[SearchHit]
    more: bool
    complete: bool
    """Whether every message was searched; false while the index still catches up with a flood."""


class Trace(msgspec.Struct, frozen=True):
    """What happened to a message, with times in milliseconds since the epoch."""

    message: Message
    delivered_at_ms: int | None
    delivered_connections: int
    received_at_ms: int | None
    read_at_ms: int | None


class MessageArchive(Protocol):
    """Reads what is stored. Every call raises StoreUnavailable when it cannot be read now."""

    async def history(
        self,
        user_id: UserId,
        peer_id: UserId,
        *,
        before: int | None,
        after: int | None,
        limit: int,
    ) -> MessagePage:
        """Return messages of two people: the last `limit` before a seq, or the first after one."""
        ...

    async def conversations(
        self, user_id: UserId, before_position: int | None, limit: int
    ) -> list[ConversationSummary]:
        """Return a user's conversations, the one with the newest message first."""
        ...

    async def search(
        self, user_id: UserId, query: str, peer_id: UserId | None, offset: int, limit: int
    ) -> SearchPage:
        """Find messages of the user's own conversations that hold every word of `query`."""
        ...

    async def trace(self, user_id: UserId, conversation: ConversationId, seq: int) -> Trace | None:
        """Return what happened to a message of this user; nothing when it is not theirs."""
        ...


class Preferences(msgspec.Struct, frozen=True):
    """What a person lets others see."""

    shares_reads: bool = True
    shares_presence: bool = True


class PeopleStore(Protocol):
    """What the gateway remembers of people. Every call may raise StoreUnavailable."""

    async def peers(self, user_id: UserId, limit: int) -> list[UserId]:
        """Return whom a user has a conversation with and no block either way, newest first."""
        ...

    async def preferences(self, user_id: UserId) -> Preferences:
        """Return what a user lets others see."""
        ...

    async def set_preferences(self, user_id: UserId, preferences: Preferences) -> None:
        """Remember what a user lets others see."""
        ...

    async def set_last_seen(self, user_id: UserId, at_ms: int) -> None:
        """Remember when a user's last connection ended."""
        ...

    async def block(self, blocker: UserId, blocked: UserId, at_ms: int) -> None:
        """Refuse what `blocked` sends to `blocker` from now on. Safe to repeat."""
        ...

    async def unblock(self, blocker: UserId, blocked: UserId) -> None:
        """Take what they send again. Safe to repeat."""
        ...

    async def blocks(self, blocker: UserId) -> list[UserId]:
        """Return whom a user blocks, newest first."""
        ...

    async def feed_event_id(self) -> str | None:
        """Return how far the revocation feed has been followed."""
        ...

    async def follow_feed(self, event_id: str, deleted: UserId | None = None) -> None:
        """Remember how far the feed has been followed and, at once, that a user is to be erased."""
        ...

    async def users_to_erase(self) -> list[UserId]:
        """Return the users whose erasure was not finished."""
        ...

    async def finish_erasure(self, user_id: UserId) -> None:
        """Forget that a user is to be erased, and whom they blocked: it is done."""
        ...


class IdentityVerifier(Protocol):
    """Says who a token pair belongs to."""

    async def verify(self, tokens: TokenPair) -> Identity | None:
        """Return the identity, or nothing when the tokens are not good.

        Raises:
            ProfileServiceUnavailable: nobody could tell; the tokens are not to be trusted.
        """
        ...


class UserDirectory(Protocol):
    """Knows which users exist."""

    async def username(self, user_id: UserId) -> str | None:
        """Return the name of a user; nothing when there is no such user.

        Raises:
            ProfileServiceUnavailable: nobody could tell.
        """
        ...


class FeedReady(msgspec.Struct, frozen=True):
    """The feed is connected, and continues where it was left."""


class FeedReset(msgspec.Struct, frozen=True):
    """The feed cannot continue where it was: check every session that is held."""


FeedEvent: TypeAlias = FeedReady | FeedReset | Revocation


class RevocationFeed(Protocol):
    """Tells when sessions end."""

    def events(self, after: str | None) -> AsyncIterator[tuple[str, FeedEvent]]:
        """Listen from after the event of that id; each event comes with its own id.

        Without an id the first event is `FeedReset`: what happened before is not known.

        Raises:
            ProfileServiceUnavailable: it cannot be reached, or broke off.
        """
        ...

    async def ended(self, sessions: Sequence[HeldSession]) -> list[SessionId]:
        """Return those of the sessions that have ended.

        Raises:
            ProfileServiceUnavailable: nobody could tell.
        """
        ...


class ProfileService(IdentityVerifier, UserDirectory, RevocationFeed, Protocol):
    """All that the gateway asks of the profile service."""


class MessageBus(Protocol):
    """Tells every gateway, this one included, what happened.

    A wake-up, not the truth: what it loses is still in the store.
    """

    def publish(self, notices: Iterable[Notice]) -> None:
        """Tell, in order. This never blocks and never raises."""
        ...

    def subscribe(self, receive: Callable[[Iterable[Notice]], None]) -> None:
        """Have `receive` called with what any gateway publishes."""
        ...
