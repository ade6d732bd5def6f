"""The message store on SQLite: one file, nothing to install, durable when it returns."""

import sqlite3
from collections.abc import Awaitable, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias, TypeVar

import msgspec

from shared.ids import ConversationId, UserId, conversation_id
from shared.sqlite import Database, DatabaseUnavailable
from ws_gateway.conversations import Appended, Conflict, Draft, Message
from ws_gateway.ports import StoreUnavailable

__all__ = ["SqliteMessageStore"]

T = TypeVar("T")
_Pair: TypeAlias = tuple[UserId, UserId]

_MAX_CACHED_ROUTES = 100_000


class _Route(msgspec.Struct, frozen=True):
    """A sender's way to a recipient: the keys of both and of their conversation. Never changes."""

    conversation: int
    conversation_id: ConversationId
    sender: int


class SqliteMessageStore:
    """A `MessageStore` in one SQLite file. Make it with `open`, and `close` it.

    One coroutine at a time calls `append_batch`.
    """

    def __init__(self, database: Database, epoch: str, position: int) -> None:
        self._database = database
        self._epoch = epoch
        self._position = position
        self._routes: dict[_Pair, _Route] = {}

    @classmethod
    async def open(cls, path: Path, *, busy_timeout_s: float = 2.0) -> "SqliteMessageStore":
        """Open the file, making or migrating it.

        Raises:
            DatabaseInUse: another gateway has it.
            DatabaseUnavailable: it cannot be opened.
        """
        database = await Database.open(
            path, "ws_gateway.adapters.migrations", busy_timeout_s=busy_timeout_s
        )
        epoch, position = await database.read(_epoch_and_position)
        return cls(database, epoch, position)

    @property
    def epoch(self) -> str:
        """The name of this database's life."""
        return self._epoch

    @property
    def position(self) -> int:
        """The position of the last committed message."""
        return self._position

    async def append_batch(
        self, drafts: Sequence[Draft], sent_at_ms: int
    ) -> list[Appended | Conflict]:
        """Store drafts in one transaction; see `MessageStore`."""
        made: dict[_Pair, _Route] = {}

        def append(connection: sqlite3.Connection) -> tuple[list[Appended | Conflict], int]:
            return _Append(connection, self._routes, made, sent_at_ms).append(drafts)

        outcomes, self._position = await _available(self._database.write(append))
        if len(self._routes) + len(made) > _MAX_CACHED_ROUTES:
            self._routes.clear()
        self._routes.update(made)
        return outcomes

    async def is_available(self) -> bool:
        """Whether a trivial read works."""
        try:
            await self._database.read(_epoch_and_position)
        except DatabaseUnavailable:
            return False
        return True

    async def close(self) -> None:
        """Close the file and let another process open it."""
        await self._database.close()


