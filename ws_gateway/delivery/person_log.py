"""One person's log as their connections here are given it: in order, each event once. Pure."""

from collections.abc import Iterable

from ws_gateway.conversations import Published

__all__ = ["PersonLog"]

_MAX_EARLY = 4096


class PersonLog:
    """Sorts what arrives, in whatever order and however often, by its position in the log.

    Every method returns what is to be delivered now, in order. Before `begin` nothing is.
    """

    __slots__ = ("_early", "_seen", "delivered")

    def __init__(self) -> None:
        self.delivered = -1
        """Up to where the log was delivered; -1 until it is known where it ends."""
        self._early: dict[int, Published] = {}
        self._seen = -1

    @property
    def is_known(self) -> bool:
        """Whether it is known where the log ended when it began to be followed."""
        return self.delivered >= 0

    @property
    def is_behind(self) -> bool:
        """Whether something is known to be in the log that was not delivered."""
        return self.is_known and self._seen > self.delivered

    @property
    def seen(self) -> int:
        """The furthest position that is known to be in the log."""
        return max(self._seen, self.delivered)

    def begin(self, position: int) -> list[Published]:
        """The log ended here, or later, when it began to be followed: deliver what comes after."""
        self.delivered = position
        return self._in_turn()

    def is_next(self, position: int) -> bool:
        """Whether this position is all that can be delivered now: then raise `delivered`."""
        return position == self.delivered + 1 and not self._early and self.is_known

    def take(self, position: int, published: Published) -> list[Published]:
        """An event has arrived."""
        self._seen = max(self._seen, position)
        if position > self.delivered and len(self._early) < _MAX_EARLY:
            self._early[position] = published
        return self._in_turn()

    def fill(self, events: Iterable[tuple[int, Published]], upto: int) -> list[Published]:
        """A page of the log was read, which holds all from where it began to `upto`.

        What arrived as well is delivered as it arrived: it knows which connection it came from.
        """
        ready: list[Published] = []
        for position, published in events:
            if position > self.delivered:
                ready.append(self._early.pop(position, published))
                self.delivered = position
        self.delivered = max(self.delivered, upto)
        return ready + self._in_turn()

    def give_up(self, position: int) -> None:
        """What was seen up to this position is not in the log after all."""
        if self._seen <= position:
            self._seen = self.delivered
            self._early.clear()

    def _in_turn(self) -> list[Published]:
        ready: list[Published] = []
        if self._early and self.is_known:
            while (published := self._early.pop(self.delivered + 1, None)) is not None:
                ready.append(published)
                self.delivered += 1
            for position in [p for p in self._early if p <= self.delivered]:
                del self._early[position]
        return ready
