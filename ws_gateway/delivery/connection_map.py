"""The ConnectionMap: which connections each user has here, and how news reaches them all."""

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol, TypeVar

from shared.ids import ConnectionId, UserId
from shared.revocation import HeldSession, Revocation
from ws_gateway.conversations import (
    SENT,
    Notice,
    PresenceNotice,
    Published,
    Receipt,
    SettingChanged,
    TypingNotice,
)
from ws_gateway.delivery.rendering import Rendering
from ws_gateway.identity import Identity

__all__ = ["ConnectionMap", "LiveConnection"]

N = TypeVar("N")


class LiveConnection(Protocol):
    """What the map needs of a connection."""

    @property
    def connection_id(self) -> ConnectionId: ...
    @property
    def identity(self) -> Identity: ...
    def deliver(self, wire: bytes, position: int | None) -> None:
        """Send wire bytes, of the event at `position` if they are one. Never waits or raises."""

    def deliver_ephemeral(self, wire: bytes) -> None:
        """Send wire bytes that may be lost. Never waits or raises."""


class ConnectionMap:
    """Holds the verified connections of this gateway, a user's oldest first.

    For one event loop. Nothing here waits. `delivered` is told of the messages that went out to
    their recipients: the position of each, and to how many connections.
    """

    def __init__(
        self,
        rendering: Rendering,
        delivered: Callable[[list[tuple[int, int]]], None],
        *,
        max_connections_per_user: int = 10,
    ) -> None:
        self._rendering = rendering
        self._delivered = delivered
        self._max_connections_per_user = max_connections_per_user
        self._by_user: dict[UserId, list[LiveConnection]] = {}
        self._size = 0
        self.frames_delivered = 0
        """Message frames written to connections since the start."""

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[LiveConnection]:
        return (connection for held in list(self._by_user.values()) for connection in list(held))

    def __contains__(self, user_id: UserId) -> bool:
        return user_id in self._by_user

    @property
    def users(self) -> int:
        """How many people have at least one connection here."""
        return len(self._by_user)

    def add(self, connection: LiveConnection) -> LiveConnection | None:
        """Hold a connection. Returns the user's oldest when this one takes its place: close it."""
        user_id = connection.identity.user_id
        held = self._by_user.setdefault(user_id, [])
        evicted = held.pop(0) if len(held) >= self._max_connections_per_user else None
        held.append(connection)
        self._size += evicted is None
        return evicted

    def remove(self, connection: LiveConnection) -> bool:
        """Let go of a connection. Returns whether it was the user's last; else nothing is said."""
        user_id = connection.identity.user_id
        held = self._by_user.get(user_id, [])
        if connection not in held:
            return False
        held.remove(connection)
        self._size -= 1
        if held:
            return False
        del self._by_user[user_id]
        return True

    def of_user(self, user_id: UserId) -> tuple[LiveConnection, ...]:
        """Return a user's connections, oldest first."""
        return tuple(self._by_user.get(user_id, ()))

    def ended_by(self, revocation: Revocation) -> list[LiveConnection]:
        """Return the connections that must close because of this."""
        return [
            connection
            for connection in self.of_user(revocation.user_id)
            if connection.identity.is_ended_by(revocation)
        ]

    def sessions(self) -> list[HeldSession]:
        """Return every session that has a connection here, once."""
        held = {
            identity.session_id: HeldSession(
                sid=identity.session_id, sub=identity.user_id, ver=identity.token_version
            )
            for identity in (connection.identity for connection in self)
        }
        return list(held.values())

    def deliver(self, notices: Iterable[Notice], viewer: UserId | None = None) -> None:
        """Write each notice to every connection it is for, encoded once for each side.

        With a `viewer` only to that person's connections.
        """
        delivered: list[tuple[int, int]] = []
        for notice in notices:
            if isinstance(notice, Published):  # nearly always, and a pattern costs more
                self._deliver_event(notice, viewer, delivered)
                continue
            match notice:
                case Receipt():
                    self._deliver_receipt(notice, viewer)
                case TypingNotice():
                    self._deliver_ephemeral((notice.to,), self._rendering.typing, notice)
                case PresenceNotice():
                    to = notice.to if viewer is None else (viewer,)
                    self._deliver_ephemeral(to, self._rendering.presence, notice)
                case SettingChanged():
                    self._deliver_changed(notice)
        if delivered:
            self._delivered(delivered)

    def _deliver_event(
        self, published: Published, viewer: UserId | None, delivered: list[tuple[int, int]]
    ) -> None:
        """The other person's connections get it, and the author's own ones but the origin."""
        event = published.event
        message = event.message
        recipients = self._by_user.get(message.recipient)
        if recipients and viewer != message.sender:
            wire = self._rendering.event(event, message.recipient)
            position = event.position_for(message.recipient)
            for connection in recipients:
                connection.deliver(wire, position)
            if event.kind is SENT:
                self.frames_delivered += len(recipients)
                delivered.append((message.position, len(recipients)))
        senders = self._by_user.get(message.sender)
        if (
            senders
            and viewer != message.recipient
            and not (len(senders) == 1 and senders[0].connection_id == published.origin)
        ):
            wire = self._rendering.event(event, message.sender)
            _deliver_to_others(senders, published.origin, wire, event.position)

    def _deliver_receipt(self, receipt: Receipt, only: UserId | None) -> None:
        viewers = (receipt.user,) if receipt.is_private else (receipt.peer, receipt.user)
        for viewer in viewers:
            held = self._by_user.get(viewer) if only is None or only == viewer else None
            if held:
                wire = self._rendering.receipt(receipt, viewer)
                _deliver_to_others(held, receipt.origin, wire, None)

    def _deliver_changed(self, changed: SettingChanged) -> None:
        held = self._by_user.get(changed.user, ())
        _deliver_to_others(held, changed.origin, self._rendering.changed(changed), None)

    def _deliver_ephemeral(
        self, viewers: Iterable[UserId], render: Callable[[N], bytes], notice: N
    ) -> None:
        connections = [c for viewer in viewers for c in self._by_user.get(viewer, ())]
        if connections:
            wire = render(notice)
            for connection in connections:
                connection.deliver_ephemeral(wire)


def _deliver_to_others(
    connections: Iterable[LiveConnection],
    origin: ConnectionId | None,
    wire: bytes,
    position: int | None,
) -> None:
    for connection in connections:
        if connection.connection_id != origin:
            connection.deliver(wire, position)
