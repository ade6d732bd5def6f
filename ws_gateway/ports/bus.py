"""How gateways tell each other what happened."""

from collections.abc import Callable, Iterable
from typing import Protocol

from ws_gateway.conversations import Notice

__all__ = ["MessageBus"]


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
