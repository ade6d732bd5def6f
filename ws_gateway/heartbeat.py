"""A gateway among others says that it lives, and looks after what dead ones left behind."""

import asyncio

import structlog

from shared.ids import ConnectionId, UserId
from ws_gateway.delivery.connection_map import ConnectionMap
from ws_gateway.delivery.following import Following
from ws_gateway.ports import Attendance, StoreUnavailable, UserBus
from ws_gateway.presence import Presence

__all__ = ["Heartbeat"]

_INTERVAL_S = 5.0

_log = structlog.get_logger(__name__)


class Heartbeat:
    """Beats for as long as `run` runs. For one event loop."""

    def __init__(
        self,
        attendance: Attendance,
        bus: UserBus,
        connections: ConnectionMap,
        presence: Presence,
        following: Following,
        *,
        hears_others: bool,
    ) -> None:
        """`hears_others` says whether the bus leads anywhere."""
        self._attendance = attendance
        self._bus = bus
        self._connections = connections
        self._presence = presence
        self._following = following
        self._hears_others = hears_others
        self._warned = False

    async def run(self) -> None:
        """Beat for ever."""
        while True:
            await asyncio.sleep(_INTERVAL_S)
            try:
                await self.beat()
            except StoreUnavailable as error:
                _log.warning(
                    "the other gateways were not told that this one lives", reason=str(error)
                )

    async def beat(self) -> None:
        """Say that this gateway lives, and do what follows from what it hears of the others.

        Raises:
            StoreUnavailable: it could not be said.
        """
        hears = self._hears_others and self._bus.is_connected
        pulse = await self._attendance.beat(hears=hears)
        self._following.look_often(pulse.others_are_deaf or (pulse.others > 0 and not hears))
        for user_id, last_seen_ms in pulse.departed:
            self._presence.departed(user_id, last_seen_ms)
        if pulse.departed:
            _log.info("told of people whose gateway died", users=len(pulse.departed))
        if pulse.was_forgotten or self._presence.attendance_is_wrong:
            await self._restore()
        if pulse.was_forgotten:
            _log.warning("the other gateways took this one for dead")
            self._presence.tell_again()
        if pulse.others and not self._hears_others and not self._warned:
            self._warned = True
            _log.warning("other gateways use this database; set DUET_BUS_URL, or all are slow")

    async def _restore(self) -> None:
        self._presence.attendance_is_wrong = False
        held = self._held()
        try:
            await self._attendance.restore(list(held))
        except StoreUnavailable:
            self._presence.attendance_is_wrong = True
            raise
        for user_id, connection_id in held ^ self._held():
            self._presence.attend_again(user_id, connection_id)

    def _held(self) -> set[tuple[UserId, ConnectionId]]:
        return {(c.identity.user_id, c.connection_id) for c in self._connections}
