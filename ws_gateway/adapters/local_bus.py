"""The message bus of a single gateway: what is published here is received here, at once."""

from collections.abc import Callable, Iterable

from ws_gateway.conversations import Notice

__all__ = ["LocalBus"]


class LocalBus:
    """A `MessageBus` within one process."""

    def __init__(self) -> None:
        self._receivers: list[Callable[[Iterable[Notice]], None]] = []

    def publish(self, notices: Iterable[Notice]) -> None:
        """Hand the notices to every receiver."""
        for receive in self._receivers:
            receive(notices)

    def subscribe(self, receive: Callable[[Iterable[Notice]], None]) -> None:
        """Add a receiver."""
        self._receivers.append(receive)
