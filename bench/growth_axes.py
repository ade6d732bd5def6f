"""What a message costs as one thing grows: the measurements of `bench.growth`."""

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from bench import tool
from bench.filled import BUSY, Filled, data_directory, log_in
from bench.idle import IdlePlan, held
from bench.listing import ListingPlan, ListingResult
from bench.load import LoadResult
from bench.message_scenarios import past_result
from bench.people import Person, sign_up
from bench.record import Record
from bench.stage import Pace, Stage, say, stage
from bench.wire import TEXT_CHARACTERS

__all__ = ["AXES", "Cost", "Growth", "Sizes"]

_PAIRS, _WINDOW = 50, 20
_IDLE_PEOPLE = 20
_FEW = 1000
"""Messages of the conversation whose history is read in a database that is empty else; in others
it is a tenth of all messages."""
_PAGES = 1000
_MISSED = 10_000


class Sizes(msgspec.Struct, frozen=True, kw_only=True):
    """How large things become, and the rate at which latency is taken."""

    rate_per_s: float = 5000
    stored_messages: tuple[int, ...] = (0, 100_000, 1_000_000, 10_000_000)
    connections: tuple[int, ...] = (10, 100, 1_000, 5_000, 10_000)
    conversations: tuple[int, ...] = BUSY
    characters: tuple[int, ...] = (10, TEXT_CHARACTERS, 200, 1_000, 4_000)
    filled: Path
    directory: Path


class Cost(msgspec.Struct, kw_only=True):
    """What was measured at one size."""

    size: int
    duet: list[LoadResult] = []
    """Closed loop."""
    relay: list[LoadResult] = []
    """In turns with Duet's; none where the relay has nothing that grows."""
    steady: LoadResult
    """Open loop, at the same rate for every size."""
    also_ms: dict[str, float] = {}
    """Other latencies that matter here."""


class Growth(msgspec.Struct, kw_only=True):
    """Costs along one axis."""

    what: str
    loop: str
    """How the load of the closed loop is made up."""
    costs: list[Cost] = []


def stored(pace: Pace, sizes: Sizes, record: Record) -> Growth:
    """Messages stored before; each size is a database of its own."""
    growth = Growth(what="messages stored before", loop=f"{_PAIRS} pairs x {_WINDOW}")
    for size in sizes.stored_messages:
        say(f"{size:,} messages stored")
        with _database(sizes, size) as (directory, made):
            with stage(pace, record, sizes.directory, filled=directory) as on:
                length, people = _FEW, None
                if made is not None:
                    length = made.longest
                    people = [log_in(on.duet.profile_url, who) for who in made.long[length]]
                paged = past_result(on, length, people, pages=_PAGES)
                resumed = past_result(on, _MISSED, resume=True)
                cost = _cost(on, pace, sizes, size, with_relay=True)
            cost.also_ms = {
                "history page p50": paged.page_p50_us / 1000,
                "history page p99": paged.page_p99_us / 1000,
                f"resume of {_MISSED:,}": resumed.resume_s * 1000,
            }
            growth.costs.append(cost)
    return growth


def connections(pace: Pace, sizes: Sizes, record: Record) -> Growth:
    """Connections that are open and idle beside the pairs that write."""
    growth = Growth(what="idle connections beside it", loop=f"{_PAIRS} pairs x {_WINDOW}")
    with stage(pace, record, sizes.directory) as on:
        idle = [person.access_token for person in sign_up(on.duet.profile_url, _IDLE_PEOPLE)]
        for size in sizes.connections:
            say(f"{size:,} idle connections")
            with held(IdlePlan(url=on.duet.url, tokens=idle, connections=size)):
                growth.costs.append(_cost(on, pace, sizes, size, with_relay=False))
    return growth


def conversations(pace: Pace, sizes: Sizes, record: Record) -> Growth:
    """Conversations of the person who writes, in the largest database."""
    growth = Growth(what="conversations of the sender", loop=f"1 pair x {_WINDOW}")
    directory, made = data_directory(sizes.filled, sizes.stored_messages[-1])
    with stage(pace, record, sizes.directory, filled=directory) as on:
        for size in sizes.conversations:
            say(f"{size:,} conversations of one person")
            people = [log_in(on.duet.profile_url, account) for account in made.busy[size]]
            cost = _cost(on, pace, sizes, size, with_relay=False, people=people)
            on.wait_for_quiet()
            listed = tool.run(
                "bench.listing",
                ListingPlan(url=on.duet.url, token=people[0].access_token),
                ListingResult,
            )
            cost.also_ms = {
                "connect p50": listed.connect_p50_us / 1000,
                "connect p99": listed.connect_p99_us / 1000,
                "list of 50 p50": listed.list_p50_us / 1000,
                "list of 50 p99": listed.list_p99_us / 1000,
            }
            growth.costs.append(cost)
    return growth


def characters(pace: Pace, sizes: Sizes, record: Record) -> Growth:
    """Characters of a message, ASCII."""
    growth = Growth(what="bytes of a message's text", loop=f"{_PAIRS} pairs x {_WINDOW}")
    with stage(pace, record, sizes.directory) as on:
        for size in sizes.characters:
            say(f"messages of {size:,} bytes")
            growth.costs.append(_cost(on, pace, sizes, size, with_relay=True, text_characters=size))
    return growth


AXES: dict[str, Callable[[Pace, Sizes, Record], Growth]] = {
    "stored": stored,
    "connections": connections,
    "conversations": conversations,
    "characters": characters,
}


def _cost(
    on: Stage,
    pace: Pace,
    sizes: Sizes,
    size: int,
    *,
    with_relay: bool,
    people: list[Person] | None = None,
    text_characters: int = TEXT_CHARACTERS,
) -> Cost:
    """The fixed rate first: it stores the least."""
    pairs = len(people) // 2 if people else _PAIRS

    def load(server: str, rate_per_s: float | None = None) -> LoadResult:
        return on.load(
            server,
            pairs=pairs,
            window=_WINDOW,
            rate_per_s=rate_per_s,
            text_characters=text_characters,
            people=people,
        )

    cost = Cost(size=size, steady=load("duet", sizes.rate_per_s * pairs / _PAIRS))
    for _ in range(pace.repetitions):
        if with_relay:
            cost.relay.append(load("relay"))
        cost.duet.append(load("duet"))
    return cost


@contextlib.contextmanager
def _database(sizes: Sizes, messages: int) -> Iterator[tuple[Path | None, Filled | None]]:
    """A database with so many messages: a copy, but of the largest, which grows by little."""
    if not messages:
        yield None, None
        return
    kept, made = data_directory(sizes.filled, messages)
    if messages == max(sizes.stored_messages):
        yield kept, made
        return
    with tempfile.TemporaryDirectory(dir=sizes.directory, prefix="duet-bench-") as directory:
        shutil.copytree(kept, directory, dirs_exist_ok=True)
        yield Path(directory), made
