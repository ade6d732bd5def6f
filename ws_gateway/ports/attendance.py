"""Who is connected to which gateway."""

from collections.abc import Collection, Sequence
from typing import Protocol

import msgspec

from shared.ids import ConnectionId, UserId

__all__ = ["Arrival", "Attendance", "Pulse"]


class Arrival(msgspec.Struct, frozen=True):
    """What a new connection means for its person."""

    is_first: bool = True
    """They were on no other gateway before."""
    evicted: Sequence[ConnectionId] = ()
    """Their oldest connections, on any gateway, of those that are too many now."""


class Pulse(msgspec.Struct, frozen=True):
    """What a gateway hears of the others when it says that it lives."""

    was_forgotten: bool = False
    """The others took this gateway for dead: its connections are not known until `restore`."""
    departed: Sequence[tuple[UserId, int]] = ()
    """Who was on a gateway that died, and is on none now; with when it lived last, in ms."""
    others: int = 0
    """How many other gateways live."""
    others_are_deaf: bool = False
    """One of them is cut off from the bus: what it publishes is not heard, either."""


class Attendance(Protocol):
    """Keeps who is connected to which gateway, as well as it can; for presence and evictions.

    Every call may raise StoreUnavailable. Then what is kept may be wrong until `restore`.
    """

    async def arrive(self, user_id: UserId, connection_id: ConnectionId) -> Arrival:
        """A user has a new connection to this gateway."""
        ...

    async def leave(self, connection_id: ConnectionId, *, may_return: bool) -> None:
        """A connection is gone. A user who `may_return` counts as here until `depart`."""
        ...

    async def depart(self, user_id: UserId) -> bool:
        """A user did not return to this gateway. Returns whether they are on no other, either."""
        ...

    async def elsewhere(self, user_ids: Collection[UserId], viewer: UserId) -> set[UserId]:
        """Return those of the users who are on other gateways, let others see it, and are not
        blocked by `viewer` nor block them."""
        ...

    async def beat(self, *, hears: bool) -> Pulse:
        """Say that this gateway lives, and whether its bus works; it counts as dead without."""
        ...

    async def restore(self, connections: Sequence[tuple[UserId, ConnectionId]]) -> None:
        """These are all connections of this gateway."""
        ...
