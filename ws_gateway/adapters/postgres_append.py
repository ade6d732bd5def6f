"""Sending and marking: what a batch of both asks of the function `append`, and what came of it.

Numbers are given here, relative to where conversations and logs stand: that is known only under the
locks, which `append` takes. Pure.
"""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import msgspec

from shared.ids import UserId
from ws_gateway.adapters.postgres_chats import Chats
from ws_gateway.adapters.postgres_rows import BLOCKS, MAX_SEQ, Chat, position_of
from ws_gateway.conversations import (
    Appended,
    Blocked,
    Conflict,
    Draft,
    Event,
    EventKind,
    Mark,
    Marked,
    Message,
    NotFound,
    Outcome,
)

__all__ = ["APPEND", "Growth", "Known", "Name"]

Name: TypeAlias = tuple[UserId, str]
"""A sender and a client id: what names a message for ever."""

APPEND = f"""
SELECT positions, last_seqs, received, read, ARRAY(
    SELECT shares_reads[n] AND NOT
        {BLOCKS.format(person="($21::integer[])[n]", viewer="($22::integer[])[n]")}
    FROM generate_subscripts(shares_reads, 1) AS n ORDER BY n
) AS shows_read
FROM append({", ".join(f"${n}" for n in range(1, 28))})
"""
"""`append` tells who shares their reads; whom they block is looked up beside it."""


class Known(msgspec.Struct, frozen=True):
    """What was found by looking closer, under the locks of everybody concerned."""

    stored: Mapping[Name, Event]
    """What drafts repeat."""
    blocked: frozenset[tuple[UserId, UserId]]
    """Senders and recipients."""
    last_seqs: Mapping[int, int] | None
    """Where the conversations of marks end, by their keys. None: nobody has looked."""


class _GrownChat(msgspec.Struct):
    """A conversation that gets messages: how many, and what the last of them is to both."""

    place: int
    chat: Chat
    size: int = 0
    low_size: int = 0
    low_nth: int = 0
    high_nth: int = 0


class _MovedMarks(msgspec.Struct):
    """How far a person comes in a conversation."""

    chat: Chat
    peer: int
    received: int = 0
    read: int = 0
    needs: int = -(2**31)
    """So many messages the conversation must have had before this batch."""


class _Repeat(msgspec.Struct, frozen=True):
    """A draft under the name of an earlier one in its batch."""

    draft: Draft
    of: int


class _Step(msgspec.Struct, frozen=True):
    """A mark of what is there."""

    mark: Mark
    member: tuple[int, int]
    peer_id: UserId

    def from_here(
        self, received: int, read: int, shows_read: bool
    ) -> tuple[Marked, tuple[int, int, bool]]:
        """Move the marks from where they stand. Returns the outcome, and where they stand then."""
        moved_received = self.mark.seq > received
        moved_read = self.mark.read and self.mark.seq > read
        received = max(received, self.mark.seq)
        read = self.mark.seq if moved_read else read
        marked = Marked(self.peer_id, received, read, moved_received, moved_read, shows_read)
        return marked, (received, read, shows_read)


