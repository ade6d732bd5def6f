"""What a gateway asks of the profile service."""

from collections.abc import AsyncIterator, Sequence
from typing import Protocol, TypeAlias

import msgspec

from shared.ids import SessionId, UserId
from shared.introspection import TokenPair
from shared.revocation import HeldSession, Revocation
from ws_gateway.identity import Identity

__all__ = [
    "FeedEvent",
    "FeedReady",
    "FeedReset",
    "IdentityVerifier",
    "ProfileService",
    "ProfileServiceUnavailable",
    "RevocationFeed",
    "UserDirectory",
]


class ProfileServiceUnavailable(Exception):
    """The profile service did not answer in time, not as agreed, or wants to be asked later."""

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        """When it may be asked again, where it said so."""


class IdentityVerifier(Protocol):
    """Says who a token pair belongs to."""

    async def verify(self, tokens: TokenPair) -> Identity | None:
        """Return the identity, or nothing when the tokens are not good.

        Raises:
            ProfileServiceUnavailable: nobody could tell, or the session was refreshed too often;
                the tokens are not to be trusted.
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

    async def deleted(self, user_ids: Sequence[UserId]) -> list[UserId]:
        """Return those of the users that deleted their account; not those nobody knows of.

        Raises:
            ProfileServiceUnavailable: nobody could tell.
        """
        ...


class ProfileService(IdentityVerifier, UserDirectory, RevocationFeed, Protocol):
    """All that the gateway asks of the profile service."""
