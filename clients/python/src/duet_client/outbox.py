"""Messages on their way: on disk before `send` returns, sent again until answered, in order."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from duet_client.account import Account
from duet_client.backoff import Backoff
from duet_client.errors import (
    Conflict,
    DuetError,
    OutboxFull,
    RecipientNotFound,
    RequestRefused,
    StateError,
    TryAgainLater,
    UserNotFound,
    refusal,
)
from duet_client.events import Event, MessageSent, SendFailed
from duet_client.frames import Ack, NewMessage, encode
from duet_client.lanes import Entry, Lanes
from duet_client.message_ids import new_id
from duet_client.outgoing import Outgoing
from duet_client.state import Queued, State

__all__ = ["Outbox"]

_MAX_QUEUED = 10_000
_SENT_REMEMBERED = 10_000

_log = logging.getLogger("duet_client")


class Outbox:
    """For one event loop. `changed` is called when there may be something to send.

    The id of a message is made once and stored with it before anything is sent. After any failure
    (connection lost, process killed, ack lost) the same id goes again, and the gateway answers with
    the original ack. One message of a conversation is under way at a time, so order is kept even
    where one is refused for the moment.
    """

    def __init__(
        self,
        state: State,
        account: Account,
        emit: Callable[[Event], None],
        changed: Callable[[], None],
    ) -> None:
        self.lanes = Lanes()
        self.names: dict[str, str] = {}
        """User ids by name in lower case."""
        self._state = state
        self._account = account
        self._emit = emit
        self._changed = changed
        self._rows: dict[str, Queued] = {}
        self._outgoing: dict[str, Outgoing] = {}
        self._unresolved: dict[str, list[Queued]] = {}
        self._sent: dict[str, None] = {}
        self._acknowledged: list[str] = []
        self._tasks: set[asyncio.Task[Any]] = set()
        self._storing: asyncio.Task[None] | None = None
        self._ended: BaseException | None = None

    def restore(self, queued: list[Queued], sent: list[str], names: dict[str, str]) -> None:
        """Take over what an earlier process left."""
        self.names = names
        self._sent = dict.fromkeys(sent)
        for row in queued:
            if row.error_code is None:
                self._accept(row)
            else:
                self._emit(_failed(row, refusal(row.error_code, row.error_message or "")))

    @property
    def queued(self) -> list[Queued]:
        """What is not acknowledged yet, the oldest first."""
        return list(self._rows.values())

    async def submit(
        self,
        kind: str,
        recipient: str,
        user_id: str | None,
        fields: dict[str, str | int],
        *,
        entry_id: str | None = None,
    ) -> Outgoing:
        """Store a change and have it sent. Cancelled, it may have been queued all the same.

        What is queued under `entry_id` already is not queued again.

        Raises:
            Conflict: something else is queued under `entry_id`.
            OutboxFull: nothing was queued.
            StateError: the disk; nothing was queued.
            ClientClosed: nothing was queued.
        """
        if len(self._rows) >= _MAX_QUEUED:
            raise OutboxFull(f"{_MAX_QUEUED} messages wait for their acknowledgement")
        row = Queued(entry_id or new_id(), kind, recipient, user_id, fields)
        known = self._rows.get(row.id)
        if known is not None:
            if (known.kind, known.recipient, known.fields) != (kind, recipient, fields):
                raise Conflict("conflict", f"the id {row.id} names something else already")
            return self._outgoing.setdefault(row.id, Outgoing(row.id, self._told))
        self._rows[row.id] = row
        return await asyncio.shield(self._start(self._submit(row)))

    def acknowledged(self, ack: Ack) -> None:
        """An entry is on the gateway's disk; said twice, it is one."""
        entry = self.lanes.settle(ack.id)
        if entry is None:
            return
        row = self._rows.pop(ack.id)
        self._remember_sent(ack.id)
        self._acknowledged.append(ack.id)
        if self._storing is None or self._storing.done():
            self._storing = self._start(self._store())
        if row.kind == "send":
            self._emit(
                MessageSent(
                    ack.id, entry.recipient, entry.text, ack.conversation, ack.seq, ack.sent_at
                )
            )
        outgoing = self._outgoing.pop(ack.id, None)
        if outgoing is not None:
            outgoing.settle(ack)
        self._changed()

    def refused(self, entry_id: str, error: RequestRefused) -> None:
        """An entry was refused for good: tell who waits, or else by an event."""
        if self.lanes.settle(entry_id) is not None:
            self._fail(self._rows[entry_id], error)
            self._changed()

    def is_own(self, message: NewMessage) -> bool:
        """Whether this client sent the message; its echo is as good as an ack."""
        if message.id is None:
            return False
        if message.id in self.lanes:
            self.acknowledged(
                Ack(message.id, message.conversation, message.seq, message.sent_at, duplicate=True)
            )
            return True
        return message.id in self._sent

    def end(self, error: BaseException) -> None:
        """There will be no acks any more."""
        self._ended = error
        for outgoing in self._outgoing.values():
            outgoing.settle(error)
        self._outgoing.clear()

    async def learn(self, name: str) -> str:
        """Return whose name this is.

        Raises:
            UserNotFound, and what `Account.user` raises.
        """
        known = self.names.get(name.lower())
        if known is None:
            known = (await self._account.user(name)).id
            self.names[name.lower()] = known
            await self._state.named(name.lower(), known)
        return known

    async def close(self) -> None:
        """Store what is acknowledged, and stop looking up names."""
        if self._storing is not None:
            with contextlib.suppress(StateError):
                await self._storing
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _submit(self, row: Queued) -> Outgoing:
        try:
            await self._state.enqueue(row)
        except BaseException:
            del self._rows[row.id]
            raise
        outgoing = self._outgoing.setdefault(row.id, Outgoing(row.id, self._told))
        self._accept(row)
        self._changed()
        if self._ended is not None:
            outgoing.settle(self._ended)
        return outgoing

    def _accept(self, row: Queued) -> None:
        """Give a stored row its place: in a lane, or behind those whose recipient is unknown."""
        self._rows[row.id] = row
        name = row.recipient.lower()
        if name in self._unresolved:
            self._unresolved[name].append(row)
        elif row.user_id is None and name not in self.names:
            self._unresolved[name] = [row]
            self._start(self._resolve(name))
        else:
            self._enter_lane(row, row.user_id or self.names[name])

    def _enter_lane(self, row: Queued, user_id: str) -> None:
        fields = {"id": row.id, **row.fields}
        if row.kind == "send":
            fields["to"] = user_id
        text = str(row.fields.get("text", ""))
        self.lanes.add(Entry(row.id, user_id, user_id, text, encode(row.kind, fields)))

    async def _resolve(self, name: str) -> None:
        """Find out whose name it is, however long the profile service is away."""
        backoff = Backoff()
        while True:
            try:
                user_id = await self.learn(name)
            except UserNotFound:
                error = RecipientNotFound("recipient_not_found", f"nobody is called {name}")
                for row in self._unresolved.pop(name):
                    self._fail(row, error)
                return
            except StateError as error:
                _log.error("%s", error)
                await asyncio.sleep(backoff.next_wait_s())
            except TryAgainLater as error:
                await asyncio.sleep(backoff.next_wait_s(error.retry_after_s))
            except DuetError:
                await asyncio.sleep(backoff.next_wait_s())
            else:
                for row in self._unresolved.pop(name):
                    self._enter_lane(row, user_id)
                self._changed()
                return

    def _fail(self, row: Queued, error: RequestRefused) -> None:
        del self._rows[row.id]
        outgoing = self._outgoing.pop(row.id, None)
        if outgoing is None or not outgoing.settle(error):
            self._start(self._state.refused(row.id, error.code, error.message))
            self._emit(_failed(row, error))

    def _told(self, entry_id: str) -> None:
        """Somebody has seen the refusal: it need not be kept, unless the message goes again."""
        if entry_id not in self._rows:
            self._start(self._state.withdrawn(entry_id))

    async def _store(self) -> None:
        while self._acknowledged:
            ids, self._acknowledged = self._acknowledged, []
            try:
                await self._state.acknowledged(ids)
            except StateError as error:  # they will be sent again, and answered with their acks
                _log.error("%s", error)

    def _remember_sent(self, entry_id: str) -> None:
        self._sent[entry_id] = None
        if len(self._sent) > _SENT_REMEMBERED:
            del self._sent[next(iter(self._sent))]

    def _start(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()


def _failed(row: Queued, error: RequestRefused) -> SendFailed:
    return SendFailed(row.id, row.recipient, str(row.fields.get("text", "")), error)
