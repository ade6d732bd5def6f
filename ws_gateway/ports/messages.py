"""Where conversations are kept: the log that a gateway writes and replays."""

from collections.abc import Iterable, Sequence
from typing import Protocol

import msgspec

from shared.ids import ConversationId, UserId
from ws_gateway.conversations import Change, Event, Outcome

__all__ = ["EventPage", "MessageStore", "SharedLogs", "StoreUnavailable"]


class StoreUnavailable(Exception):
    """The store cannot do this now, and has changed nothing. The same call may succeed later."""


class EventPage(msgspec.Struct, frozen=True):
    """Events of one user after a position, oldest first."""

    events: list[Event]
    upto: int
    """Every event of the user up to this position is in this page or an earlier one."""
    complete: bool
    """Nothing more was in the log when it was read."""


class MessageStore(Protocol):
    """Keeps conversations for ever, in order. One committer calls `append_batch`, one at a time."""

    @property
    def epoch(self) -> str:
        """The name of this database's life: another after a restored backup."""
        ...

    async def append_batch(self, changes: Sequence[Change], at_ms: int) -> list[Outcome]:
        """Make changes in one transaction, in their order; on return they are on the disk.

        Returns an outcome for each change, in the same order. A change whose author and id are
        known is not made again.

        Raises:
            StoreUnavailable: none of them was made.
        """
        ...

    async def position_of(self, user_id: UserId) -> int:
        """Return where a user's log ends: no event of theirs that was committed lies after it.

        Raises:
            StoreUnavailable: it cannot be read now.
        """
        ...

    async def events_after(self, user_id: UserId, position: int, limit: int) -> EventPage:
        """Return what concerns a user after `position`, at most `limit` events.

        Raises:
            StoreUnavailable: it cannot be read now.
        """
        ...

    async def receipts_after(
        self, user_id: UserId, position: int
    ) -> list[tuple[ConversationId, UserId, int, int]]:
        """Return marks of the user and their peers that moved after `position`, as the user may
        see them: conversation, whose marks, received, read. The newest 1,000 at most, and perhaps
        some that moved shortly before: to be told of a mark again is harmless.

        Raises:
            StoreUnavailable: it cannot be read now.
        """
        ...

    def note_deliveries(self, deliveries: Iterable[tuple[int, int]], at_ms: int) -> None:
        """Remember that messages went out, by position and to how many connections; kept with a
        later transaction.

        For tracing only: what a crash loses here is not missed anywhere else.
        """
        ...

    async def conversations_to_erase(
        self, user_id: UserId, after: ConversationId | None = None
    ) -> list[ConversationId]:
        """Return some conversations in which messages of this user still have their text: the
        first, or the first after one that was returned before.

        Raises:
            StoreUnavailable: it cannot be read now.
        """
        ...

    async def is_available(self) -> bool:
        """Whether the store answers a trivial read."""
        ...


class SharedLogs(Protocol):
    """The logs of people, to which other gateways write as well.

    Positions of one person are 1, 2, 3 … without holes, in the order of the commits.
    """

    async def positions_of(self, user_ids: Sequence[UserId]) -> list[int]:
        """Return where the logs of these users end; see `MessageStore.position_of`."""
        ...

    async def events_after(self, user_id: UserId, position: int, limit: int) -> EventPage:
        """Return what concerns a user after `position`; see `MessageStore`."""
        ...

    async def receipts_after(
        self, user_id: UserId, position: int
    ) -> list[tuple[ConversationId, UserId, int, int]]:
        """Return marks that moved after `position`; see `MessageStore`."""
        ...
