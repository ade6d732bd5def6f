"""Who is online, and who is typing: told to those who share a conversation, never stored.

Best effort by design: frames that are lost mend themselves, and nothing here may slow a message.
"""

import asyncio
import functools
import time
from collections.abc import Awaitable, Callable, Sequence

import msgspec
import structlog

from shared.ids import UserId
from ws_gateway.conversations import Notice, PresenceNotice, Published, TypingNotice
from ws_gateway.delivery.connection_map import ConnectionMap, LiveConnection
from ws_gateway.delivery.rendering import Rendering
from ws_gateway.ports import MessageBus, PeopleStore, StoreUnavailable

__all__ = ["Presence"]

_MAX_PEERS = 1000
"""Presence goes to the people of a person's latest conversations, this many at most."""
_MIN_TYPING_INTERVAL_S = 1.0

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

    For one event loop. `run` must be running: looking up whom to tell takes time, and happens there
    one after the other, so that what is told keeps its order.
    """

    def __init__(
        self,
        connections: ConnectionMap,
        people: PeopleStore,
        bus: MessageBus,
        rendering: Rendering,
        *,
        offline_after_s: float = 15.0,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._connections = connections
        self._people = people
        self._bus = bus
        self._rendering = rendering
        self._offline_after_s = offline_after_s
        self._now = now
        self._online: dict[UserId, _Person] = {}
        self._leaving: dict[UserId, asyncio.TimerHandle] = {}
        self._typed_at: dict[tuple[UserId, UserId], tuple[float, bool]] = {}
        """When the one last told the other that they type, and whether they still do."""
        self._jobs: asyncio.Queue[Callable[[], Awaitable[None]]] = asyncio.Queue()

    def is_online(self, user_id: UserId, viewer: UserId) -> bool:
        """Whether `viewer` may see that the user is here."""
        person = self._online.get(user_id)
        return person is not None and person.visible and viewer in person.peers

    def joined(self, user_id: UserId) -> None:
        """A user has a verified connection here: tell the peers."""
        leaving = self._leaving.pop(user_id, None)
        if leaving is not None:
            leaving.cancel()
        self._jobs.put_nowait(functools.partial(self._update, user_id))

    def greet(self, connection: LiveConnection) -> None:
        """Tell a connection, of a user who has joined, which of the peers are here."""
        self._jobs.put_nowait(functools.partial(self._greet, connection))

    def left(self, user_id: UserId) -> None:
        """A user's last connection is gone: unless they return in time, tell the peers."""
        last_seen_ms = int(self._now() * 1000)
        self._leaving[user_id] = asyncio.get_running_loop().call_later(
            self._offline_after_s, self._stayed_away, user_id, last_seen_ms
        )

    def reconsider(self, *user_ids: UserId) -> None:
        """What these users share, or with whom, has changed: tell who may see more, or less."""
        for user_id in user_ids:
            if user_id in self._connections or user_id in self._online:
                self._jobs.put_nowait(functools.partial(self._update, user_id))

    def typing(self, user_id: UserId, to: UserId, active: bool) -> None:
        """Tell somebody whom the user talks with: that they type at most once a second, and that
        they stopped once after each time."""
        person = self._online.get(user_id)
        if person is None or to not in person.peers:
            return
        now, pair = self._now(), (user_id, to)
        typed_at, was_active = self._typed_at.get(pair, (float("-inf"), False))
        if active:
            if 0 <= now - typed_at < _MIN_TYPING_INTERVAL_S:
                return
            typed_at = now
        elif not was_active:
            return
        self._typed_at[pair] = (typed_at, active)
        self._bus.publish([TypingNotice(user_id, to, active)])

    def observe(self, notices: Sequence[Notice], viewer: UserId | None = None) -> None:  # noqa: ARG002
        """See what is published: a first message makes two people peers."""
        for notice in notices:
            if isinstance(notice, Published) and notice.event.message.seq == 1:
                self.reconsider(notice.event.message.sender, notice.event.message.recipient)

    async def run(self) -> None:
        """Do what was asked for, one after the other, for ever."""
        while True:
            job = await self._jobs.get()
            try:
                await job()
            except StoreUnavailable as error:
                _log.warning("presence was not told", reason=str(error))

    def _stayed_away(self, user_id: UserId, last_seen_ms: int) -> None:
        del self._leaving[user_id]
        self._jobs.put_nowait(functools.partial(self._depart, user_id, last_seen_ms))

    async def _greet(self, connection: LiveConnection) -> None:
        user_id = connection.identity.user_id
        for peer_id in self._online[user_id].peers if user_id in self._online else ():
            if self.is_online(peer_id, user_id):
                notice = PresenceNotice(peer_id, (user_id,), online=True, last_seen_ms=None)
                connection.deliver_ephemeral(self._rendering.presence(notice))

    async def _update(self, user_id: UserId) -> None:
        peers = set(await self._people.peers(user_id, _MAX_PEERS))
        preferences = await self._people.preferences(user_id)
        if user_id not in self._connections and user_id not in self._leaving:
            return
        before = self._online.get(user_id)
        audience_before = before.audience() if before is not None else set()
        person = self._online[user_id] = _Person(peers, preferences.shares_presence)
        self._tell(user_id, person.audience() - audience_before, online=True)
        self._tell(user_id, audience_before - person.audience(), online=False)

    async def _depart(self, user_id: UserId, last_seen_ms: int) -> None:
        if user_id in self._connections or user_id in self._leaving:
            return
        person = self._online.pop(user_id, None)
        for pair in [pair for pair in self._typed_at if pair[0] == user_id]:
            del self._typed_at[pair]
        if person is not None:
            self._tell(user_id, person.audience(), online=False, last_seen_ms=last_seen_ms)
        await self._people.set_last_seen(user_id, last_seen_ms)

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
