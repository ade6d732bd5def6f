"""The message bus of a single gateway: what is published here is received here, at once."""

from collections.abc import Sequence

from ws_gateway.conversations import Notice
from ws_gateway.ports.bus import Receiver

__all__ = ["LocalBus"]


class LocalBus:
    """A `MessageBus` within one process."""

    def __init__(self) -> None:
        self._receivers: list[Receiver] = []

    def publish(self, notices: Sequence[Notice]) -> None:
        """Hand the notices to every receiver."""
        for receive in self._receivers:
            receive(notices)

    def subscribe(self, receive: Receiver) -> None:
        """Add a receiver."""
        self._receivers.append(receive)
