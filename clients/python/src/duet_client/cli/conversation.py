"""What a chat window knows of one conversation, in the order it is shown. Pure."""

import enum
from collections.abc import Iterable
from datetime import datetime

import msgspec

from duet_client.answers import Message
from duet_client.events import Event, MessageSent, SendFailed
from duet_client.frames import MessageDeleted, MessageEdited, NewMessage, Receipt, UserErased

__all__ = ["Conversation", "Line", "Tick"]


class Tick(enum.Enum):
    """How far an own message has come."""

    NONE = enum.auto()
    QUEUED = enum.auto()
    STORED = enum.auto()
    RECEIVED = enum.auto()
    READ = enum.auto()
    FAILED = enum.auto()


class Line(msgspec.Struct, frozen=True):
    """A message as it is shown. `key` stays the same from queued to read."""

    key: str
    text: str
    is_own: bool
    tick: Tick
    clock: str
    edited: bool = False
    deleted: bool = False
    failure: str = ""


class _Known(msgspec.Struct):
    text: str
    sender: str
    sent_at: datetime
    revision: int
    deleted: bool
    key: str


class Conversation:
    """Takes pages of history and events in any order, twice or not, and says what to show."""

    def __init__(self, user_id: str) -> None:
        self.id: str | None = None
        """Known once history is loaded; events of others are passed over."""
        self.peer_id: str | None = None
        """Known from the first message of theirs, or to them."""
        self._user_id = user_id
        self._messages: dict[int, _Known] = {}
        self._queued: dict[str, str] = {}
        self._failed: dict[str, tuple[str, str]] = {}
        self._peer_received = 0
        self._peer_read = 0
        self._read = 0

    @property
    def first_seq(self) -> int | None:
        """The place of the oldest message shown."""
        return min(self._messages, default=None)

    def loaded(self, messages: Iterable[Message]) -> None:
        """Take a page of history."""
        for message in messages:
            self._put(message, None)

    def forget_messages(self) -> None:
        """The gateway has another database: the same places may hold other messages."""
        self.id = None
        self._messages.clear()
        self._peer_received = self._peer_read = self._read = 0

    def queued(self, entry_id: str, text: str) -> None:
        """An own message waits for its acknowledgement."""
        if all(known.key != entry_id for known in self._messages.values()):
            self._queued[entry_id] = text

    def settled(self, event: MessageSent | SendFailed) -> None:
        """An own message was acknowledged or refused."""
        text = self._queued.pop(event.id, None)
        if isinstance(event, SendFailed):
            if text is not None:
                self._failed[event.id] = (text, str(event.error))
        elif event.conversation == self.id or text is not None:
            self.id, self.peer_id = event.conversation, event.recipient
            sent = Message(event.conversation, event.seq, self._user_id, event.text, event.sent_at)
            self._put(sent, event.id)

    def happened(self, event: Event) -> None:
        """Take an event of any conversation."""
        if getattr(event, "conversation", None) != self.id:
            return
        match event:
            case NewMessage():
                own = event.sender == self._user_id
                self.peer_id = event.recipient if own else event.sender
                self._put(event, event.id)
            case MessageEdited(seq=seq, revision=revision, text=text):
                self._change(seq, revision, text)
            case MessageDeleted(seq=seq, revision=revision):
                self._change(seq, revision, None)
            case UserErased(user=user):
                for known in self._messages.values():
                    if known.sender == user:
                        known.text, known.deleted = "", True
            case Receipt(user=user, received=received, read=read) if user != self._user_id:
                self.peer_id = user
                self.marked(received, read)

    def marked(self, received: int, read: int | None) -> None:
        """The peer has received, and read, so far; marks never move back."""
        self._peer_received = max(self._peer_received, received)
        self._peer_read = max(self._peer_read, read or 0)

    def unread_seq(self) -> int | None:
        """The place up to which the person has now seen everything, if that is news."""
        theirs = [seq for seq, known in self._messages.items() if known.sender != self._user_id]
        latest = max(theirs, default=0)
        return latest if latest > self._read else None

    def was_read(self, seq: int) -> None:
        """The gateway knows that everything up to `seq` is read."""
        self._read = max(self._read, seq)

    def lines(self) -> list[Line]:
        """What to show, the oldest first; what waits comes last."""
        return [
            *(self._line(seq, known) for seq, known in sorted(self._messages.items())),
            *(
                Line(key, text, True, Tick.FAILED, "     ", failure=why)
                for key, (text, why) in self._failed.items()
            ),
            *(Line(key, text, True, Tick.QUEUED, "     ") for key, text in self._queued.items()),
        ]

    def _line(self, seq: int, known: _Known) -> Line:
        own = known.sender == self._user_id
        if not own:
            tick = Tick.NONE
        elif seq <= self._peer_read:
            tick = Tick.READ
        elif seq <= self._peer_received:
            tick = Tick.RECEIVED
        else:
            tick = Tick.STORED
        clock = known.sent_at.astimezone().strftime("%H:%M")
        edited = known.revision > 0
        return Line(known.key, known.text, own, tick, clock, edited, known.deleted)

    def _put(self, message: Message | NewMessage, entry_id: str | None) -> None:
        if entry_id is not None:
            self._queued.pop(entry_id, None)
        known = self._messages.get(message.seq)
        if known is not None and known.revision >= message.revision:
            return
        key = known.key if known is not None else entry_id or f"seq {message.seq}"
        self._messages[message.seq] = _Known(
            message.text, message.sender, message.sent_at, message.revision, message.deleted, key
        )

    def _change(self, seq: int, revision: int, text: str | None) -> None:
        known = self._messages.get(seq)
        if known is not None and revision > known.revision:
            known.text, known.revision, known.deleted = text or "", revision, text is None
