"""The message store in memory, with faults to switch on."""

from collections.abc import Sequence

from shared.ids import ConversationId, UserId, conversation_id
from tests.support.waiting import Gate
from ws_gateway.conversations import Appended, Conflict, Draft, Message
from ws_gateway.ports import StoreUnavailable

__all__ = ["FakeMessageStore"]


class FakeMessageStore:
    """A `MessageStore` without a disk. Passes the same contract tests as the one on SQLite."""

    def __init__(self, epoch: str = "fake") -> None:
        self.epoch = epoch
        self.messages: list[Message] = []
        self.batches: list[int] = []
        """The size of each batch that was asked for."""
        self.available = True
        self.poison: str | None = None
        """A batch that holds a draft with this text fails whole."""
        self.commits = Gate()
        self._by_client_id: dict[tuple[UserId, str], Message] = {}
        self._last_seq: dict[ConversationId, int] = {}

    @property
    def position(self) -> int:
        """See `MessageStore`."""
        return len(self.messages)

    async def append_batch(
        self, drafts: Sequence[Draft], sent_at_ms: int
    ) -> list[Appended | Conflict]:
        """See `MessageStore`."""
        self.batches.append(len(drafts))
        await self.commits.passed()
        if not self.available:
            raise StoreUnavailable("it is switched off")
        if any(draft.text == self.poison for draft in drafts):
            raise RuntimeError("poisoned")
        return [self._append(draft, sent_at_ms) for draft in drafts]

    async def is_available(self) -> bool:
        """See `MessageStore`."""
        return self.available

    def _append(self, draft: Draft, sent_at_ms: int) -> Appended | Conflict:
        name = (draft.sender, draft.client_id)
        earlier = self._by_client_id.get(name)
        if earlier is not None:
            same = draft.same_content(earlier)
            return Appended(earlier, duplicate=True) if same else Conflict(draft)
        conversation = conversation_id(draft.sender, draft.recipient)
        seq = self._last_seq[conversation] = self._last_seq.get(conversation, 0) + 1
        message = Message(
            conversation=conversation,
            seq=seq,
            position=len(self.messages) + 1,
            sender=draft.sender,
            recipient=draft.recipient,
            client_id=draft.client_id,
            text=draft.text,
            sent_at_ms=sent_at_ms,
        )
        self._by_client_id[name] = message
        self.messages.append(message)
        return Appended(message, duplicate=False)
