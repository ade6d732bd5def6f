"""What is published reaches the connections: straight, where one gateway writes the whole log."""

from collections.abc import Sequence
from typing import Protocol

from shared.ids import UserId
from ws_gateway.conversations import Notice, Published
from ws_gateway.delivery.connection_map import ConnectionMap

__all__ = ["Broadcast", "LiveLog"]


class LiveLog(Protocol):
    """Brings the logs of the people who are connected here to their connections, as they grow."""

    async def follow(self, user_id: UserId) -> None:
        """Begin to follow a user's log, for one connection; `unfollow` when that is gone.

        Raises:
            StoreUnavailable: it cannot be followed now; do not call `unfollow`.
        """
        ...

    def unfollow(self, user_id: UserId) -> None:
        """One connection less follows the user's log."""
        ...

    def position_of(self, user_id: UserId) -> int:
        """Return up to where a followed log was delivered: what comes after is still to come."""
        ...


class Broadcast:
    """The `LiveLog` of a gateway that is the only one: what it publishes is all there is."""

    def __init__(self, connections: ConnectionMap, position: int) -> None:
        self._connections = connections
        self.position = position
        """Up to where events were published."""

    async def follow(self, user_id: UserId) -> None:
        """Everybody is followed."""

    def unfollow(self, user_id: UserId) -> None:
        """Everybody is followed."""

    def position_of(self, user_id: UserId) -> int:  # noqa: ARG002
        """Return the position up to which events were published: one log is everybody's."""
        return self.position

    def receive(self, notices: Sequence[Notice], viewer: UserId | None = None) -> None:
        """Take notices from the bus."""
        self._connections.deliver(notices, viewer)
        for notice in reversed(notices):
            if isinstance(notice, Published):
                self.position = notice.event.position
                break
