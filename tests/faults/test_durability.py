"""Durability from below: what the kernel saw, and what a power cut would leave."""

import asyncio
import contextlib
import random
import re
import shutil
import sqlite3
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.faults.load import Load, talking_pairs
from tests.faults.processes import UNHURRIED, Duet, running_duet
from tests.support.waiting import until

_CALL = re.compile(
    r"^(?P<thread>\d+) +(?:(?P<name>\w+)\(|<\.\.\. (?P<resumed>\w+) resumed>)(?P<rest>.*)$"
)
_WAL_CHANGES = {"pwrite64", "pwritev", "ftruncate", "write"}
_SYNCS = {"fdatasync", "fsync"}
_ACK = re.compile(r'\\"type\\":\\"ack\\",\\"id\\":\\"(person-\d+-\d+)\\"')


async def test_every_ack_goes_out_after_a_sync_of_its_row(tmp_path: Path) -> None:
    """Follow every system call of the gateway: the row into the WAL, the sync, then the ack."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed (Debian, Ubuntu: apt install strace)")
    async with running_duet(tmp_path / "traced", **UNHURRIED) as duet:
        people = await duet.sign_up_many(8)
        async with (
            _traced(duet, tmp_path / "calls.txt") as calls,
            talking_pairs(duet.url, people, window=4) as load,
        ):
            await load.more_acknowledged(300)
            await load.settle()
            acknowledged = {client_id for member in load.members for client_id in member.acked}
        seen = _acks_by_sync(calls.read_text(errors="replace"))
    assert set(seen.after_sync) >= acknowledged
    assert seen.too_early == []
    assert 0 < seen.syncs <= len(acknowledged)  # batches share one
    assert len(acknowledged) >= 300


class _Seen:
    """What a trace shows."""

    def __init__(self) -> None:
        self.after_sync: list[str] = []
        self.too_early: list[str] = []
        self.syncs = 0


def _acks_by_sync(trace: str) -> _Seen:
    """Tell acks whose row was synced before from those that went out too early.

    A row's client id is in a page that is written to the WAL; what was written when a sync began is
    on the disk when that sync has returned.
    """
    seen, written, syncing, durable = _Seen(), set[str](), dict[str, set[str]](), set[str]()
    for line in trace.splitlines():
        call = _CALL.match(line)
        if call is None:
            continue
        name, rest = call["name"] or call["resumed"], call["rest"]
        if name in _SYNCS:
            if call["name"]:
                syncing[call["thread"]] = set(written)
            if "unfinished" not in rest:
                durable |= syncing.pop(call["thread"], set())
                seen.syncs += 1
        elif call["name"] in _WAL_CHANGES and "messages.db-wal" in rest.partition(",")[0]:
            written |= set(re.findall(r"person-\d+-\d+(?!\d)", rest))
        elif call["name"] and "socket:" in rest.partition(",")[0]:
            for client_id in _ACK.findall(rest):
                (seen.after_sync if client_id in durable else seen.too_early).append(client_id)
    return seen


@contextlib.asynccontextmanager
async def _traced(duet: Duet, output: Path) -> AsyncIterator[Path]:
    strace = await asyncio.create_subprocess_exec(
        "strace", "-f", "-y", "-s", "70000", "-o", str(output), "-p",
        str(duet.processes["ws_gateway"].pid),
        "-e", "trace=fsync,fdatasync,write,writev,pwrite64,pwritev,sendto,sendmsg,ftruncate",
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert strace.stderr is not None
    first = (await strace.stderr.readline()).decode()
    if "attached" not in first:
        pytest.skip(f"strace may not follow another process here: {first.strip()}")
    try:
        yield output
    finally:
        with contextlib.suppress(ProcessLookupError):
            strace.terminate()
        await strace.communicate()


@pytest.mark.parametrize("power_cut", [False, True], ids=["process-dies", "power-cut"])
async def test_copy_at_any_moment_holds_everything_acknowledged_before(
    tmp_path: Path, power_cut: bool
) -> None:
    """Stop the process dead, copy its files, let it go on: again and again under load.

    What a crash of the process leaves is the files as they are. What a power cut leaves is less:
    of the write-ahead log only what was synced is certain, so the copy loses a random part of what
    was written after the last commit that anybody was told of, and after what a checkpoint had
    begun to write back: that was synced before.
    """
    chance = random.Random(23)
    async with running_duet(tmp_path / "copied", **UNHURRIED) as duet:
        people = await duet.sign_up_many(8)
        async with talking_pairs(duet.url, people, window=4) as load:
            for number in range(8):
                await load.more_acknowledged(chance.randint(1, 200))
                acknowledged = _acknowledged(load)
                copy = await _copy(duet, tmp_path / f"copy-{number}")
                if power_cut:
                    _lose_unsynced_tail(copy, acknowledged, chance)
                assert _integrity(copy) == "ok"
                assert acknowledged <= _stored(copy)
            await load.settle()
            assert load.books(duet.messages_db).are_good
    with pytest.raises(AssertionError):  # the check would notice a loss
        assert acknowledged | {("c_x", 1, "never-stored")} <= _stored(copy)


def _acknowledged(load: Load) -> set[tuple[str, int, str]]:
    return {
        (member.conversation, seq, client_id)
        for member in load.members
        for client_id, seq in member.acked.items()
    }


async def _copy(duet: Duet, folder: Path) -> Path:
    """Copy database, WAL and its index between two instructions of the process."""
    pid = duet.processes["ws_gateway"].pid
    await asyncio.to_thread(folder.mkdir)
    duet.freeze("ws_gateway")
    try:
        await until(lambda: _is_stopped(pid))
        for suffix, copied in (("", ""), ("-wal", "-wal"), ("-shm", "-index")):
            shutil.copyfile(f"{duet.messages_db}{suffix}", folder / f"messages.db{copied}")
    finally:
        duet.thaw("ws_gateway")
    return folder / "messages.db"


def _is_stopped(pid: int) -> bool:
    """Whether every thread of the process stands still."""
    tasks = Path(f"/proc/{pid}/task")
    return all(
        (task / "stat").read_text().rpartition(")")[2].split()[0] in "Tt"
        for task in tasks.iterdir()
    )


def _lose_unsynced_tail(
    database: Path, acknowledged: set[tuple[str, int, str]], chance: random.Random
) -> None:
    """Cut the WAL's copy somewhere behind the commit of the last acknowledged message."""
    wal = database.with_name("messages.db-wal")
    data = wal.read_bytes()
    synced = _written_back_end(database, data)
    ends = [end for end in _commit_ends(data) if end >= synced]
    keep = next((end for end in ends if _holds(database, data[:end], acknowledged)), len(data))
    wal.write_bytes(data[: chance.randint(keep, len(data))])


