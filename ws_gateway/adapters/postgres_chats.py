"""Which conversations there are, by their people and by their ids; keys never change."""

from collections.abc import Iterable

from shared.ids import ConversationId, UserId, conversation_id
from shared.postgres import Connection, Postgres
from ws_gateway.adapters.postgres_rows import (
    CHAT,
    CHAT_JOINS,
    Chat,
    available,
    chat_of,
    is_storable,
)
from ws_gateway.conversations import Change, Draft

__all__ = ["Chats"]

_MAX_REMEMBERED = 50_000  # some 40 MB


class Chats:
    """Finds conversations for changes; makes those that drafts need."""

    def __init__(self, database: Postgres) -> None:
        self._database = database
        self._of_pair: dict[tuple[UserId, UserId], Chat] = {}
        """In both directions."""
        self._of_id: dict[ConversationId, Chat] = {}

    def between(self, one: UserId, other: UserId) -> Chat:
        """Return the conversation of two people, for a draft that `learn` was told of."""
        return self._of_pair[one, other]

    def named(self, public_id: ConversationId) -> Chat | None:
        """Return the conversation of that id, which `learn` was told of, if there is one."""
        return self._of_id.get(public_id)

    def forget(self) -> None:
        """Start afresh."""
        self._of_pair.clear()
        self._of_id.clear()

    async def learn(self, changes: Iterable[Change]) -> None:
        """Find out about every conversation of some changes.

        Raises:
            StoreUnavailable: not now.
        """
        if len(self._of_id) > _MAX_REMEMBERED:
            self.forget()
        pairs: dict[ConversationId, tuple[UserId, UserId]] = {}
        named: set[ConversationId] = set()
        for change in changes:
            if isinstance(change, Draft):
                if (change.sender, change.recipient) not in self._of_pair:
                    low, high = sorted((change.sender, change.recipient))
                    pairs[conversation_id(low, high)] = (low, high)
            elif change.conversation not in self._of_id and is_storable(change.conversation):
                named.add(change.conversation)
        if pairs:
            self._remember(await available(self._database.autocommit(lambda c: _meet(c, pairs))))
        if named := named - pairs.keys():
            self._remember(await available(self._database.read(lambda c: _find(c, named))))

    def _remember(self, chats: Iterable[Chat]) -> None:
        for chat in chats:
            self._of_id[chat.id] = chat
            self._of_pair[chat.low_id, chat.high_id] = chat
            self._of_pair[chat.high_id, chat.low_id] = chat


async def _meet(
    connection: Connection, pairs: dict[ConversationId, tuple[UserId, UserId]]
) -> list[Chat]:
    lows, highs = zip(*pairs.values(), strict=True)
    rows = await connection.fetch(
        "SELECT id, key, low, high FROM meet($1, $2, $3)", lows, highs, list(pairs)
    )
    return [Chat(row["key"], row["id"], row["low"], row["high"], *pairs[row["id"]]) for row in rows]


async def _find(connection: Connection, public_ids: Iterable[ConversationId]) -> list[Chat]:
    rows = await connection.fetch(_FIND, list(public_ids))
    return [chat_of(row) for row in rows]


_FIND = f"SELECT {CHAT} FROM conversations AS chat {CHAT_JOINS} WHERE chat.id = ANY ($1)"
