"""The transaction that makes a batch of changes. Runs in the writer's thread."""

import sqlite3
from collections.abc import Sequence
from typing import TypeAlias

import msgspec

from shared.ids import ConversationId, UserId, conversation_id
from ws_gateway.adapters.sqlite_backlog import Backlog, Sent, place
from ws_gateway.adapters.sqlite_marks import MarkRow, append_marks
from ws_gateway.adapters.sqlite_revise import Revise
from ws_gateway.adapters.sqlite_rows import COLUMNS, JOINS, insert_rows, is_blocked, message_of
from ws_gateway.conversations import (
    SENT,
    Appended,
    Blocked,
    Change,
    Conflict,
    Deletion,
    Draft,
    Edit,
    Erasure,
    Event,
    Mark,
    Message,
    Outcome,
)

__all__ = ["Append", "LogCache", "Pair", "Route"]

Pair: TypeAlias = tuple[UserId, UserId]

_MAX_CACHED = 100_000


class Route(msgspec.Struct, frozen=True):
    """A sender's way to a recipient: what a draft needs to know. It changes with a block alone."""

    conversation: int
    conversation_id: ConversationId
    low: int
    high: int
    sender_is_low: bool
    blocked: bool
    people: Pair


class LogCache:
    """What the one writer remembers between transactions, so that a send looks up nothing.

    Filled within a transaction; after one that failed it may be wrong: `forget` it.
    """

    def __init__(self) -> None:
        self.routes: dict[Pair, Route] = {}
        self.last: dict[int, tuple[int, int]] = {}
        """For each conversation its last seq, and how many messages of its `low` that makes."""

    def forget(self) -> None:
        """Start afresh."""
        self.routes.clear()
        self.last.clear()

    def undo(self, append: "Append") -> None:
        """Forget what a transaction that was rolled back has put here."""
        for message in append.sent:
            self.last.pop(message.conversation, None)
        for pair in append.new_routes:
            route = self.routes.pop(pair, None)
            if route is not None:
                self.last.pop(route.conversation, None)

    def bound(self) -> None:
        """Start afresh when too much is remembered."""
        if len(self.routes) > _MAX_CACHED or len(self.last) > _MAX_CACHED:
            self.forget()


