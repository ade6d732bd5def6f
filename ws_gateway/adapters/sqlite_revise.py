"""Everything in a batch but sending: edits, deletions, marks, erasures. In the writer's thread."""

import sqlite3
from typing import Protocol

import msgspec

from shared.ids import ConversationId, UserId
from ws_gateway.adapters.sqlite_marks import MarkRow
from ws_gateway.adapters.sqlite_rows import (
    COLUMNS,
    JOINS,
    N_COLUMNS,
    SHOWS_READ,
    is_blocked,
    message_of,
    user_key,
)
from ws_gateway.conversations import (
    Appended,
    Blocked,
    Conflict,
    Deletion,
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
    Unfinished,
)

__all__ = ["Revise", "erased_event"]

_ERASE_CHUNK = 1000
"""Messages that one transaction erases: the others wait for it, a few tens of milliseconds."""


class Conversations(Protocol):
    """What the transaction knows of conversations beside the tables."""

    marks: list[MarkRow]
    """For `append_marks`."""

    def last_of(self, conversation: int) -> tuple[int, int]: ...
    def place(self, conversation: int) -> None: ...


class Revise:
    """One change's work within a transaction; an event gets the position after `position`."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        position: int,
        at_ms: int,
        conversations: Conversations,
    ) -> None:
        self._connection = connection
        self._at_ms = at_ms
        self._conversations = conversations
        self.position = position

    def make(self, change: Edit | Deletion | Mark | Erasure) -> Outcome:
        """Make the change; return what became of it."""
        if isinstance(change, Mark):
            return self._mark(change)
        found = self._connection.execute(
            "SELECT key FROM conversations WHERE id = ?", (change.conversation,)
        ).fetchone()
        if found is not None:
            self._conversations.place(found[0])
        return self._erase(change) if isinstance(change, Erasure) else self._revise(change)

    def _revise(self, change: Edit | Deletion) -> Outcome:
        row = self._connection.execute(_ONE, (change.conversation, change.seq)).fetchone()
        author = user_key(self._connection, change.author)
        if row is None or author is None or author not in row[N_COLUMNS : N_COLUMNS + 2]:
            return NotFound()
        message, (low, high, conversation) = message_of(row), row[N_COLUMNS:]
        kind = EventKind.EDITED if isinstance(change, Edit) else EventKind.DELETED
        earlier = self._connection.execute(
            "SELECT revisions.position, message, kind, revision FROM changes"
            " JOIN revisions USING (position) WHERE request_id = ? AND author = ?",
            (change.request_id, author),
        ).fetchone()
        if earlier is not None:
            position, *made = earlier
            if made[:2] != [message.position, kind] or not change.repeats(message, made[2]):
                return Conflict()
            return Appended(Event(kind, position, message), duplicate=True)
        if message.sender != change.author:
            return NotAuthor()
        peer = high if author == low else low
        if isinstance(change, Edit) and is_blocked(self._connection, peer, author):
            return Blocked()
        if message.deleted:
            if isinstance(change, Edit):
                return Conflict()
            return Appended(Event(kind, message.position, message), duplicate=True)
        self._log(conversation, (low, high), message.position, kind, author)
        self._connection.execute(
            "INSERT INTO changes VALUES (?, ?, ?, ?)",
            (change.request_id, author, self.position, message.revision + 1),
        )
        revised = self._rewrite(message, change.text if isinstance(change, Edit) else None)
        self._connection.execute(_REMOVE, (message.position, message.text))
        return Appended(Event(kind, self.position, revised), duplicate=False)

    def _log(
        self,
        conversation: int,
        people: tuple[int, int],
        message: int | None,
        kind: EventKind,
        actor: int | None,
    ) -> None:
        """Put an event in the log, and in both inboxes."""
        self.position += 1
        self._connection.execute(
            "INSERT INTO revisions VALUES (?, ?, ?, ?, ?)",
            (self.position, conversation, message, kind, actor),
        )
        self._connection.executemany(
            "INSERT INTO inbox VALUES (?, ?)", [(user, self.position) for user in people]
        )

    def _rewrite(self, message: Message, text: str | None) -> Message:
        """Give a message another text, or none."""
        self._connection.execute(
            "UPDATE messages SET text = ?, deleted = ?, revision = revision + 1, changed_at_ms = ?"
            " WHERE position = ?",
            (text or "", text is None, self._at_ms, message.position),
        )
        return msgspec.structs.replace(
            message,
            text=text or "",
            deleted=text is None,
            revision=message.revision + 1,
            changed_at_ms=self._at_ms,
        )

    def _mark(self, mark: Mark) -> Outcome:
        row = self._connection.execute(_SIDE, (mark.user, mark.conversation)).fetchone()
        if row is None or mark.seq > self._conversations.last_of(row[1])[0]:
            return NotFound()
        user, conversation, peer, received, read, shows_read = row
        moved_received = mark.seq > received
        moved_read = mark.read and mark.seq > read
        if moved_received or moved_read:
            received = max(received, mark.seq)
            read = mark.seq if moved_read else read
            self._connection.execute(
                "UPDATE members SET received = ?, read = ?, marks_position = ?,"
                " received_position = iif(?, ?, received_position)"
                " WHERE user = ? AND conversation = ?",
                (
                    *(received, read, self.position),
                    *(moved_received, self.position, user, conversation),
                ),
            )
            for of_read, moved in ((0, moved_received), (1, moved_read)):
                if moved:
                    self._conversations.marks.append(
                        (conversation, user, of_read, mark.seq, self._at_ms)
                    )
        return Marked(peer, received, read, moved_received, moved_read, bool(shows_read))

    def _erase(self, erasure: Erasure) -> Outcome:
        """Erase some messages of one conversation; the last time, note it in the log."""
        user = user_key(self._connection, erasure.user)
        found = self._connection.execute(_PEER, (user, erasure.conversation)).fetchone()
        if user is None or found is None:
            return NotFound()
        conversation, low, high, peer = found
        rows = self._connection.execute(
            _TEXTS, (conversation, erasure.after, user, _ERASE_CHUNK + 1)
        ).fetchall()
        more = len(rows) > _ERASE_CHUNK
        del rows[_ERASE_CHUNK:]
        self._connection.executemany(_REMOVE, [(position, text) for position, text, _ in rows])
        self._connection.executemany(
            "UPDATE messages SET text = '', deleted = 1, revision = revision + 1,"
            " changed_at_ms = ? WHERE position = ?",
            [(self._at_ms, position) for position, _, _ in rows],
        )
        if more:
            return Unfinished(rows[-1][2])
        self._log(conversation, (low, high), None, EventKind.ERASED, user)
        event = erased_event(erasure.conversation, erasure.user, peer, self.position)
        return Appended(event, duplicate=False)


def erased_event(conversation: ConversationId, user: UserId, peer: UserId, position: int) -> Event:
    """Make the event that says a person's messages in a conversation have no text any more."""
    message = Message(
        conversation=conversation,
        seq=0,
        position=position,
        sender=user,
        recipient=peer,
        client_id="",
        text="",
        sent_at_ms=0,
        deleted=True,
    )
    return Event(EventKind.ERASED, position, message)


