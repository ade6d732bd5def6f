"""The transaction that makes a batch of changes. Runs in the writer's thread."""

import sqlite3
from collections.abc import Sequence
from typing import Any, TypeAlias

import msgspec

from shared.ids import ConversationId, UserId, conversation_id
from ws_gateway.adapters.sqlite_erasure import erase
from ws_gateway.adapters.sqlite_indexes import SearchEntry
from ws_gateway.adapters.sqlite_rows import COLUMNS, JOINS, N_COLUMNS, message_of, user_key
from ws_gateway.conversations import (
    Appended,
    Blocked,
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

__all__ = ["Append", "Pair", "Route"]

Pair: TypeAlias = tuple[UserId, UserId]


class Route(msgspec.Struct, frozen=True):
    """A sender's way to a recipient: what a draft needs to know. Only `blocked` may ever change."""

    conversation: int
    conversation_id: ConversationId
    sender: int
    sender_is_low: bool
    blocked: bool


class Append:
    """One transaction's work. `routes` is the store's cache; this reads it and adds to it."""

    def __init__(
        self, connection: sqlite3.Connection, routes: dict[Pair, Route], at_ms: int
    ) -> None:
        self._connection = connection
        self._routes = routes
        self._at_ms = at_ms
        (self.position,) = connection.execute(
            "SELECT coalesce(max(position), 0) FROM log"
        ).fetchone()
        self._messages: list[tuple[Any, ...]] = []
        self._log: list[tuple[int, int, int, int]] = []
        self._last: dict[int, tuple[int, int]] = {}
        self._stored: dict[tuple[UserId, str], Message] = {}

    def make(self, changes: Sequence[Change]) -> list[Outcome]:
        """Make the changes in their order; return an outcome for each."""
        self._stored = self._stored_before(
            [change for change in changes if isinstance(change, Draft)]
        )
        outcomes: list[Outcome] = []
        for change in changes:
            if isinstance(change, Draft):
                outcomes.append(self._send(change))
            else:
                self._flush()  # the others look at rows
                outcomes.append(self._change(change))
        self._flush()
        return outcomes

    def _change(self, change: Edit | Deletion | Mark | Erasure) -> Outcome:
        match change:
            case Edit() | Deletion():
                return self._revise(change)
            case Mark():
                return self._mark(change)
            case Erasure():
                return self._erase(change)

    def _send(self, draft: Draft) -> Outcome:
        name = (draft.sender, draft.client_id)
        earlier = self._stored.get(name)
        if earlier is not None:
            if not draft.repeats(earlier):
                return Conflict()
            return Appended(Event(EventKind.SENT, earlier.position, earlier), duplicate=True)
        route = self._route(draft)
        if route.blocked:
            return Blocked()
        last_seq, low_count = self._last_of(route.conversation)
        seq, low_count = last_seq + 1, low_count + route.sender_is_low
        self._last[route.conversation] = (seq, low_count)
        self.position += 1
        message = self._stored[name] = Message(
            conversation=route.conversation_id,
            seq=seq,
            position=self.position,
            sender=draft.sender,
            recipient=draft.recipient,
            client_id=draft.client_id,
            text=draft.text,
            sent_at_ms=self._at_ms,
        )
        self._messages.append(
            (
                route.conversation,
                seq,
                self.position,
                route.sender,
                low_count,
                draft.client_id,
                self._at_ms,
                draft.text,
            )
        )
        self._log.append((self.position, route.conversation, seq, EventKind.SENT))
        return Appended(Event(EventKind.SENT, self.position, message), duplicate=False)

    def _flush(self) -> None:
        """Write what was gathered: a statement for each table, not for each message."""
        if self._log:
            self._connection.executemany(
                "INSERT INTO messages VALUES (?, ?, ?, ?, ?, ?, ?, 0, NULL, 0, ?)", self._messages
            )
            self._connection.executemany("INSERT INTO log VALUES (?, ?, ?, ?, NULL)", self._log)
            self._messages.clear()
            self._log.clear()

    def _revise(self, change: Edit | Deletion) -> Outcome:
        author = user_key(self._connection, change.author)
        found = self._message(change.conversation, change.seq)
        if author is None or found is None or author not in found[1:3]:
            return NotFound()
        message, low, high, key = found
        kind = EventKind.EDITED if isinstance(change, Edit) else EventKind.DELETED
        earlier = self._connection.execute(
            "SELECT log.position, log.conversation, log.seq, log.kind FROM changes"
            " JOIN log USING (position) WHERE request_id = ? AND author = ?",
            (change.request_id, author),
        ).fetchone()
        if earlier is not None:
            if earlier[1:] != (key, change.seq, kind):
                return Conflict()
            return Appended(Event(kind, earlier[0], message), duplicate=True)
        if message.sender != change.author:
            return NotAuthor()
        if message.deleted:
            return Conflict() if kind is EventKind.EDITED else self._again(message, kind)
        text = change.text if isinstance(change, Edit) else ""
        self.position += 1
        search = SearchEntry(self._connection, message.position, low, high)
        search.remove(message.text)
        self._connection.execute(
            "UPDATE messages SET text = ?, revision = revision + 1, changed_at_ms = ?, deleted = ?"
            " WHERE conversation = ? AND seq = ?",
            (text, self._at_ms, kind is EventKind.DELETED, key, message.seq),
        )
        self._connection.execute(
            "INSERT INTO log VALUES (?, ?, ?, ?, NULL)", (self.position, key, message.seq, kind)
        )
        self._connection.execute(
            "INSERT INTO changes VALUES (?, ?, ?)", (change.request_id, author, self.position)
        )
        revised = msgspec.structs.replace(
            message,
            text=text,
            revision=message.revision + 1,
            changed_at_ms=self._at_ms,
            deleted=kind is EventKind.DELETED,
        )
        if kind is EventKind.EDITED:
            search.add(text)
        self._stored.pop((message.sender, message.client_id), None)
        return Appended(Event(kind, self.position, revised), duplicate=False)

    def _again(self, message: Message, kind: EventKind) -> Outcome:
        """A deletion of what is deleted already, under another id: the wish is granted."""
        return Appended(Event(kind, message.position, message), duplicate=True)

    def _mark(self, mark: Mark) -> Outcome:
        row = self._connection.execute(
            "SELECT me.user, me.conversation, peer.id, me.received, me.read, myself.shares_reads,"
            " (SELECT max(seq) FROM messages WHERE conversation = me.conversation)"
            " FROM conversations JOIN users AS myself ON myself.id = ?"
            " JOIN members AS me ON me.user = myself.key AND me.conversation = conversations.key"
            " JOIN users AS peer ON peer.key = me.peer WHERE conversations.id = ?",
            (mark.user, mark.conversation),
        ).fetchone()
        if row is None or row[6] is None or mark.seq > row[6]:
            return NotFound()
        user, conversation, peer, received, read, shares_reads, _ = row
        moved = mark.seq > (read if mark.read else received)
        if moved:
            received = max(received, mark.seq)
            read = max(read, mark.seq) if mark.read else read
            self._connection.execute(
                "UPDATE members SET received = ?, read = ?, marks_position = ?"
                " WHERE user = ? AND conversation = ?",
                (received, read, self.position, user, conversation),
            )
            self._connection.execute(
                "INSERT OR IGNORE INTO marks VALUES (?, ?, ?, ?, ?)",
                (conversation, user, mark.read, mark.seq, self._at_ms),
            )
        return Marked(peer, received, read, moved, bool(shares_reads))

    def _erase(self, erasure: Erasure) -> Outcome:
        outcome = erase(self._connection, erasure, self.position + 1, self._at_ms)
        if isinstance(outcome, Appended):
            self.position += 1
        return outcome

    def _stored_before(self, drafts: Sequence[Draft]) -> dict[tuple[UserId, str], Message]:
        """Find the messages that drafts repeat, in one statement for the whole batch."""
        if not drafts:
            return {}
        wanted = msgspec.json.encode([(draft.client_id, draft.sender) for draft in drafts])
        rows = self._connection.execute(_STORED_BEFORE, (wanted.decode(),))
        return {(row[3], row[5]): message_of(row) for row in rows}

    def _message(self, public_id: ConversationId, seq: int) -> tuple[Message, int, int, int] | None:
        row = self._connection.execute(_ONE, (public_id, seq)).fetchone()
        if row is None:
            return None
        low, high, key = row[N_COLUMNS:]
        return message_of(row), low, high, key

    def _last_of(self, conversation: int) -> tuple[int, int]:
        """Return the last seq of a conversation and its count of the low one's messages."""
        last = self._last.get(conversation)
        if last is None:
            last = self._connection.execute(
                "SELECT seq, low_count FROM messages WHERE conversation = ?"
                " ORDER BY seq DESC LIMIT 1",
                (conversation,),
            ).fetchone() or (0, 0)
        return last

    def _route(self, draft: Draft) -> Route:
        pair = (draft.sender, draft.recipient)
        route = self._routes.get(pair)
        if route is None:
            route = self._routes[pair] = self._make_route(*pair)
        return route

    def _make_route(self, sender: UserId, recipient: UserId) -> Route:
        low_id, high_id = sorted((sender, recipient))
        low, high = self._user(low_id), self._user(high_id)
        public_id = conversation_id(sender, recipient)
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
        key, peer = (low, high) if sender == low_id else (high, low)
        (blocked,) = execute(
            "SELECT EXISTS (SELECT 1 FROM blocks WHERE blocker = ? AND blocked = ?)", (peer, key)
        ).fetchone()
        return Route(found[0], public_id, key, sender == low_id, bool(blocked))

    def _user(self, user_id: UserId) -> int:
        self._connection.execute("INSERT OR IGNORE INTO users (id) VALUES (?)", (user_id,))
        (key,) = self._connection.execute(
            "SELECT key FROM users WHERE id = ?", (user_id,)
        ).fetchone()
        return int(key)


_STORED_BEFORE = f"""
SELECT {COLUMNS}
FROM json_each(?) AS wanted
CROSS JOIN users AS author ON author.id = json_extract(wanted.value, '$[1]')
CROSS JOIN messages AS message INDEXED BY messages_by_client_id
    ON message.client_id = json_extract(wanted.value, '$[0]') AND message.sender = author.key
{JOINS}
"""

_ONE = f"""
SELECT {COLUMNS}, conversation.low, conversation.high, conversation.key
FROM conversations AS named
CROSS JOIN messages AS message ON message.conversation = named.key
{JOINS}
WHERE named.id = ? AND message.seq = ?
"""
