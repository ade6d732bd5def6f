"""The message bus of a single gateway: what is published here is received here, at once."""

from collections.abc import Callable, Sequence

from shared.ids import UserId
from ws_gateway.conversations import Notice
from ws_gateway.ports.bus import Receiver

__all__ = ["LocalBus"]


class LocalBus:
    """A `UserBus` within one process: always there, and nobody else is on it."""

    is_connected = True

    def __init__(self) -> None:
        self._receivers: list[Receiver] = []

    def publish(self, notices: Sequence[Notice]) -> None:
        """Hand the notices to every receiver."""
        for receive in self._receivers:
            receive(notices)

    def subscribe(self, receive: Receiver) -> None:
        """Add a receiver."""
        self._receivers.append(receive)

    def watch(self, changed: Callable[[], None]) -> None:
        """Nothing ever changes."""

    async def listen(self, user_id: UserId) -> None:
        """Everything is received."""

    def ignore(self, user_id: UserId) -> None:
        """Everything is received."""