_REMOVE = "INSERT INTO removals (position, text) VALUES (?, ?)"

_ONE = f"""
SELECT {COLUMNS}, conversation.low, conversation.high, conversation.key
FROM conversations AS named
CROSS JOIN places ON places.conversation = named.key
CROSS JOIN messages AS message ON message.position = places.position
{JOINS}
WHERE named.id = ? AND places.seq = ?
"""

_SIDE = f"""
SELECT me.user, me.conversation, peer.id, me.received, me.read,
       {SHOWS_READ.format(person="myself", viewer="me.peer")}
FROM conversations
JOIN users AS myself ON myself.id = ?
JOIN members AS me ON me.user = myself.key AND me.conversation = conversations.key
JOIN users AS peer ON peer.key = me.peer
WHERE conversations.id = ?
"""

_PEER = """
SELECT conversations.key, low, high, users.id
FROM conversations JOIN users ON users.key = CASE low WHEN ?1 THEN high ELSE low END
WHERE conversations.id = ?2 AND ?1 IN (low, high)
"""

_TEXTS = """
SELECT messages.position, messages.text, places.seq
FROM places CROSS JOIN messages USING (position)
WHERE places.conversation = ? AND places.seq > ? AND messages.sender = ? AND NOT messages.deleted
ORDER BY places.seq LIMIT ?
"""
