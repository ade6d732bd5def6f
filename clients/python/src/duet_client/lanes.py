"""Which queued message goes next: one at a time in each lane, so that a lane keeps its order. Pure.

A lane is what must stay in order: the messages to one person, or the changes of one conversation.
Sending the second before the first is acknowledged could not keep the promise: the first may be
refused for the moment (too fast, disk full) and the second taken.
"""

import heapq
from collections import deque

import msgspec

__all__ = ["Entry", "Lanes"]


class Entry(msgspec.Struct, frozen=True):
    """A message, edit or deletion on its way; `request` is its frame, the same at each try."""

    id: str
    lane: str
    recipient: str
    text: str
    request: str


class _Lane(msgspec.Struct):
    waiting: deque[Entry]
    sent_at: float | None = None
    """When its first entry was sent on the present connection."""


class Lanes:
    """The order of sending. `now` is seconds on a clock that never goes back."""

    def __init__(self) -> None:
        self._lanes: dict[str, _Lane] = {}
        self._lane_of: dict[str, str] = {}
        self._ready: deque[str] = deque()
        self._postponed: list[tuple[float, str]] = []

    def __len__(self) -> int:
        return len(self._lane_of)

    def __contains__(self, entry_id: str) -> bool:
        return entry_id in self._lane_of

    def add(self, entry: Entry) -> None:
        """Queue an entry at the end of its lane."""
        self._lane_of[entry.id] = entry.lane
        lane = self._lanes.get(entry.lane)
        if lane is None:
            self._lanes[entry.lane] = _Lane(deque([entry]))
            self._ready.append(entry.lane)
        else:
            lane.waiting.append(entry)

    def take(self, now: float) -> Entry | None:
        """Return the next entry to send, which is in flight from then on; None when none may go."""
        while self._postponed and self._postponed[0][0] <= now:
            name = heapq.heappop(self._postponed)[1]
            if name in self._lanes:
                self._ready.append(name)
        while self._ready:
            name = self._ready.popleft()
            lane = self._lanes.get(name)
            if lane is not None and lane.sent_at is None:
                lane.sent_at = now
                return lane.waiting[0]
        return None

    def settle(self, entry_id: str) -> Entry | None:
        """An entry is acknowledged or refused for good: its lane goes on. None when unknown."""
        name = self._lane_of.get(entry_id)
        if name is None:
            return None
        lane = self._lanes[name]
        first = lane.waiting[0]
        if first.id != entry_id:  # an earlier process sent it: its echo can come before its turn
            entry = next(entry for entry in lane.waiting if entry.id == entry_id)
            lane.waiting.remove(entry)
            del self._lane_of[entry_id]
            return entry
        del self._lane_of[entry_id]
        lane.waiting.popleft()
        lane.sent_at = None
        if lane.waiting:
            self._ready.append(name)
        else:
            del self._lanes[name]
        return first

    def postpone(self, entry_id: str, until: float) -> None:
        """The entry was refused for now: it stays first in its lane and goes again then."""
        name = self._lane_of.get(entry_id)
        if name is not None and self._lanes[name].waiting[0].id == entry_id:
            self._lanes[name].sent_at = None
            heapq.heappush(self._postponed, (until, name))

    def lost(self) -> None:
        """The connection is gone: what was in flight goes again on the next one, first."""
        for name, lane in self._lanes.items():
            if lane.sent_at is not None:
                lane.sent_at = None
                self._ready.append(name)

    @property
    def has_ready(self) -> bool:
        """Whether `take` would return something."""
        return bool(self._ready)

    def oldest_in_flight(self) -> float | None:
        """When the entry was sent that has waited longest for its answer."""
        sent = [lane.sent_at for lane in self._lanes.values() if lane.sent_at is not None]
        return min(sent, default=None)

    def next_postponed(self) -> float | None:
        """When the next postponed entry may go."""
        return self._postponed[0][0] if self._postponed else None
