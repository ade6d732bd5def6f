"""Logs of people that several gateways write to, in memory, and a bus that a test is."""

import collections
from collections.abc import Callable, Sequence

from shared.ids import ConversationId, UserId, conversation_id
from tests.support.waiting import Gate
from ws_gateway.conversations import Event, EventKind, Message, Notice
from ws_gateway.ports import EventPage, Receiver, StoreUnavailable

__all__ = ["FakeBus", "FakeLogs"]


class FakeLogs:
    """`SharedLogs` to which a test commits."""

    def __init__(self) -> None:
        self.logs: dict[UserId, list[Event]] = collections.defaultdict(list)
        self.receipts: dict[UserId, list[tuple[ConversationId, UserId, int, int]]] = {}
        self.asked_receipts: list[tuple[UserId, int]] = []
        self.available = True
        self.reads = Gate()
        """Where reading waits after it has read."""
        self._seqs: collections.Counter[ConversationId] = collections.Counter()

    def commit(self, sender: UserId, recipient: UserId, text: str = "hi") -> Event:
        """Store a message in both people's logs."""
        conversation = conversation_id(sender, recipient)
        self._seqs[conversation] += 1
        seq = self._seqs[conversation]
        position = len(self.logs[sender]) + 1
        message = Message(conversation, seq, 0, sender, recipient, f"{sender}-{position}", text, 1)
        event = Event(EventKind.SENT, position, message, len(self.logs[recipient]) + 1)
        for user in (sender, recipient):
            self.logs[user].append(event)
        return event

    async def positions_of(self, user_ids: Sequence[UserId]) -> list[int]:
        """See `SharedLogs`."""
        self._must_be_available()
        ends = [len(self.logs[user_id]) for user_id in user_ids]
        await self.reads.passed()
        return ends

    async def events_after(self, user_id: UserId, position: int, limit: int) -> EventPage:
        """See `SharedLogs`."""
        self._must_be_available()
        log = self.logs[user_id]
        page, complete = log[position : position + limit], len(log) - position < limit
        upto = len(log) if complete else position + limit
        await self.reads.passed()
        return EventPage(page, upto, complete)

    async def receipts_after(
        self, user_id: UserId, position: int
    ) -> list[tuple[ConversationId, UserId, int, int]]:
        """See `SharedLogs`."""
        self._must_be_available()
        self.asked_receipts.append((user_id, position))
        return self.receipts.get(user_id, [])

    def _must_be_available(self) -> None:
        if not self.available:
            raise StoreUnavailable("it is switched off")


class FakeBus:
    """A `UserBus` of which a test is the other end: it calls `arrive`."""

    def __init__(self) -> None:
        self.listened: list[UserId] = []
        self.published: list[Notice] = []
        self._connected = True
        self._receivers: list[Receiver] = []
        self._watchers: list[Callable[[], None]] = []

    @property
    def is_connected(self) -> bool:
        """See `UserBus`; setting it tells those who watch."""
        return self._connected

    @is_connected.setter
    def is_connected(self, connected: bool) -> None:
        self._connected = connected
        for changed in self._watchers:
            changed()

    def publish(self, notices: Sequence[Notice]) -> None:
        """See `MessageBus`."""
        self.published.extend(notices)
        for receive in self._receivers:
            receive(notices)

    def arrive(self, viewer: UserId, *notices: Notice) -> None:
        """Another gateway has published this for a user."""
        for receive in self._receivers:
            receive(notices, viewer)

    def subscribe(self, receive: Receiver) -> None:
        """See `MessageBus`."""
        self._receivers.append(receive)

    def watch(self, changed: Callable[[], None]) -> None:
        """See `UserBus`."""
        self._watchers.append(changed)

    async def listen(self, user_id: UserId) -> None:
        """See `UserBus`."""
        self.listened.append(user_id)

    def ignore(self, user_id: UserId) -> None:
        """See `UserBus`."""
        self.listened.remove(user_id)