class _Append:
    """One transaction's work, in the writer's thread."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        routes: Mapping[_Pair, _Route],
        made: dict[_Pair, _Route],
        sent_at_ms: int,
    ) -> None:
        self._connection = connection
        self._routes = routes
        self._made = made
        self._sent_at_ms = sent_at_ms
        self._last_seq: dict[int, int] = {}

    def append(self, drafts: Sequence[Draft]) -> tuple[list[Appended | Conflict], int]:
        """Return an outcome for each draft, and the position of the last message of all."""
        (position,) = self._connection.execute(
            "SELECT coalesce(max(position), 0) FROM log"
        ).fetchone()
        taken = self._stored_before(drafts)
        outcomes: list[Appended | Conflict] = []
        messages, log = [], []
        for draft in drafts:
            name = (draft.sender, draft.client_id)
            earlier = taken.get(name)
            if earlier is not None:
                same = draft.same_content(earlier)
                outcomes.append(Appended(earlier, duplicate=True) if same else Conflict(draft))
                continue
            position += 1
            route = self._route(draft)
            seq = self._next_seq(route.conversation)
            message = taken[name] = Message(
                conversation=route.conversation_id,
                seq=seq,
                position=position,
                sender=draft.sender,
                recipient=draft.recipient,
                client_id=draft.client_id,
                text=draft.text,
                sent_at_ms=self._sent_at_ms,
            )
            outcomes.append(Appended(message, duplicate=False))
            messages.append(
                (
                    route.conversation,
                    seq,
                    position,
                    route.sender,
                    draft.client_id,
                    self._sent_at_ms,
                    draft.text,
                )
            )
            log.append((position, route.conversation, seq))
        self._connection.executemany("INSERT INTO messages VALUES (?, ?, ?, ?, ?, ?, ?)", messages)
        self._connection.executemany("INSERT INTO log VALUES (?, ?, ?)", log)
        return outcomes, position

    def _stored_before(self, drafts: Sequence[Draft]) -> dict[tuple[UserId, str], Message]:
        """Find the messages that drafts repeat, in one statement for the whole batch."""
        wanted = msgspec.json.encode([(draft.client_id, draft.sender) for draft in drafts])
        return {
            (row[0], row[1]): Message(
                conversation=row[2],
                seq=row[3],
                position=row[4],
                sender=row[0],
                recipient=row[5],
                client_id=row[1],
                text=row[6],
                sent_at_ms=row[7],
            )
            for row in self._connection.execute(_STORED_BEFORE, (wanted.decode(),))
        }

    def _next_seq(self, conversation: int) -> int:
        last = self._last_seq.get(conversation)
        if last is None:
            (last,) = self._connection.execute(
                "SELECT coalesce(max(seq), 0) FROM messages WHERE conversation = ?",
                (conversation,),
            ).fetchone()
        self._last_seq[conversation] = last + 1
        return last + 1

    def _route(self, draft: Draft) -> _Route:
        pair = (draft.sender, draft.recipient)
        route = self._routes.get(pair) or self._made.get(pair)
        if route is None:
            route = self._made[pair] = self._make_route(*pair)
        return route

    def _make_route(self, sender: UserId, recipient: UserId) -> _Route:
        keys = {user_id: self._user_key(user_id) for user_id in sorted((sender, recipient))}
        public_id = conversation_id(sender, recipient)
        found = self._connection.execute(
            "SELECT key FROM conversations WHERE id = ?", (public_id,)
        ).fetchone()
        if found is None:
            found = self._connection.execute(
                "INSERT INTO conversations (id, low, high) VALUES (?, ?, ?) RETURNING key",
                (public_id, *keys.values()),
            ).fetchone()
        return _Route(found[0], public_id, keys[sender])

    def _user_key(self, user_id: UserId) -> int:
        self._connection.execute("INSERT OR IGNORE INTO users (id) VALUES (?)", (user_id,))
        (key,) = self._connection.execute(
            "SELECT key FROM users WHERE id = ?", (user_id,)
        ).fetchone()
        return int(key)


_STORED_BEFORE = """
SELECT sender.id, message.client_id, conversation.id, message.seq, message.position,
       recipient.id, message.text, message.sent_at_ms
FROM json_each(?) AS wanted
CROSS JOIN users AS sender ON sender.id = json_extract(wanted.value, '$[1]')
CROSS JOIN messages AS message INDEXED BY messages_by_client_id
    ON message.client_id = json_extract(wanted.value, '$[0]') AND message.sender = sender.key
CROSS JOIN conversations AS conversation ON conversation.key = message.conversation
CROSS JOIN users AS recipient
    ON recipient.key = CASE message.sender WHEN conversation.low THEN conversation.high
                                           ELSE conversation.low END
"""


def _epoch_and_position(connection: sqlite3.Connection) -> tuple[str, int]:
    epoch, position = connection.execute(
        "SELECT epoch, (SELECT coalesce(max(position), 0) FROM log) FROM life"
    ).fetchone()
    return epoch, position


async def _available(call: Awaitable[T]) -> T:
    try:
        return await call
    except DatabaseUnavailable as error:
        raise StoreUnavailable(str(error)) from error
