"""The message bus of a single gateway: what is published here is received here, at once."""

from collections.abc import Callable, Iterable

from ws_gateway.ports import PublishedMessage

__all__ = ["LocalBus"]


class LocalBus:
    """A `MessageBus` within one process."""

    def __init__(self) -> None:
        self._receivers: list[Callable[[Iterable[PublishedMessage]], None]] = []

    def publish(self, messages: Iterable[PublishedMessage]) -> None:
        """Hand the messages to every receiver."""
        for receive in self._receivers:
            receive(messages)

    def subscribe(self, receive: Callable[[Iterable[PublishedMessage]], None]) -> None:
        """Add a receiver."""
        self._receivers.append(receive)