def _written_back_end(database: Path, wal: bytes) -> int:
    """How much of a WAL a checkpoint may have written back: that was synced first, and the database
    is synced before a new WAL begins (SQLite's WAL-index format: salts, nBackfillAttempted)."""
    index = database.with_name("messages.db-index").read_bytes()
    if index[32:40] != wal[16:24]:  # the next commit was about to begin a new WAL
        return len(wal)
    page_size = int.from_bytes(wal[8:12])
    return 32 + int.from_bytes(index[128:132], sys.byteorder) * (24 + page_size)


def _commit_ends(wal: bytes) -> list[int]:
    """Where each transaction of a WAL ends (SQLite file format, section 4): 24 bytes of frame
    header, whose second word is not 0 in the last frame of a commit, then a page."""
    page_size = int.from_bytes(wal[8:12])
    frame = 24 + page_size
    starts = range(32, len(wal) - frame + 1, frame)
    salt = wal[16:24]
    return [
        start + frame
        for start in starts
        if int.from_bytes(wal[start + 4 : start + 8]) and wal[start + 8 : start + 16] == salt
    ]


def _holds(database: Path, wal: bytes, acknowledged: set[tuple[str, int, str]]) -> bool:
    trial = database.parent / "trial"
    trial.mkdir(exist_ok=True)
    shutil.copyfile(database, trial / "messages.db")
    (trial / "messages.db-wal").write_bytes(wal)
    (trial / "messages.db-shm").unlink(missing_ok=True)
    return acknowledged <= _stored(trial / "messages.db")


def _stored(database: Path) -> set[tuple[str, int, str]]:
    with contextlib.closing(sqlite3.connect(database)) as connection:
        return set(
            connection.execute(
                """SELECT conversations.id, seq, client_id FROM messages
                JOIN conversations ON conversations.key = messages.conversation"""
            )
        )


def _integrity(database: Path) -> str:
    with contextlib.closing(sqlite3.connect(database)) as connection:
        (verdict,) = connection.execute("PRAGMA integrity_check").fetchone()
    return str(verdict)
