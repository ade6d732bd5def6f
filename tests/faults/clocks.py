"""Clocks that jump by five minutes under load, of one service, of the other, and of both.

The processes run under libfaketime, which looks for the time's offset in a file. Only wall clocks
jump: a monotonic clock does not, on any system.
"""

import contextlib
import itertools
import sqlite3
from pathlib import Path

import msgspec

from tests.faults.figures import Figure, Plan
from tests.faults.load import Load, talking_pairs
from tests.faults.processes import UNHURRIED, Duet, Person
from tests.support.client import Client

__all__ = ["clock_jumps"]

JUMP_S = 300
_JUMPS = (JUMP_S, 0, -JUMP_S, 0, JUMP_S, -JUMP_S)
"""Where the clock is set, in seconds from the right time: steps of five and of ten minutes."""
_LIBRARIES = (
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib64/faketime/libfaketimeMT.so.1",
    "/usr/lib/faketime/libfaketimeMT.so.1",
)
_SERVICES = ("profile_service", "ws_gateway")


class _Count(msgspec.Struct):
    """What must not happen."""

    jumps: int = 0
    refused_connects: int = 0
    refused_refreshes: int = 0
    refused_log_ins: int = 0


async def clock_jumps(plan: Plan) -> list[Figure]:
    """Set the clocks while people talk, connect, refresh and log in."""
    fault = "clocks that jump by 5 and 10 minutes under load"
    library = _library()
    if library is None:
        return [
            Figure(
                fault=fault,
                tries=0,
                counted="",
                passed=False,
                skipped="libfaketime is not installed (apt-get install faketime); "
                "tests/security/test_clock_jumps.py does it with injected clocks",
            )
        ]
    duet = Duet(plan.directory / "clock-jumps", UNHURRIED)
    try:
        for name in _SERVICES:
            _set_clock(duet, name, 0)
            await duet.start(
                name,
                LD_PRELOAD=library,
                FAKETIME_TIMESTAMP_FILE=str(_clock_of(duet, name)),
                FAKETIME_NO_CACHE="1",
                FAKETIME_DONT_FAKE_MONOTONIC="1",
            )
        for name in _SERVICES:
            await duet.ready(name)
        count, rounds = _Count(), plan.of(1, 5)
        people = await duet.sign_up_many(20)
        ann = await duet.sign_up()
        async with talking_pairs(duet.url, people, window=4, pause_s=0.02) as load:
            await load.more_acknowledged(100)
            for names in [("ws_gateway",), ("profile_service",), _SERVICES] * rounds:
                for offset_s in (*_JUMPS[: plan.of(4, 6)], 0):
                    for name in names:
                        _set_clock(duet, name, offset_s)
                    count.jumps += 1
                    await _do_everything(duet, load, ann, count)
            await load.settle()
        books, late = load.books(duet.messages_db), _times_that_went_back(duet.messages_db)
        dropped = sum(member.connects - 1 for member in load.members)
        tracebacks = duet.tracebacks()
    finally:
        await duet.close()
    wrong = (
        *(dropped, late, tracebacks),
        *(count.refused_connects, count.refused_refreshes, count.refused_log_ins),
    )
    return [
        Figure(
            fault=fault,
            tries=count.jumps,
            counted=f"{books}; {dropped} live connections dropped; {count.refused_connects} "
            f"connects, {count.refused_refreshes} refreshes, {count.refused_log_ins} log-ins "
            f"refused; {late} times of messages went back; {tracebacks} tracebacks (libfaketime; "
            f"of the gateway, of the profile service, of both)",
            passed=books.are_good and not any(wrong),
        )
    ]


async def _do_everything(duet: Duet, load: Load, ann: Person, count: _Count) -> None:
    """Do what looks at a clock, and count what is refused."""
    await load.more_acknowledged(100)
    answer = await duet.http.post("/v1/token", json={"refresh_token": ann.refresh_token})
    if answer.is_success:
        ann.access_token = answer.json()["access_token"]
        ann.refresh_token = answer.json()["refresh_token"]
    else:
        count.refused_refreshes += 1
    try:
        async with Client.talking(duet.url, ann.access_token) as client:
            await client.send(type="conversations", id="c")
            await client.expect("conversations", id="c")
    except (AssertionError, OSError):
        count.refused_connects += 1
    with contextlib.suppress(AssertionError):
        await duet.log_in(ann)
        return
    count.refused_log_ins += 1


def _library() -> str | None:
    return next((path for path in _LIBRARIES if Path(path).exists()), None)


def _clock_of(duet: Duet, name: str) -> Path:
    return duet.data_dir.parent / f"clock-of-{name}"


def _set_clock(duet: Duet, name: str, offset_s: int) -> None:
    """In one step: a file that is being written would be read as no offset."""
    path = _clock_of(duet, name)
    written = path.with_suffix(".new")
    written.write_text(f"{offset_s:+}\n")
    written.replace(path)


def _times_that_went_back(database: Path) -> int:
    with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        rows = connection.execute("SELECT sent_at_ms FROM messages ORDER BY position")
        times = [at_ms for (at_ms,) in rows]
    assert max(times) - min(times) > JUMP_S * 1000, "the clock of the gateway did not jump"
    return sum(later < earlier for earlier, later in itertools.pairwise(times))
