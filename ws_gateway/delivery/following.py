"""Many gateways write: each follows the logs of the people it has, whatever the bus loses.

The bus brings events at once, and now and then not, or twice, or before an earlier one. The
positions of a person's log have no holes, so each of these shows; what is missing is read from the
store.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence

import structlog

from shared.batching import Batcher
from shared.ids import UserId
from ws_gateway.conversations import Look, Notice, Published, Receipt
from ws_gateway.delivery.connection_map import ConnectionMap
from ws_gateway.delivery.person_log import PersonLog
from ws_gateway.metrics import Metrics
from ws_gateway.ports import Receiver, SharedLogs, StoreUnavailable, UserBus

__all__ = ["Following"]

_PAGE_EVENTS = 200
_USERS_A_QUERY = 2000
_MAX_READS = 2
"""How many logs are read at once: healing must not take the store from those who write."""
_GAP_S = 0.05
"""How long a gap may be just disorder."""
_RETRY_S = 1.0
_CHECK_WHILE_AWAY_S = 1.0

_log = structlog.get_logger(__name__)

CallLater = Callable[[float, Callable[[], None]], asyncio.TimerHandle]


class _Followed(PersonLog):
    """A log, who follows it, and what is being done about it."""

    __slots__ = ("followers", "healing", "heard_up_to", "look_again", "opening", "timer")

    def __init__(self) -> None:
        super().__init__()
        self.followers = 0
        self.opening: asyncio.Task[None] | None = None
        self.healing: asyncio.Task[None] | None = None
        self.look_again = False
        self.timer: asyncio.TimerHandle | None = None
        """Waits for a gap to close or, while nobody follows, for somebody who does."""
        self.heard_up_to: int | None = None
        """Where the log was when the bus went away; receipts since then were not heard."""


class Following:
    """The `LiveLog` of a gateway among others. For one event loop; `run` should be running.

    `deliver` is given each event of a person's log in order, once. `settled` waits until what this
    gateway is committing is published: an event that is read from the store before could be one of
    its own, of which the connection that caused it gets an ack instead.
    """

    def __init__(
        self,
        logs: SharedLogs,
        bus: UserBus,
        connections: ConnectionMap,
        *,
        deliver: Receiver,
        settled: Callable[[], Awaitable[None]],
        metrics: Metrics,
        check_interval_s: float = 30.0,
        linger_s: float = 15.0,
        call_later: CallLater | None = None,
    ) -> None:
        self._deliver = deliver
        self._connections = connections
        self._store = logs
        self._bus = bus
        self._settled = settled
        self._metrics = metrics
        self._check_interval_s = check_interval_s
        self._linger_s = linger_s
        self._call_later: CallLater = call_later or asyncio.get_running_loop().call_later
        self._logs: dict[UserId, _Followed] = {}
        self._positions: Batcher[UserId, int] = Batcher(logs.positions_of, max_batch=_USERS_A_QUERY)
        self._reads = asyncio.Semaphore(_MAX_READS)
        self._bus_changed = asyncio.Event()
        self._looks_often = False
        bus.subscribe(self.receive)
        bus.watch(self._bus_has_changed)

    async def follow(self, user_id: UserId) -> None:
        """Follow a user's log for one more connection; see `LiveLog`."""
        log = self._logs.get(user_id)
        if log is None:
            log = self._logs[user_id] = _Followed()
        elif log.timer is not None and not log.followers:
            log.timer.cancel()
            log.timer = None
            self._mind_gap(user_id, log)
        log.followers += 1
        if log.is_known:
            return
        if log.opening is None:
            log.opening = asyncio.create_task(self._open(user_id, log))
        try:
            await asyncio.shield(log.opening)
        except BaseException:
            if self._logs.get(user_id) is log:
                self.unfollow(user_id)
            raise

    def unfollow(self, user_id: UserId) -> None:
        """One connection less; see `LiveLog`. The last one may be back in a moment."""
        log = self._logs[user_id]
        log.followers -= 1
        if not log.followers:
            if log.timer is not None:
                log.timer.cancel()
            log.timer = self._call_later(
                self._linger_s if log.is_known else 0, lambda: self._drop(user_id, log)
            )

    def position_of(self, user_id: UserId) -> int:
        """Return up to where a followed log was delivered."""
        return self._logs[user_id].delivered

    def receive(self, notices: Sequence[Notice], viewer: UserId | None = None) -> None:
        """Take notices from the bus."""
        passed: list[Notice] = []
        for notice in notices:
            if isinstance(notice, Look):
                self._heal(notice.user)
            elif not isinstance(notice, Published) or self._is_next(notice, viewer):
                passed.append(notice)
            else:
                self._pass_on(passed, viewer)
                passed = []
                self._sort(notice, viewer)
        self._pass_on(passed, viewer)

    async def run(self) -> None:
        """Look for what the bus lost now and then, and often while it is away, for ever."""
        while True:
            seldom = self._bus.is_connected and not self._looks_often
            interval_s = self._check_interval_s if seldom else _CHECK_WHILE_AWAY_S
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(interval_s):
                    await self._bus_changed.wait()
            self._bus_changed.clear()
            try:
                await self.check()
                if self._bus.is_connected:
                    await self._tell_unheard_receipts()
            except StoreUnavailable as error:
                _log.warning("what the bus may have lost was not looked for", reason=str(error))

    def look_often(self, often: bool) -> None:
        """Whether another gateway may not be heard: then look as if the bus were away."""
        if often != self._looks_often:
            self._looks_often = often
            self._bus_changed.set()

    async def check(self) -> None:
        """Compare every followed log with the store, and begin to read what is missing.

        Raises:
            StoreUnavailable: not now.
        """
        users = [user_id for user_id, log in self._logs.items() if log.is_known]
        for start in range(0, len(users), _USERS_A_QUERY):
            some = users[start : start + _USERS_A_QUERY]
            ends = dict(zip(some, await self._store.positions_of(some), strict=True))
            if self._lagging(ends):
                await self._settled()  # most are only just committed here
                for user_id in self._lagging(ends):
                    self._heal(user_id)

    def close(self) -> None:
        """Stop what is being done."""
        for user_id, log in list(self._logs.items()):
            self._drop(user_id, log)

    def _is_next(self, published: Published, viewer: UserId | None) -> bool:
        """Whether an event may be delivered as it is; if so, take it for delivered."""
        event = published.event
        message = event.message
        users = (message.sender, message.recipient) if viewer is None else (viewer,)
        logs = [(log, event.position_for(u)) for u in users if (log := self._logs.get(u))]
        if not all(log.is_next(position) for log, position in logs):
            return False
        for log, position in logs:
            log.delivered = position
        return True

    def _sort(self, published: Published, viewer: UserId | None) -> None:
        message = published.event.message
        for user_id in (message.sender, message.recipient) if viewer is None else (viewer,):
            log = self._logs.get(user_id)
            if log is not None:
                ready = log.take(published.event.position_for(user_id), published)
                self._pass_on(ready, user_id)
                self._mind_gap(user_id, log)

    def _pass_on(self, notices: Sequence[Notice], viewer: UserId | None) -> None:
        if notices:
            self._deliver(notices, viewer)

    def _mind_gap(self, user_id: UserId, log: _Followed) -> None:
        behind = log.is_behind or log.look_again
        if behind and log.timer is None and log.healing is None:
            log.timer = self._call_later(_GAP_S, lambda: self._gap_is_due(user_id, log))

    def _gap_is_due(self, user_id: UserId, log: _Followed) -> None:
        log.timer = None
        if log.is_behind or log.look_again:
            self._heal(user_id)

    def _heal(self, user_id: UserId) -> None:
        log = self._logs.get(user_id)
        if log is None or not log.is_known:
            return
        log.look_again = log.healing is not None
        if log.healing is None:
            log.healing = asyncio.create_task(self._read(user_id, log))

    async def _open(self, user_id: UserId, log: _Followed) -> None:
        """Find out where the log ends. What arrives meanwhile is kept."""
        try:
            await self._bus.listen(user_id)
            position = await self._positions.submit(user_id)
        finally:
            log.opening = None
        if not self._bus.is_connected:
            log.heard_up_to = position
        self._pass_on(log.begin(position), user_id)
        self._mind_gap(user_id, log)

    async def _read(self, user_id: UserId, log: _Followed) -> None:
        """Deliver what the store has and nobody brought."""
        try:
            async with self._reads:
                while True:
                    log.look_again, seen = False, log.seen
                    complete = await self._read_page(user_id, log)
                    if complete and log.delivered < seen:
                        log.give_up(seen)
                        _log.error("an event was told of that is not in the store", user=user_id)
                    if complete and not (log.look_again or log.is_behind):
                        break
        except StoreUnavailable as error:
            _log.warning("a log could not be read; once more soon", reason=str(error))
            log.look_again = True
            if log.timer is None:
                log.timer = self._call_later(_RETRY_S, lambda: self._gap_is_due(user_id, log))
        finally:
            log.healing = None

    async def _read_page(self, user_id: UserId, log: _Followed) -> bool:
        page = await self._store.events_after(user_id, log.delivered, _PAGE_EVENTS)
        if any(event.message.sender in self._connections for event in page.events):
            await self._settled()
        read = {event.position_for(user_id): Published(event, None) for event in page.events}
        ready = log.fill(read.items(), page.upto)
        self._metrics.healed.inc(
            sum(read.get(each.event.position_for(user_id)) is each for each in ready)
        )
        self._pass_on(ready, user_id)
        return page.complete

    def _lagging(self, ends: dict[UserId, int]) -> list[UserId]:
        return [
            user_id
            for user_id, end in ends.items()
            if (log := self._logs.get(user_id)) is not None and log.delivered < end
        ]

    def _bus_has_changed(self) -> None:
        self._bus_changed.set()
        if not self._bus.is_connected:
            for log in self._logs.values():
                if log.is_known and log.heard_up_to is None:
                    log.heard_up_to = log.delivered

    async def _tell_unheard_receipts(self) -> None:
        for user_id, log in list(self._logs.items()):
            after, log.heard_up_to = log.heard_up_to, None
            if after is None or not log.followers:
                continue
            try:
                unheard = await self._store.receipts_after(user_id, after)
            except StoreUnavailable:
                log.heard_up_to = after
                raise
            self._pass_on(
                [
                    Receipt(chat, who, user_id, received, read, read > 0, None, who == user_id)
                    for chat, who, received, read in unheard
                ],
                user_id,
            )

    def _drop(self, user_id: UserId, log: _Followed) -> None:
        if self._logs.get(user_id) is log:
            del self._logs[user_id]
            self._bus.ignore(user_id)
        for task in (log.opening, log.healing):
            if task is not None:
                task.cancel()
        if log.timer is not None:
            log.timer.cancel()
