"""The attendance of a single gateway, which knows its own people: nobody is anywhere else."""

# ruff: noqa: ARG002 - a single gateway need not be told who it is about

from collections.abc import Collection, Sequence

from shared.ids import ConnectionId, UserId
from ws_gateway.ports import Arrival, Pulse

__all__ = ["LocalAttendance"]

_ARRIVAL = Arrival()
_PULSE = Pulse()


class LocalAttendance:
    """An `Attendance` that keeps nothing. The ConnectionMap evicts, presence knows who is here."""

    async def arrive(self, user_id: UserId, connection_id: ConnectionId) -> Arrival:
        """Nobody was elsewhere."""
        return _ARRIVAL

    async def leave(self, connection_id: ConnectionId, *, may_return: bool) -> None:
        """Nobody asks."""

    async def depart(self, user_id: UserId) -> bool:
        """There is no other gateway."""
        return True

    async def elsewhere(self, user_ids: Collection[UserId], viewer: UserId) -> set[UserId]:
        """There is no other gateway."""
        return set()

    async def beat(self, *, hears: bool) -> Pulse:
        """There is no other gateway."""
        return _PULSE

    async def restore(self, connections: Sequence[tuple[UserId, ConnectionId]]) -> None:
        """Nothing is kept."""