class Growth:
    """A batch of drafts and marks. Call `append` with `arguments`, then `outcomes` with its row.

    No row: something in the batch is stored already, blocked, or not there. Look closer, and make
    this again with what is `known`.
    """

    def __init__(
        self,
        changes: Sequence[Draft | Mark],
        chats: Chats,
        at_ms: int,
        known: Known = Known({}, frozenset(), None),  # noqa: B008 - frozen
    ) -> None:
        self._at_ms = at_ms
        self._known = known
        self._drafts: list[tuple[Draft, Chat]] = []
        self._rows: list[tuple[int, int, int, int, int, int, int, str, str]] = []
        self._first: dict[Name, int] = {}
        self._events: dict[int, int] = {}
        self._grown: dict[int, _GrownChat] = {}
        self._moved: dict[tuple[int, int], _MovedMarks] = {}
        self._plans = [
            self._number(change, chats.between(change.sender, change.recipient))
            if isinstance(change, Draft)
            else self._move(change, chats.named(change.conversation))
            for change in changes
        ]
        self._people = sorted(self._events)
        self._members = sorted(self._moved)

    @property
    def is_empty(self) -> bool:
        """Whether nothing is to be stored: `outcomes` then needs no row."""
        return not self._people and not self._members

    def arguments(self) -> list[Any]:
        """Return what `append` is called with."""
        place = {person: n for n, person in enumerate(self._people, 1)}
        grown = list(self._grown.values())
        chat, sender, recipient, *numbers = list(zip(*self._rows, strict=True)) or [()] * 9
        marks = [self._moved[member] for member in self._members]
        return [
            self._at_ms,
            self._people,
            [self._events[person] for person in self._people],
            list(self._grown),
            [one.chat.id for one in grown],
            [one.size for one in grown],
            [one.low_size for one in grown],
            [place[one.chat.low] for one in grown],
            [place[one.chat.high] for one in grown],
            [one.low_nth for one in grown],
            [one.high_nth for one in grown],
            chat,
            [place[person] for person in sender],
            [place[person] for person in recipient],
            *numbers,
            [person for person, _ in self._members],
            [mark.peer for mark in marks],
            [mark.chat.key for mark in marks],
            [mark.chat.id for mark in marks],
            [mark.received for mark in marks],
            [mark.read for mark in marks],
            [mark.needs for mark in marks],
        ]

    def outcomes(self, row: Any) -> list[Outcome]:
        """Return what became of each change, from the row that `append` returned."""
        stored = self._stored(row) if self._drafts else []
        marks: dict[tuple[int, int], tuple[int, int, bool]] = {}
        if self._members:
            before = zip(row["received"], row["read"], row["shows_read"], strict=True)
            marks = dict(zip(self._members, before, strict=True))
        outcomes: list[Outcome] = []
        for plan in self._plans:
            if isinstance(plan, int):
                outcomes.append(stored[plan])
            elif isinstance(plan, _Repeat):
                outcomes.append(_again(plan.draft, stored[plan.of].event))
            elif isinstance(plan, _Step):
                marked, marks[plan.member] = plan.from_here(*marks[plan.member])
                outcomes.append(marked)
            else:
                outcomes.append(plan)
        return outcomes

    def _number(self, draft: Draft, chat: Chat) -> "int | _Repeat | Outcome":
        """Give a draft its numbers, if it is to be stored."""
        name = (draft.sender, draft.client_id)
        if name in self._known.stored:
            return _again(draft, self._known.stored[name])
        if name in self._first:
            return _Repeat(draft, self._first[name])
        if (draft.sender, draft.recipient) in self._known.blocked:
            return Blocked()
        grown = self._grown.get(chat.key)
        if grown is None:
            grown = self._grown[chat.key] = _GrownChat(len(self._grown) + 1, chat)
        is_low = draft.sender == chat.low_id
        events = self._events
        events[chat.low] = grown.low_nth = events.get(chat.low, 0) + 1
        events[chat.high] = grown.high_nth = events.get(chat.high, 0) + 1
        grown.size += 1
        grown.low_size += is_low
        ends = (chat.low, chat.high, grown.size, grown.low_size, grown.low_nth, grown.high_nth)
        if not is_low:
            ends = (chat.high, chat.low, *ends[2:4], grown.high_nth, grown.low_nth)
        self._rows.append((grown.place, *ends, draft.client_id, draft.text))
        self._drafts.append((draft, chat))
        n = self._first[name] = len(self._drafts) - 1
        return n

    def _move(self, mark: Mark, chat: Chat | None) -> "_Step | NotFound":
        """Take a mark into account, if there is what it marks."""
        if chat is None or not chat.has(mark.user) or mark.seq > MAX_SEQ:
            return NotFound()
        grown = self._grown.get(chat.key)
        needs = mark.seq - (grown.size if grown else 0)
        last_seqs = self._known.last_seqs
        if last_seqs is not None and needs > last_seqs[chat.key]:
            return NotFound()
        member = (chat.key_of(mark.user), chat.key)
        peer, peer_id = chat.peer_of(mark.user)
        moved = self._moved.get(member)
        if moved is None:
            moved = self._moved[member] = _MovedMarks(chat, peer)
        moved.received = max(moved.received, mark.seq)
        moved.read = max(moved.read, mark.seq) if mark.read else moved.read
        moved.needs = max(moved.needs, needs)
        return _Step(mark, member, peer_id)

    def _stored(self, row: Any) -> list[Appended]:
        place = {person: n for n, person in enumerate(self._people)}
        positions, last_seqs = row["positions"], row["last_seqs"]
        stored = []
        for (draft, chat), numbers in zip(self._drafts, self._rows, strict=True):
            chat_place, sender, recipient, nth, _, sender_nth, recipient_nth, _, _ = numbers
            seq = last_seqs[chat_place - 1] + nth
            message = Message(
                conversation=chat.id,
                seq=seq,
                position=position_of(chat.key, seq),
                sender=draft.sender,
                recipient=draft.recipient,
                client_id=draft.client_id,
                text=draft.text,
                sent_at_ms=self._at_ms,
            )
            event = Event(
                EventKind.SENT,
                positions[place[sender]] + sender_nth,
                message,
                positions[place[recipient]] + recipient_nth,
            )
            stored.append(Appended(event, duplicate=False))
        return stored


def _again(draft: Draft, event: Event) -> Outcome:
    return Appended(event, duplicate=True) if draft.repeats(event.message) else Conflict()