class Append:
    """One transaction's work; events get the positions after `position`.

    `sent` is what the backlog must take once this is committed. Hardly any draft repeats an earlier
    one, so they are looked for only when `careful`: else a repetition raises
    sqlite3.IntegrityError, and the work is to be undone and done again with care.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        cache: LogCache,
        backlog: Backlog,
        position: int,
        at_ms: int,
        *,
        careful: bool,
    ) -> None:
        self.sent: list[Sent] = []
        self.new_routes: list[Pair] = []
        self.marks: list[MarkRow] = []
        self._connection = connection
        self._cache = cache
        self._backlog = backlog
        self._at_ms = at_ms
        self.position = position
        self._careful = careful
        self._rows: list[int | str] = []
        self._stored: dict[tuple[UserId, str], Message] = {}

    def make(self, changes: Sequence[Change]) -> list[Outcome]:
        """Make the changes in their order; return an outcome for each."""
        if self._careful:
            self._stored = self._stored_before(changes)
        outcomes: list[Outcome] = []
        for change in changes:
            if isinstance(change, Draft):
                outcomes.append(self._send(change))
            else:
                outcomes.append(self._revise(change))
                if isinstance(change, Erasure) and self._stored:
                    self._stored = self._stored_before(changes)
        self._flush()
        append_marks(self._connection, self.marks)
        return outcomes

    def _revise(self, change: Edit | Deletion | Mark | Erasure) -> Outcome:
        if not isinstance(change, Mark):  # marks look at nothing that was gathered
            self._flush()
        revise = Revise(self._connection, self.position, self._at_ms, self)
        outcome = revise.make(change)
        self.position = revise.position
        if isinstance(outcome, Appended):
            message = outcome.event.message
            name = (message.sender, message.client_id)
            if name in self._stored:
                self._stored[name] = message
        return outcome

    def _send(self, draft: Draft) -> Outcome:
        if self._careful:
            earlier = self._stored.get((draft.sender, draft.client_id))
            if earlier is not None:
                return _again(draft, earlier)
        route = self._route(draft)
        if route.blocked:
            return self._blocked(draft)
        conversation = route.conversation
        last_seq, low_count = self._cache.last.get(conversation) or self.last_of(conversation)
        seq, low_count = last_seq + 1, low_count + route.sender_is_low
        self._cache.last[conversation] = (seq, low_count)
        self.position += 1
        position, sender, client_id, text = self.position, draft.sender, draft.client_id, draft.text
        message = Message(
            route.conversation_id,
            seq,
            position,
            sender,
            draft.recipient,
            client_id,
            text,
            self._at_ms,
        )
        if self._careful:
            self._stored[sender, client_id] = message
        self._rows += (
            position,
            conversation,
            seq,
            route.low if route.sender_is_low else route.high,
            low_count,
            client_id,
            self._at_ms,
            text,
        )
        self.sent.append(
            Sent(conversation, route.low, route.high, route.people, seq, position, low_count)
        )
        return Appended(Event(SENT, position, message), duplicate=False)

    def _blocked(self, draft: Draft) -> Outcome:
        """Refuse a draft, but for one that repeats what was stored before the block."""
        for earlier in self._stored_before([draft]).values():
            return _again(draft, earlier)
        return Blocked()

    def _flush(self) -> None:
        """Write what was gathered."""
        insert_rows(
            self._connection,
            "INSERT INTO messages",
            "(?, ?, ?, ?, ?, ?, ?, 0, NULL, 0, ?)",
            self._rows,
        )
        self._rows.clear()

    def _stored_before(self, changes: Sequence[Change]) -> dict[tuple[UserId, str], Message]:
        """Find the messages that drafts repeat, in one statement for the whole batch."""
        names = [(draft.client_id, draft.sender) for draft in changes if isinstance(draft, Draft)]
        if not names:
            return {}
        wanted = msgspec.json.encode(names).decode()
        rows = self._connection.execute(_STORED_BEFORE, (wanted,))
        return {(row[3], row[5]): message_of(row) for row in rows}

    def last_of(self, conversation: int) -> tuple[int, int]:
        """Return the last seq of a conversation and its count of the low one's messages."""
        last = self._cache.last.get(conversation)
        if last is None:
            waiting = self._backlog.of(conversation)
            last = (
                (waiting[-1].seq, waiting[-1].low_count)
                if waiting
                else self._stored_last(conversation)
            )
            self._cache.last[conversation] = last
        return last

    def place(self, conversation: int) -> None:
        """Make every message of a conversation findable by its seq."""
        place(self._connection, self._backlog.of(conversation))
        place(self._connection, [m for m in self.sent if m.conversation == conversation])

    def _stored_last(self, conversation: int) -> tuple[int, int]:
        seq, low_count = self._connection.execute(
            "SELECT places.seq, messages.low_count FROM places JOIN messages USING (position)"
            " WHERE places.conversation = ? ORDER BY places.seq DESC LIMIT 1",
            (conversation,),
        ).fetchone() or (0, 0)
        return seq, low_count

    def _route(self, draft: Draft) -> Route:
        pair = (draft.sender, draft.recipient)
        route = self._cache.routes.get(pair)
        if route is None:
            route = self._cache.routes[pair] = self._make_route(*pair)
            self.new_routes.append(pair)
        return route

    def _make_route(self, sender: UserId, recipient: UserId) -> Route:
        low_id, high_id = sorted((sender, recipient))
        low, high = self._user(low_id), self._user(high_id)
        public_id = conversation_id(sender, recipient)
        key, peer = (low, high) if sender == low_id else (high, low)
        if is_blocked(self._connection, peer, key):  # and begins no conversation
            return Route(
                0, public_id, low, high, sender == low_id, blocked=True, people=(sender, recipient)
            )
        execute = self._connection.execute
        found = execute("SELECT key FROM conversations WHERE id = ?", (public_id,)).fetchone()
        if found is None:
            found = execute(
                "INSERT INTO conversations (id, low, high) VALUES (?, ?, ?) RETURNING key",
                (public_id, low, high),
            ).fetchone()
            self._connection.executemany(
                "INSERT INTO members (user, conversation, peer) VALUES (?, ?, ?)",
                [(low, found[0], high), (high, found[0], low)],
            )
        return Route(
            found[0],
            public_id,
            low,
            high,
            sender == low_id,
            blocked=False,
            people=(sender, recipient),
        )

    def _user(self, user_id: UserId) -> int:
        self._connection.execute("INSERT OR IGNORE INTO users (id) VALUES (?)", (user_id,))
        (key,) = self._connection.execute(
            "SELECT key FROM users WHERE id = ?", (user_id,)
        ).fetchone()
        return int(key)


def _again(draft: Draft, earlier: Message) -> Outcome:
    if not draft.repeats(earlier):
        return Conflict()
    return Appended(Event(SENT, earlier.position, earlier), duplicate=True)


_STORED_BEFORE = f"""
SELECT {COLUMNS}
FROM json_each(?) AS wanted
CROSS JOIN users AS author ON author.id = json_extract(wanted.value, '$[1]')
CROSS JOIN messages AS message INDEXED BY messages_by_client_id
    ON message.client_id = json_extract(wanted.value, '$[0]') AND message.sender = author.key
{JOINS}
"""
