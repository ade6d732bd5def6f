"""How gateways tell each other what happened."""

from collections.abc import Callable, Sequence
from typing import Protocol

from shared.ids import UserId
from ws_gateway.conversations import Notice

__all__ = ["MessageBus", "Receiver", "UserBus"]


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
        """Tell, in order: this gateway before it returns. This never blocks and never raises."""
        ...

    def subscribe(self, receive: Receiver) -> None:
        """Have `receive` called with what any gateway publishes."""
        ...


class UserBus(MessageBus, Protocol):
    """A bus on which gateways listen for the people they have, and which may be away."""

    @property
    def is_connected(self) -> bool:
        """Whether what other gateways publish arrives here, for all we know."""
        ...

    def watch(self, changed: Callable[[], None]) -> None:
        """Have `changed` called whenever `is_connected` has changed."""
        ...

    async def listen(self, user_id: UserId) -> None:
        """Receive what other gateways publish for a user, from now on, once the bus is there.

        Returns when it does, or after a moment when it is away. This never raises.
        """
        ...

    def ignore(self, user_id: UserId) -> None:
        """No more of that. This never blocks and never raises."""
        ...
