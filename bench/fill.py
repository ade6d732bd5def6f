"""Fills a gateway's database with messages through its own store (run by `bench.tool`).

No gateway runs meanwhile. Batches are as large as the gateway's largest, each one durable before
the next; what follows the log is settled, and search is brought up to date, as the gateway does it.

Three quarters of each batch are for some of 50,000 conversations between 20,000 people, eight
messages each time; the rest goes to the conversations that a measurement wants to be long, and to
people it wants to have many. So nothing lies together on the disk that would not in life.
"""

import itertools
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from bench import wire
from bench.tool import main
from shared.ids import UserId
from ws_gateway.adapters.sqlite_life import DATABASE_NAME, SEARCH_NAME
from ws_gateway.adapters.sqlite_stores import open_sqlite_stores
from ws_gateway.conversations import Change, Draft

__all__ = ["Busy", "FillPlan", "FillResult", "Long"]

_BATCH = 512
_SPECIAL = 128
_BURST = 8
_PEOPLE = 20_000
_EACH_TALKS_TO = 5
_TIDY_EVERY = 20
"""Batches; the gateway does it every 0.2 s."""


class Long(msgspec.Struct, frozen=True):
    """A conversation that is to have so many messages, all of them by `sender`."""

    sender: str
    recipient: str
    messages: int


class Busy(msgspec.Struct, frozen=True):
    """A person who is to have so many conversations, with one message each; one is with `peer`."""

    user: str
    peer: str
    conversations: int


class FillPlan(msgspec.Struct, frozen=True, kw_only=True):
    """Fill the database in `directory` until it has `messages`."""

    directory: str
    messages: int
    long: list[Long]
    busy: list[Busy]


class FillResult(msgspec.Struct, frozen=True, kw_only=True):
    """What it took; `written` is what was not there before."""

    messages: int
    written: int
    append_s: float
    """Appending and settling."""
    index_s: float
    """Bringing search up to date."""
    file_bytes: int
    """Of the database and the search index."""


async def _fill(plan: FillPlan) -> FillResult:
    path = Path(plan.directory) / DATABASE_NAME
    batches = _batches(plan)
    async with open_sqlite_stores(path) as stores:
        before, started = stores.messages.position, time.monotonic()
        for number in itertools.count():
            missing = plan.messages - stores.messages.position
            if missing <= 0:
                break
            await stores.messages.append_batch(next(batches)[:missing], int(time.time() * 1000))
            if number % _TIDY_EVERY == 0:
                await stores.messages.tidy_up()
        await stores.messages.settle_all()
        appended = time.monotonic()
        while not await stores.search.catch_up(100):
            pass
        indexed = time.monotonic()
        written = stores.messages.position - before
    return FillResult(
        messages=before + written,
        written=written,
        append_s=appended - started,
        index_s=indexed - appended,
        file_bytes=path.stat().st_size + path.with_name(SEARCH_NAME).stat().st_size,
    )


def _batches(plan: FillPlan) -> Iterator[list[Change]]:
    """Yield batches for ever, those of the specials first that are wanted."""
    ids = wire.ClientIds("uuid7")
    chance = random.Random(17)
    special = _special(plan, ids)
    numbers = itertools.count()
    while True:
        batch: list[Change] = list(itertools.islice(special, _SPECIAL))
        while len(batch) < _BATCH:
            pair = _pair(chance.randrange(_PEOPLE // 2 * _EACH_TALKS_TO))
            batch += [
                _draft(pair[turn % 2], pair[1 - turn % 2], next(numbers), ids)
                for turn in range(_BURST)
            ]
        yield batch[:_BATCH]


def _special(plan: FillPlan, ids: wire.ClientIds) -> Iterator[Draft]:
    for busy in plan.busy:
        yield _draft(busy.peer, busy.user, 0, ids)
        for number in range(1, busy.conversations):
            yield _draft(f"u_{busy.conversations:08d}peer{number:014d}", busy.user, number, ids)
    for long in plan.long:
        for number in range(long.messages):
            yield _draft(long.sender, long.recipient, number, ids)


def _pair(conversation: int) -> tuple[str, str]:
    """The two people of a conversation: half of all people talk to five of the other half each."""
    half = _PEOPLE // 2
    one, other = conversation // _EACH_TALKS_TO, half + conversation % half
    return f"u_{one:026d}", f"u_{other:026d}"


def _draft(sender: str, recipient: str, number: int, ids: wire.ClientIds) -> Draft:
    return Draft(
        UserId(sender), UserId(recipient), ids.next().decode(), wire.message_text(number).decode()
    )


if __name__ == "__main__":
    sys.exit(main(FillPlan, _fill))
