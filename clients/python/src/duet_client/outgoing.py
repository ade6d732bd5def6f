"""What `send` returns: a message on its way."""

import asyncio
from collections.abc import Callable

from duet_client.errors import RequestRefused
from duet_client.frames import Ack

__all__ = ["Outgoing"]


class Outgoing:
    """A message, edit or deletion that is queued. It goes out whether or not anybody waits."""

    def __init__(self, entry_id: str, told: Callable[[str], None]) -> None:
        self.id = entry_id
        """Its identifier, the same at each try and after a restart."""
        self._told = told
        self._answer: asyncio.Future[Ack] = asyncio.get_running_loop().create_future()
        self._answer.add_done_callback(lambda answer: answer.cancelled() or answer.exception())
        self._waiting = 0

    def __repr__(self) -> str:
        return f"Outgoing(id={self.id!r})"

    async def acknowledged(self) -> Ack:
        """Wait until it is on the gateway's disk. Cancelling this changes nothing.

        Raises:
            RequestRefused: it was refused for good (and is no longer queued).
            ConnectionEnded, LoginRequired: it stays queued for the next client on the same state.
        """
        self._waiting += 1
        try:
            return await asyncio.shield(self._answer)
        except RequestRefused:
            self._told(self.id)
            raise
        finally:
            self._waiting -= 1

    def settle(self, outcome: Ack | BaseException) -> bool:
        """Tell whoever waits. Returns whether anybody does."""
        if not self._answer.done():
            if isinstance(outcome, Ack):
                self._answer.set_result(outcome)
            else:
                self._answer.set_exception(outcome)
        return self._waiting > 0
