"""What a gateway remembers of people beside their messages."""

from collections.abc import Sequence
from typing import Protocol

import msgspec

from shared.ids import UserId

__all__ = ["Circle", "PeopleStore", "Preferences"]


class Preferences(msgspec.Struct, frozen=True):
    """What a person lets others see."""

    shares_reads: bool = True
    shares_presence: bool = True


class Circle(msgspec.Struct, frozen=True):
    """Whom a person talks with, and what they let them see."""

    peers: list[UserId]
    """With a conversation and no block either way, newest first."""
    preferences: Preferences


class PeopleStore(Protocol):
    """What the gateway remembers of people. Every call may raise StoreUnavailable."""

    async def circle(self, user_id: UserId, limit: int) -> Circle:
        """Return a user's circle, with the newest `limit` peers: one read for all that is asked of
        everybody who comes."""
        ...

    async def preferences(self, user_id: UserId) -> Preferences:
        """Return what a user lets others see."""
        ...

    async def set_preferences(
        self,
        user_id: UserId,
        *,
        shares_reads: bool | None = None,
        shares_presence: bool | None = None,
    ) -> Preferences:
        """Remember what a user lets others see; what is None stays. Returns what is so now."""
        ...

    async def set_last_seen(self, user_id: UserId, at_ms: int) -> None:
        """Remember when a user's last connection ended."""
        ...

    async def block(self, blocker: UserId, blocked: UserId, at_ms: int) -> None:
        """Refuse what `blocked` sends to `blocker` from now on, and keep from them what `blocker`
        reads. Safe to repeat."""
        ...

    async def unblock(self, blocker: UserId, blocked: UserId) -> None:
        """Take what they send again, and show what is read. Safe to repeat."""
        ...

    async def blocks(self, blocker: UserId) -> list[UserId]:
        """Return whom a user blocks, newest first."""
        ...

    async def feed_event_id(self) -> str | None:
        """Return how far the revocation feed has been followed."""
        ...

    async def follow_feed(self, event_id: str, deleted: Sequence[UserId] = ()) -> None:
        """Remember how far the feed has been followed and, at once, who is to be erased."""
        ...

    async def known_users(self, after: UserId | None, limit: int) -> list[UserId]:
        """Return users that conversations or blocks are about, by id, from after `after`."""
        ...

    async def users_to_erase(self) -> list[UserId]:
        """Return the users whose erasure was not finished."""
        ...

    async def finish_erasure(self, user_id: UserId) -> None:
        """Forget that a user is to be erased: it is done. So are their blocks and last seen."""
        ...
