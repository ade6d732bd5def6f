"""The message store in memory, with faults to switch on."""

from collections.abc import Iterable, Sequence

import msgspec

from shared.ids import ConversationId, UserId, conversation_id
from tests.support.waiting import Gate
from ws_gateway.conversations import (
    Appended,
    Change,
    Conflict,
    Deletion,
    Draft,
    Edit,
    Erasure,
    Event,
    EventKind,
    Mark,
    Marked,
    Message,
    NotAuthor,
    NotFound,
    Outcome,
)
from ws_gateway.ports import EventPage, StoreUnavailable

__all__ = ["FakeMessageStore"]


class FakeMessageStore:
    """A `MessageStore` without a disk. Passes the same contract tests as the one on SQLite."""

    def __init__(self, epoch: str = "fake") -> None:
        self.epoch = epoch
        self.log: list[Event] = []
        """Every event; the one at position 1 first. Their messages are as they were then."""
        self.batches: list[int] = []
        """The size of each batch that was asked for."""
        self.deliveries: list[tuple[int, int, int]] = []
        self.available = True
        self.poison: str | None = None
        """A batch that holds a draft with this text fails whole."""
        self.commits = Gate()
        self._messages: dict[tuple[ConversationId, int], Message] = {}
        self._by_client_id: dict[tuple[UserId, str], tuple[ConversationId, int]] = {}
        self._changes: dict[tuple[UserId, str], Event] = {}
        self._marks: dict[tuple[ConversationId, UserId], tuple[int, int, int]] = {}

    @property
    def position(self) -> int:
        """The position of the last event."""
        return len(self.log)

    async def position_of(self, user_id: UserId) -> int:
        """See `MessageStore`."""
        return self.position

    @property
    def messages(self) -> list[Message]:
        """The messages as they are now, in commit order."""
        return sorted(self._messages.values(), key=lambda message: message.position)

    async def append_batch(self, changes: Sequence[Change], at_ms: int) -> list[Outcome]:
        """See `MessageStore`."""
        self.batches.append(len(changes))
        await self.commits.passed()
        self._must_be_available()
        if any(isinstance(change, Draft) and change.text == self.poison for change in changes):
            raise RuntimeError("poisoned")
        return [self._make(change, at_ms) for change in changes]

    async def events_after(self, user_id: UserId, position: int, limit: int) -> EventPage:
        """See `MessageStore`."""
        self._must_be_available()
        own = [
            event
            for event in self.log[position:]
            if user_id in (event.message.sender, event.message.recipient)
        ]
        page = [self._as_now(event) for event in own[:limit]]
        complete = len(page) < limit
        upto = len(self.log) if complete else page[-1].position
        return EventPage(page, max(upto, position), complete)

    async def receipts_after(
        self, user_id: UserId, position: int
    ) -> list[tuple[ConversationId, UserId, int, int]]:
        """See `MessageStore`."""
        self._must_be_available()
        return [
            (conversation, user, received, read)
            for (conversation, user), (received, read, moved_at) in self._marks.items()
            if moved_at >= position and self._is_in(user_id, conversation)
        ]

    def note_deliveries(self, deliveries: Iterable[tuple[int, int]], at_ms: int) -> None:
        """See `MessageStore`."""
        self.deliveries += [(position, connections, at_ms) for position, connections in deliveries]

    async def conversations_to_erase(
        self, user_id: UserId, after: ConversationId | None = None
    ) -> list[ConversationId]:
        """See `MessageStore`."""
        self._must_be_available()
        with_text = [m for m in self._messages.values() if m.sender == user_id and not m.deleted]
        return sorted({m.conversation for m in with_text if m.conversation > (after or "")})

    async def is_available(self) -> bool:
        """See `MessageStore`."""
        return self.available

    def _make(self, change: Change, at_ms: int) -> Outcome:
        match change:
            case Draft():
                return self._send(change, at_ms)
            case Edit() | Deletion():
                return self._revise(change, at_ms)
            case Mark():
                return self._mark(change)
            case Erasure():
                return self._erase(change, at_ms)

    def _send(self, draft: Draft, at_ms: int) -> Outcome:
        name = (draft.sender, draft.client_id)
        place = self._by_client_id.get(name)
        if place is not None:
            earlier = self._messages[place]
            if not draft.repeats(earlier):
                return Conflict()
            return Appended(Event(EventKind.SENT, earlier.position, earlier), duplicate=True)
        conversation = conversation_id(draft.sender, draft.recipient)
        message = Message(
            conversation=conversation,
            seq=self._last_seq(conversation) + 1,
            position=len(self.log) + 1,
            sender=draft.sender,
            recipient=draft.recipient,
            client_id=draft.client_id,
            text=draft.text,
            sent_at_ms=at_ms,
        )
        self._by_client_id[name] = (conversation, message.seq)
        return self._log(EventKind.SENT, message)

    def _revise(self, change: Edit | Deletion, at_ms: int) -> Outcome:
        message = self._messages.get((change.conversation, change.seq))
        if message is None or change.author not in (message.sender, message.recipient):
            return NotFound()
        kind = EventKind.EDITED if isinstance(change, Edit) else EventKind.DELETED
        earlier = self._changes.get((change.author, change.request_id))
        if earlier is not None:
            same = (
                earlier.kind is kind
                and earlier.message.position == message.position
                and change.repeats(message, earlier.message.revision)
            )
            return Appended(Event(kind, earlier.position, message), True) if same else Conflict()
        if message.sender != change.author:
            return NotAuthor()
        if message.deleted:
            repeated = Appended(Event(kind, message.position, message), duplicate=True)
            return Conflict() if isinstance(change, Edit) else repeated
        revised = msgspec.structs.replace(
            message,
            text=change.text if isinstance(change, Edit) else "",
            deleted=isinstance(change, Deletion),
            revision=message.revision + 1,
            changed_at_ms=at_ms,
        )
        appended = self._log(kind, revised)
        self._changes[change.author, change.request_id] = appended.event
        return appended

    def _mark(self, mark: Mark) -> Outcome:
        first = self._messages.get((mark.conversation, 1))
        if (
            first is None
            or mark.user not in (first.sender, first.recipient)
            or mark.seq > self._last_seq(mark.conversation)
        ):
            return NotFound()
        peer = first.recipient if mark.user == first.sender else first.sender
        received, read, _ = self._marks.get((mark.conversation, mark.user), (0, 0, 0))
        moved_received, moved_read = mark.seq > received, mark.read and mark.seq > read
        if moved_received or moved_read:
            received = max(received, mark.seq)
            read = mark.seq if moved_read else read
            self._marks[mark.conversation, mark.user] = (received, read, len(self.log))
        return Marked(peer, received, read, moved_received, moved_read, shows_read=True)

    def _erase(self, erasure: Erasure, at_ms: int) -> Outcome:
        own = [m for m in self._messages.values() if m.conversation == erasure.conversation]
        if not own or erasure.user not in (own[0].sender, own[0].recipient):
            return NotFound()
        for message in own:
            if (
                message.sender == erasure.user
                and not message.deleted
                and message.seq > erasure.after
            ):
                self._messages[message.conversation, message.seq] = msgspec.structs.replace(
                    message,
                    text="",
                    deleted=True,
                    revision=message.revision + 1,
                    changed_at_ms=at_ms,
                )
        peer = own[0].recipient if erasure.user == own[0].sender else own[0].sender
        gone = Message(
            conversation=erasure.conversation,
            seq=0,
            position=len(self.log) + 1,
            sender=erasure.user,
            recipient=peer,
            client_id="",
            text="",
            sent_at_ms=0,
            deleted=True,
        )
        event = Event(EventKind.ERASED, gone.position, gone)
        self.log.append(event)
        return Appended(event, duplicate=False)

    def _log(self, kind: EventKind, message: Message) -> Appended:
        self._messages[message.conversation, message.seq] = message
        event = Event(kind, len(self.log) + 1, message)
        self.log.append(event)
        return Appended(event, duplicate=False)

    def _as_now(self, event: Event) -> Event:
        if event.kind is EventKind.ERASED:
            return event
        message = self._messages[event.message.conversation, event.message.seq]
        return Event(event.kind, event.position, message)

    def _last_seq(self, conversation: ConversationId) -> int:
        return max((seq for held, seq in self._messages if held == conversation), default=0)

    def _is_in(self, user_id: UserId, conversation: ConversationId) -> bool:
        first = self._messages[conversation, 1]
        return user_id in (first.sender, first.recipient)

    def _must_be_available(self) -> None:
        if not self.available:
            raise StoreUnavailable("it is switched off")
