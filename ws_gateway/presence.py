"""Who is online, and who is typing: told to those who share a conversation.

Best effort by design: frames that are lost mend themselves, and nothing here may slow a message.
Each gateway knows its own people, and tells of them; who is on other gateways says the attendance.
"""

import asyncio
import functools
import time
from collections.abc import Awaitable, Callable, Collection, Sequence

import msgspec
import structlog

from shared.ids import ConnectionId, UserId
from ws_gateway.conversations import (
    Evicted,
    Notice,
    PeersChanged,
    PresenceNotice,
    Published,
    TypingNotice,
)
from ws_gateway.delivery.connection_map import ConnectionMap, LiveConnection
from ws_gateway.delivery.rendering import Rendering
from ws_gateway.ports import Attendance, MessageBus, PeopleStore, StoreUnavailable

__all__ = ["Presence"]

_MAX_PEERS = 1000
"""Presence goes to the people of a person's latest conversations, this many at most."""
_MIN_TYPING_INTERVAL_S = 1.0
_RETRY_S = 5.0

_Job = Callable[[], Awaitable[None]]

_log = structlog.get_logger(__name__)


class _Person(msgspec.Struct):
    """Somebody who is online: whom they talk with (no block either way), and if they show it."""

    peers: set[UserId]
    visible: bool

    def audience(self) -> set[UserId]:
        """Who may see that this person is online."""
        return self.peers if self.visible else set()


