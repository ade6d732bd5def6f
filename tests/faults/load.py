"""People who talk two by two, and what their books say in the end."""

import asyncio
import collections
import contextlib
import itertools
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from pathlib import Path

import msgspec

from tests.faults.books import Books, BySender, StoredRow, holes, rows_in_sqlite
from tests.faults.member import Member
from tests.faults.processes import Person
from tests.support.waiting import until

__all__ = ["Load", "Pair", "talking", "talking_pairs"]


class Pair(msgspec.Struct, frozen=True):
    """Two people who talk to each other."""

    one: Member
    other: Member

    @property
    def members(self) -> tuple[Member, Member]:
        """Both."""
        return self.one, self.other


class Load:
    """Pairs that talk while the context of `talking_pairs` lasts."""

    def __init__(self, pairs: Sequence[Pair]) -> None:
        self.pairs = pairs
        self.members = [member for pair in pairs for member in pair.members]

    @property
    def acknowledged(self) -> int:
        """How many messages have their ack."""
        return sum(len(member.acked) for member in self.members)

    async def more_acknowledged(self, count: int, within_s: float = 30.0) -> None:
        """Wait for so many further acks."""
        goal = self.acknowledged + count
        await until(lambda: self.acknowledged >= goal, within_s=within_s)

    async def everybody_acknowledged_since(self, moment: float, within_s: float = 30.0) -> float:
        """Wait until each member had an ack after a moment. Returns the seconds that took."""
        await until(
            lambda: all(m.acked_at and m.acked_at[-1] > moment for m in self.members),
            within_s=within_s,
        )
        return time.monotonic() - moment

    async def everybody_heard_since(self, moment: float, within_s: float = 30.0) -> float:
        """Wait until each member got a message after a moment. Returns the seconds that took."""
        await until(lambda: all(m.arrived_at > moment for m in self.members), within_s=within_s)
        return time.monotonic() - moment

    @property
    def slowest_arrival_s(self) -> float:
        """The longest that a message took to arrive."""
        return max(member.slowest_arrival_s for member in self.members)

    async def settle(self, within_s: float = 20.0) -> None:
        """Stop sending, and give what is owed time to arrive."""
        for member in self.members:
            member.sending = False
        with contextlib.suppress(TimeoutError):
            await until(
                lambda: all(
                    not a.pending and len(b.arrived) >= len(a.acked) for a, b in self._directions()
                ),
                within_s=within_s,
            )

    def books(self, database: Path) -> Books:
        """Compare what was acknowledged with what arrived and with what is on the disk."""
        return self.compare(*rows_in_sqlite(database))

    def compare(self, found: Iterable[StoredRow], integrity: str) -> Books:
        """Compare what was acknowledged with what arrived and with what is stored."""
        stored: BySender = collections.defaultdict(list)
        for row in sorted(found):
            stored[row.conversation, row.sender].append((row.seq, row.client_id))
        lost = doubled = disordered = 0
        for sender, recipient in self._directions():
            rows = stored.get((sender.conversation, sender.person.user_id), [])
            seqs = {client_id: seq for seq, client_id in rows}
            doubled += len(rows) - len(seqs) + sender.doubled
            numbers = [
                int(client_id.rpartition("-")[2])
                for _, client_id in rows
                if client_id not in sender.refused
            ]
            disordered += sender.disordered + sum(
                later < earlier for earlier, later in itertools.pairwise(numbers)
            )
            for client_id, seq in sender.acked.items():
                lost += seqs.get(client_id) != seq or recipient.arrived.get(seq) != client_id
        lost += sum(holes(stored, pair.one.conversation) for pair in self.pairs)
        return Books(lost, doubled, disordered, self.acknowledged, integrity)

    def _directions(self) -> Iterable[tuple[Member, Member]]:
        for pair in self.pairs:
            yield pair.one, pair.other
            yield pair.other, pair.one


@contextlib.asynccontextmanager
async def talking_pairs(
    url: str, people: Sequence[Person], *, window: int = 8, pause_s: float = 0.0
) -> AsyncIterator[Load]:
    """Connect people two by two, and let them talk once everybody is here."""
    pairs = [
        Pair(
            Member([url], one, other, window=window, pause_s=pause_s),
            Member([url], other, one, window=window, pause_s=pause_s),
        )
        for one, other in zip(people[::2], people[1::2], strict=True)
    ]
    async with talking(pairs) as load:
        yield load


@contextlib.asynccontextmanager
async def talking(pairs: Sequence[Pair]) -> AsyncIterator[Load]:
    """Let pairs connect, and talk once everybody is here."""
    load = Load(pairs)
    tasks = [asyncio.create_task(member.run()) for member in load.members]
    try:
        async with asyncio.timeout(30):
            for member in load.members:
                await member.here.wait()
        for number, member in enumerate(load.members):
            member.begin(after_s=member.pause_s * number / len(load.members))
        yield load
    finally:
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    for result in results:
        if isinstance(result, Exception):
            raise result
