"""How gateways tell each other what happened."""

from collections.abc import Sequence
from typing import Protocol

from shared.ids import UserId
from ws_gateway.conversations import Notice

__all__ = ["MessageBus", "Receiver"]


class Receiver(Protocol):
    """Takes what any gateway publishes."""

    def __call__(self, notices: Sequence[Notice], viewer: UserId | None = None, /) -> None:
        """Take notices, which are for one `viewer` of them or, without, for everybody they name."""
        ...


class MessageBus(Protocol):
    """Tells every gateway, this one included, what happened.

    A wake-up, not the truth: what it loses is still in the store.
    """

    def publish(self, notices: Sequence[Notice]) -> None:
        """Tell, in order. This never blocks and never raises."""
        ...

    def subscribe(self, receive: Receiver) -> None:
        """Have `receive` called with what any gateway publishes."""
        ...
