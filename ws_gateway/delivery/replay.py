"""Resuming: everything after a client's cursor, then live, without a gap or a double."""

from collections.abc import Awaitable, Callable, Iterable

from shared.ids import UserId
from ws_gateway.conversations import Event, EventKind, Receipt
from ws_gateway.delivery.rendering import Rendering
from ws_gateway.ports import MessageStore

__all__ = ["Replay"]

_PAGE_EVENTS = 200
_MAX_HELD_BYTES = 128 * 1024
_MAX_UNDRAINED_BYTES = 64 * 1024


class Replay:
    """Brings one connection from a cursor to the present.

    The connection joins the ConnectionMap first and gives what arrives live to `hold`. Pages of the
    log follow the cursor; what was held while the last page was read follows the pages. When more
    arrives than may be held, it is let go and read from the log instead: memory stays flat however
    far behind the client is, and nothing depends on what this process remembers.
    """

    def __init__(self, store: MessageStore, rendering: Rendering, user_id: UserId) -> None:
        self._store = store
        self._rendering = rendering
        self._user_id = user_id
        self._held: list[tuple[int | None, bytes]] = []
        self._held_bytes = 0
        self._overflowed = False

    def hold(self, wire: bytes, position: int | None) -> None:
        """Keep a live frame until the log is replayed; `position` is its event's, if it is one."""
        if self._overflowed:
            return
        self._held.append((position, wire))
        self._held_bytes += len(wire)
        if self._held_bytes > _MAX_HELD_BYTES:
            self._overflowed = True
            self._held.clear()

    async def run(
        self,
        after: int,
        write: Callable[[bytes], None],
        drained: Callable[[], Awaitable[None]],
        now_ms: Callable[[], int],
    ) -> int:
        """Replay what comes after position `after`. Returns the position the client stands at.

        `drained` waits until the client has taken in what was written: a slow reader is paced.
        When this returns, write live frames directly, before anything else is awaited.

        Raises:
            StoreUnavailable: the log cannot be read; close, the client resumes from its cursor.
        """
        started_after = after
        while True:
            self._held.clear()
            self._held_bytes, self._overflowed = 0, False
            page = await self._store.events_after(self._user_id, after, _PAGE_EVENTS)
            await _write_paced(map(self._render, page.events), write, drained)
            self._store.note_deliveries(
                [
                    (event.message.position, 1)
                    for event in page.events
                    if event.kind is EventKind.SENT and event.message.recipient == self._user_id
                ],
                now_ms(),
            )
            after = page.upto
            if not page.complete:
                continue
            receipts = await self._receipts_after(started_after)
            await _write_paced(receipts, write, drained)
            if self._overflowed:
                continue
            for position, wire in self._held:
                if position is None or position > after:
                    write(wire)
                    after = position or after
            return after

    def _render(self, event: Event) -> bytes:
        return self._rendering.event(event, self._user_id)

    async def _receipts_after(self, after: int) -> list[bytes]:
        return [
            self._rendering.receipt(
                Receipt(conversation, user, user, received, read, read > 0, None), self._user_id
            )
            for conversation, user, received, read in await self._store.receipts_after(
                self._user_id, after
            )
        ]


async def _write_paced(
    wires: Iterable[bytes],
    write: Callable[[bytes], None],
    drained: Callable[[], Awaitable[None]],
) -> None:
    """Write frames as fast as they are taken in, however long each of them is."""
    undrained = 0
    for wire in wires:
        write(wire)
        undrained += len(wire)
        if undrained > _MAX_UNDRAINED_BYTES:
            await drained()
            undrained = 0
    await drained()
