"""What the gateway needs from the world, as it says it itself.

Each port has an adapter in `ws_gateway.adapters` (SQLite, this process, the profile service) and
room for another (PostgreSQL, NATS). The contract tests in tests/contract run on every one.
"""

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Protocol, TypeAlias

import msgspec

from shared.ids import ConnectionId, SessionId, UserId
from shared.introspection import TokenPair
from shared.revocation import HeldSession, Revocation
from ws_gateway.conversations import Appended, Conflict, Draft, Message
from ws_gateway.identity import Identity

__all__ = [
    "FeedEvent",
    "FeedReady",
    "FeedReset",
    "IdentityVerifier",
    "MessageBus",
    "MessageStore",
    "ProfileService",
    "ProfileServiceUnavailable",
    "PublishedMessage",
    "RevocationFeed",
    "StoreUnavailable",
    "UserDirectory",
]


class StoreUnavailable(Exception):
    """The store cannot do this now, and has changed nothing. The same call may succeed later."""


class ProfileServiceUnavailable(Exception):
    """The profile service did not answer in time, or not as agreed. Try again later."""


class MessageStore(Protocol):
    """Keeps messages for ever, in order. One committer calls `append_batch`, one call at a time."""

    @property
    def epoch(self) -> str:
        """The name of this database's life: another after a restored backup."""
        ...

    @property
    def position(self) -> int:
        """The position of the last message that was committed; 0 when there is none."""
        ...

    async def append_batch(
        self, drafts: Sequence[Draft], sent_at_ms: int
    ) -> list[Appended | Conflict]:
        """Store drafts in one transaction, in their order; on return they are on the disk.

        Returns an outcome for each draft, in the same order. A draft whose sender and client id are
        known is not stored again.

        Raises:
            StoreUnavailable: none of them was stored.
        """
        ...

    async def is_available(self) -> bool:
        """Whether the store answers a trivial read."""
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

    async def exists(self, user_id: UserId) -> bool:
        """Whether there is such a user.

        Raises:
            ProfileServiceUnavailable: nobody could tell.
        """
        ...


class FeedReady(msgspec.Struct, frozen=True):
    """The feed is connected; what came before it, while nobody listened, is not known."""


class FeedReset(msgspec.Struct, frozen=True):
    """The feed cannot continue where it was: check every session that is held."""


FeedEvent: TypeAlias = FeedReady | FeedReset | Revocation


class RevocationFeed(Protocol):
    """Tells when sessions end."""

    def events(self) -> AsyncIterator[FeedEvent]:
        """Listen, from where the last call stopped. Ends or raises when the connection breaks.

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


class PublishedMessage(msgspec.Struct, frozen=True, gc=False):
    """A message that is on disk, and the connection that sent it, which has its ack instead."""

    message: Message
    origin: ConnectionId | None


class MessageBus(Protocol):
    """Tells every gateway, this one included, what was committed.

    A wake-up, not the truth: what it loses is still in the store.
    """

    def publish(self, messages: Iterable[PublishedMessage]) -> None:
        """Tell, in commit order. This never blocks and never raises."""
        ...

    def subscribe(self, receive: Callable[[Iterable[PublishedMessage]], None]) -> None:
        """Have `receive` called with what any gateway publishes."""
        ...
