"""What is in the wire bytes that the gateway would write, and a seat for who would get them."""

import json

from shared.ids import ConnectionId, SessionId, UserId, new_connection_id
from tests.support.client import Frame
from ws_gateway.identity import Identity

__all__ = ["Seat", "frame_of"]


def frame_of(wire: bytes) -> Frame:
    """Read one unmasked text frame (RFC 6455 section 5.2)."""
    assert wire[0] == 0x81, wire
    start = {126: 4, 127: 10}.get(wire[1], 2)
    length = wire[1] if start == 2 else int.from_bytes(wire[2:start])
    assert len(wire) == start + length
    frame: Frame = json.loads(wire[start:])
    return frame


class Seat:
    """A `LiveConnection` that keeps what it is given."""

    def __init__(self, user_id: UserId) -> None:
        self.connection_id: ConnectionId = new_connection_id()
        self.identity = Identity(user_id, user_id, SessionId("s_" + user_id), 1, 2e9)
        self.delivered: list[tuple[Frame, int | None]] = []
        self.ephemeral: list[Frame] = []

    def deliver(self, wire: bytes, position: int | None) -> None:
        """See `LiveConnection`."""
        self.delivered.append((frame_of(wire), position))

    def deliver_ephemeral(self, wire: bytes) -> None:
        """See `LiveConnection`."""
        self.ephemeral.append(frame_of(wire))
