"""The ConnectionMap: which connections each user has here, and how a message reaches them all."""

from collections.abc import Iterable, Iterator
from typing import Protocol

from shared.ids import ConnectionId, UserId
from shared.revocation import HeldSession, Revocation
from ws_gateway.conversations import Message
from ws_gateway.identity import Identity
from ws_gateway.ports import PublishedMessage
from ws_gateway.protocol import codec, frames
from ws_gateway.protocol.cursor import Cursors
from ws_gateway.protocol.wire import text_frame

__all__ = ["ConnectionMap", "LiveConnection"]


class LiveConnection(Protocol):
    """What the map needs of a connection."""

    @property
    def connection_id(self) -> ConnectionId: ...
    @property
    def identity(self) -> Identity: ...
    def deliver(self, wire: bytes) -> None:
        """Send wire bytes. This never waits and never raises."""


class ConnectionMap:
    """Holds the verified connections of this gateway, a user's oldest first.

    For one event loop. Nothing here waits.
    """

    def __init__(self, cursors: Cursors, *, max_connections_per_user: int = 10) -> None:
        self._cursors = cursors
        self._max_connections_per_user = max_connections_per_user
        self._by_user: dict[UserId, list[LiveConnection]] = {}
        self._size = 0
        self.delivered = 0
        """Message frames written to connections since the start."""

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[LiveConnection]:
        return (connection for held in list(self._by_user.values()) for connection in list(held))

    @property
    def users(self) -> int:
        """How many people have at least one connection here."""
        return len(self._by_user)

    def add(self, connection: LiveConnection) -> LiveConnection | None:
        """Hold a connection. Returns the user's oldest when this one takes its place: close it."""
        held = self._by_user.setdefault(connection.identity.user_id, [])
        evicted = held[0] if len(held) >= self._max_connections_per_user else None
        if evicted is not None:
            self.remove(evicted)
            held = self._by_user.setdefault(connection.identity.user_id, [])
        held.append(connection)
        self._size += 1
        return evicted

    def remove(self, connection: LiveConnection) -> None:
        """Let go of a connection; one that is not held is no error."""
        user_id = connection.identity.user_id
        held = self._by_user.get(user_id, [])
        if connection in held:
            held.remove(connection)
            self._size -= 1
            if not held:
                del self._by_user[user_id]

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

    def deliver(self, published: Iterable[PublishedMessage]) -> None:
        """Write each message to every connection it is for, encoded once for each side.

        The recipient's connections get it, and so do the sender's other ones, with the client id.
        """
        for item in published:
            message = item.message
            recipients = self._by_user.get(message.recipient)
            if recipients:
                wire = self._wire(message, None)
                for connection in recipients:
                    connection.deliver(wire)
                self.delivered += len(recipients)
            senders = self._by_user.get(message.sender)
            if senders and not (len(senders) == 1 and senders[0].connection_id == item.origin):
                wire = self._wire(message, message.client_id)
                for connection in senders:
                    if connection.connection_id != item.origin:
                        connection.deliver(wire)
                        self.delivered += 1

    def _wire(self, message: Message, client_id: str | None) -> bytes:
        return text_frame(
            codec.encode(
                frames.MessageFrame(
                    conversation=message.conversation,
                    seq=message.seq,
                    from_=message.sender,
                    to=message.recipient,
                    text=message.text,
                    sent_at=codec.timestamp(message.sent_at_ms),
                    cursor=self._cursors.encode(message.position),
                    id=client_id,
                )
            )
        )