class Presence:
    """Follows people coming and going, and says so; going only after a debounce.

    For one event loop. `run` must be running: looking up whom to tell takes time, and happens
    there, for each person one after the other, so that what is told of them keeps its order.
    """

    def __init__(
        self,
        connections: ConnectionMap,
        people: PeopleStore,
        attendance: Attendance,
        bus: MessageBus,
        rendering: Rendering,
        *,
        offline_after_s: float = 15.0,
        workers: int = 1,
        now: Callable[[], float] = time.time,
    ) -> None:
        """`workers` is how many people are looked up at once."""
        self._connections = connections
        self._people = people
        self._attendance = attendance
        self._bus = bus
        self._rendering = rendering
        self._offline_after_s = offline_after_s
        self._now = now
        self._online: dict[UserId, _Person] = {}
        self._leaving: dict[UserId, asyncio.TimerHandle] = {}
        self._typed_at: dict[UserId, dict[UserId, tuple[float, bool]]] = {}
        """When the one last told the other that they type, and whether they still do."""
        self._jobs: list[asyncio.Queue[_Job]] = [asyncio.Queue() for _ in range(workers)]
        self.attendance_is_wrong = False
        """Whether the attendance missed something, and must be restored."""

    async def online(self, user_ids: Collection[UserId], viewer: UserId) -> set[UserId]:
        """Return those of the users who are here, on any gateway, as `viewer` may see it, who has
        a conversation with each of them."""
        here = {user_id for user_id in user_ids if self._shows(user_id, viewer)}
        others = [user_id for user_id in user_ids if user_id not in here]
        if others:
            try:
                here |= await self._attendance.elsewhere(others, viewer)
            except StoreUnavailable as error:
                _log.warning("who is on other gateways is not known", reason=str(error))
        return here

    def joined(self, user_id: UserId, connection_id: ConnectionId) -> None:
        """A user has a new verified connection here: tell the peers."""
        leaving = self._leaving.pop(user_id, None)
        if leaving is not None:
            leaving.cancel()
        self._do(user_id, functools.partial(self._arrive, user_id, connection_id))

    def greet(self, connection: LiveConnection) -> None:
        """Tell a connection, of a user who has joined, which of the peers are here."""
        self._do(connection.identity.user_id, functools.partial(self._greet, connection))

    def left(self, user_id: UserId, connection_id: ConnectionId, *, was_last: bool) -> None:
        """A connection is gone. After a user's last: unless they return in time, tell the peers."""
        self._do(user_id, functools.partial(self._leave, connection_id, was_last))
        if was_last:
            last_seen_ms = int(self._now() * 1000)
            self._leaving[user_id] = asyncio.get_running_loop().call_later(
                self._offline_after_s, self._stayed_away, user_id, last_seen_ms
            )

    def attend_again(self, user_id: UserId, connection_id: ConnectionId) -> None:
        """A connection came or went while the attendance was restored, which may have undone it."""
        self._do(user_id, functools.partial(self._attend, user_id, connection_id))

    def departed(self, user_id: UserId, last_seen_ms: int) -> None:
        """A user was on a gateway that died, and is on none now: tell the peers."""
        self._do(user_id, functools.partial(self._tell_departed, user_id, last_seen_ms))

    def tell_again(self) -> None:
        """The peers of everybody here were told that they are gone."""
        for user_id, person in self._online.items():
            self._tell(user_id, person.audience(), online=True)

    def reconsider(self, *user_ids: UserId) -> None:
        """What these users share, or with whom, has changed: tell who may see more, or less."""
        self._reconsider(*user_ids)
        self._bus.publish([PeersChanged(user_id) for user_id in user_ids])

    def typing(self, user_id: UserId, to: UserId, active: bool) -> None:
        """Tell somebody whom the user talks with: that they type at most once a second, and that
        they stopped once after each time."""
        person = self._online.get(user_id)
        if person is None or to not in person.peers:
            return
        now, typed = self._now(), self._typed_at.get(user_id, {})
        typed_at, was_active = typed.get(to, (float("-inf"), False))
        if active:
            if 0 <= now - typed_at < _MIN_TYPING_INTERVAL_S:
                return
            typed_at = now
        elif not was_active:
            return
        typed[to] = (typed_at, active)
        self._typed_at[user_id] = typed
        self._bus.publish([TypingNotice(user_id, to, active)])

    def observe(self, notices: Sequence[Notice], viewer: UserId | None = None) -> None:
        """See what is published: a first message makes two people peers."""
        for notice in notices:
            if isinstance(notice, Published):
                if notice.event.message.seq == 1:
                    self._reconsider(notice.event.message.sender, notice.event.message.recipient)
            elif viewer is not None and isinstance(notice, PeersChanged):
                self._reconsider(notice.user)

    async def run(self) -> None:
        """Do what was asked for, for ever."""
        async with asyncio.TaskGroup() as group:  # one that fails ends the others
            for jobs in self._jobs:
                group.create_task(self._work_off(jobs))

    async def _work_off(self, jobs: "asyncio.Queue[_Job]") -> None:
        failing = False  # said once: a database that is away meets everybody who comes
        while True:
            job = await jobs.get()
            try:
                await job()
                failing = False
            except StoreUnavailable as error:
                if not failing:
                    _log.warning("presence was not told", reason=str(error))
                failing = True

    def _do(self, user_id: UserId, job: _Job) -> None:
        self._jobs[hash(user_id) % len(self._jobs)].put_nowait(job)

    def _shows(self, user_id: UserId, viewer: UserId) -> bool:
        person = self._online.get(user_id)
        return person is not None and person.visible and viewer in person.peers

    def _reconsider(self, *user_ids: UserId) -> None:
        for user_id in user_ids:
            if user_id in self._connections or user_id in self._online:
                self._do(user_id, functools.partial(self._update, user_id))

    def _stayed_away(self, user_id: UserId, last_seen_ms: int) -> None:
        del self._leaving[user_id]
        self._do(user_id, functools.partial(self._depart, user_id, last_seen_ms))

    async def _arrive(self, user_id: UserId, connection_id: ConnectionId) -> None:
        try:
            arrival = await self._attendance.arrive(user_id, connection_id)
        except StoreUnavailable:
            self.attendance_is_wrong = True
            raise
        if arrival.evicted:
            self._bus.publish([Evicted(user_id, evicted) for evicted in arrival.evicted])
        await self._update(user_id, is_new=arrival.is_first)

    async def _leave(self, connection_id: ConnectionId, may_return: bool) -> None:
        try:
            await self._attendance.leave(connection_id, may_return=may_return)
        except StoreUnavailable:
            self.attendance_is_wrong = True
            raise

    async def _attend(self, user_id: UserId, connection_id: ConnectionId) -> None:
        held = self._connections.of_user(user_id)
        if any(connection.connection_id == connection_id for connection in held):
            await self._arrive(user_id, connection_id)
        else:
            await self._leave(connection_id, may_return=False)

    async def _greet(self, connection: LiveConnection) -> None:
        user_id = connection.identity.user_id
        person = self._online.get(user_id)
        for peer_id in await self.online(person.peers, user_id) if person is not None else ():
            notice = PresenceNotice(peer_id, (user_id,), online=True, last_seen_ms=None)
            connection.deliver_ephemeral(self._rendering.presence(notice))

    async def _update(self, user_id: UserId, *, is_new: bool = True) -> None:
        """Look up whom a user talks with. Who sees them now and did not is told, unless they were
        on another gateway before, which has told."""
        person = await self._person(user_id)
        if user_id not in self._connections and user_id not in self._leaving:
            return
        before = self._online.get(user_id)
        self._online[user_id] = person
        if before is not None:
            self._tell(user_id, person.audience() - before.audience(), online=True)
            self._tell(user_id, before.audience() - person.audience(), online=False)
        elif is_new:
            self._tell(user_id, person.audience(), online=True)

    async def _depart(self, user_id: UserId, last_seen_ms: int) -> None:
        if user_id in self._connections or user_id in self._leaving:
            return
        try:
            is_nowhere = await self._attendance.depart(user_id)
        except StoreUnavailable:
            self._leaving[user_id] = asyncio.get_running_loop().call_later(
                _RETRY_S, self._stayed_away, user_id, last_seen_ms
            )
            raise
        if user_id in self._connections:
            return
        person = self._online.pop(user_id, None)
        self._typed_at.pop(user_id, None)
        if is_nowhere:
            if person is not None:
                self._tell(user_id, person.audience(), online=False, last_seen_ms=last_seen_ms)
            await self._people.set_last_seen(user_id, last_seen_ms)

    async def _tell_departed(self, user_id: UserId, last_seen_ms: int) -> None:
        if user_id in self._connections or user_id in self._leaving:
            return
        person = await self._person(user_id)
        if await self._attendance.elsewhere([user_id], user_id):
            return  # they have just come back
        self._tell(user_id, person.audience(), online=False, last_seen_ms=last_seen_ms)
        await self._people.set_last_seen(user_id, last_seen_ms)

    async def _person(self, user_id: UserId) -> _Person:
        circle = await self._people.circle(user_id, _MAX_PEERS)
        return _Person(set(circle.peers), circle.preferences.shares_presence)

    def _tell(
        self,
        user_id: UserId,
        audience: set[UserId],
        *,
        online: bool,
        last_seen_ms: int | None = None,
    ) -> None:
        if audience:
            self._bus.publish([PresenceNotice(user_id, tuple(audience), online, last_seen_ms)])
