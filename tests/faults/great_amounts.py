"""A person with a million conversations, on real processes: what each thing they do takes."""

import asyncio
import contextlib
import secrets
import sqlite3
import statistics
import time
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec

from shared.ids import UserId, conversation_id, new_user_id
from tests.faults.figures import Figure, Plan, percentile
from tests.faults.load import talking_pairs
from tests.faults.processes import UNHURRIED, Duet, Person, lasting, running_duet
from tests.support.client import Client
from tests.support.profile_service import PASSWORD

__all__ = ["great_amounts"]

MISSED = 1000
"""What a client that was away resumes."""


class _Took(msgspec.Struct):
    """Seconds."""

    start: float = 0.0
    connect: float = 0.0
    first_page: float = 0.0
    deep_page: float = 0.0
    send: float = 0.0
    presence: float = 0.0
    search: float = 0.0
    resume: float = 0.0

    @property
    def are_good(self) -> bool:
        """Whether nobody would notice how many conversations they have."""
        quick = (self.connect, self.first_page, self.deep_page, self.send, self.presence)
        return max(quick) < 0.5 and self.search < 2 and self.resume < 2 and self.start < 10


async def great_amounts(plan: Plan) -> list[Figure]:
    """Fill a database, do everything with it, and erase the person while others talk."""
    count = plan.of(20_000, 1_000_000)
    settings = {**UNHURRIED, "DUET_OFFLINE_AFTER_S": "0.2"}
    async with running_duet(plan.directory / "great-amounts", **settings) as duet:
        ann, bob = await duet.sign_up_many(2)
        await duet.terminate("ws_gateway")
        fill(duet.messages_db, UserId(ann.user_id), count)
        took = _Took()
        started = time.monotonic()
        await duet.start("ws_gateway")
        await duet.ready("ws_gateway")
        took.start = time.monotonic() - started
        await _indexed(duet.messages_db)
        await _use(duet, ann, bob, took)
        erased_per_s, others_p99_ms = await _erase(plan, duet, ann)
        tracebacks = duet.tracebacks()
    return [
        Figure(
            fault=f"a person with {count} conversations",
            tries=1,
            counted=f"start {took.start:.1f} s; connect {_ms(took.connect)}; first page of "
            f"the list {_ms(took.first_page)}, a page half way down {_ms(took.deep_page)}; send to "
            f"ack {_ms(took.send)}; presence at a peer's connection {_ms(took.presence)}; search "
            f"of a word that is in every message {_ms(took.search)}; resume of {MISSED} missed "
            f"{_ms(took.resume)}; erasing {erased_per_s:.0f} conversations a second, ack p99 of "
            f"others meanwhile {others_p99_ms:.0f} ms; {tracebacks} tracebacks",
            passed=took.are_good and erased_per_s > 50 and others_p99_ms < 250 and not tracebacks,
        )
    ]


async def _use(duet: Duet, ann: Person, bob: Person, took: _Took) -> None:
    async with _talking(duet, bob) as b:
        connects: list[float] = []
        sends: list[float] = []
        pages: list[float] = []
        deep: list[float] = []
        for number in range(10):
            started = time.monotonic()
            async with _talking(duet, ann) as a:
                connects.append(time.monotonic() - started)
                started = time.monotonic()
                await a.say(UserId(bob.user_id), "hello", f"{number}-{secrets.token_hex(4)}")
                sends.append(time.monotonic() - started)
                cursor = a.connected["cursor"]
                half = str(int(cursor.rpartition(".")[2]) // 2)  # as `next` of a page has it
                for found, after in ((pages, None), (deep, half)):
                    started = time.monotonic()
                    more = {} if after is None else {"after": after}
                    await a.send(type="conversations", id="c", limit=50, **more)
                    page = await a.expect("conversations", id="c", past=_UNASKED)
                    found.append(time.monotonic() - started)
                    assert len(page["items"]) == 50
        took.connect, took.send = statistics.median(connects), statistics.median(sends)
        took.first_page, took.deep_page = statistics.median(pages), statistics.median(deep)
        async with _talking(duet, ann) as a:
            started = time.monotonic()
            await a.send(type="search", id="s", query="old", limit=20)
            assert (await a.expect("search", id="s", past=_UNASKED))["items"]
            took.search = time.monotonic() - started
            cursor = a.connected["cursor"]
        for number in range(MISSED):
            await b.send(type="send", id=f"missed-{number}", to=ann.user_id, text="missed")
        for _ in range(MISSED):
            await b.expect("ack", past=_UNASKED)
    await _presence(duet, ann, bob, took)
    started = time.monotonic()
    async with Client.open(duet.url) as a:
        await a.connect(ann.access_token, resume=cursor)
        await a.expect("resumed", past=[*_UNASKED, "message"])
        took.resume = time.monotonic() - started


async def _presence(duet: Duet, ann: Person, bob: Person, took: _Took) -> None:
    """How long after Ann connected somebody who talks with her knows."""
    await lasting(1)  # until she is offline
    async with _talking(duet, bob) as b:
        started = time.monotonic()
        async with _talking(duet, ann):
            await b.expect("presence", user=ann.user_id, online=True, past=_UNASKED)
            took.presence = time.monotonic() - started


async def _erase(plan: Plan, duet: Duet, ann: Person) -> tuple[float, float]:
    """Delete the account. Returns conversations erased a second, and others' ack p99 in ms."""
    others = await duet.sign_up_many(10)
    async with talking_pairs(duet.url, others, window=1, pause_s=0.05) as load:
        await load.everybody_acknowledged_since(0)
        answer = await duet.http.request(
            "DELETE", "/v1/users/me", json={"password": PASSWORD}, headers=ann.bearer
        )
        assert answer.is_success, answer.text
        for member in load.members:
            member.latencies_s.clear()
        before, seconds = _erased(duet.messages_db), plan.of(2, 20)
        await lasting(seconds)
        rate = (_erased(duet.messages_db) - before) / seconds
        latencies = [latency for member in load.members for latency in member.latencies_s]
        await load.settle()
    return rate, percentile(latencies, 0.99) * 1000


def _erased(database: Path) -> int:
    with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        (count,) = connection.execute("SELECT count(*) FROM revisions WHERE kind = 3").fetchone()
    return int(count)


async def _indexed(database: Path) -> None:
    """Wait until search has caught up: that is no part of what is measured."""
    async with asyncio.timeout(300):
        while True:
            with contextlib.closing(
                sqlite3.connect(f"file:{database}?mode=ro", uri=True)
            ) as connection:
                connection.execute(
                    "ATTACH ? AS search", (f"file:{database.with_name('search.db')}?mode=ro",)
                )
                indexed, last = connection.execute(
                    "SELECT indexed, (SELECT max(position) FROM messages) FROM following"
                ).fetchone()
            if indexed >= last:
                return
            await lasting(0.2)


@contextlib.asynccontextmanager
async def _talking(duet: Duet, person: Person) -> AsyncIterator[Client]:
    async with Client.talking(duet.url, person.access_token) as client:
        yield client


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms"


_UNASKED = ("presence", "receipt", "typing", "message", "delivered")


def fill(path: Path, user_id: UserId, count: int) -> None:
    """Give a person conversations with that many others, a message of each side in each one, in the
    log and in the tables that follow it; search is left to the gateway."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA synchronous=OFF")
        connection.execute("INSERT OR IGNORE INTO users (id) VALUES (?)", (user_id,))
        (me,) = connection.execute("SELECT key FROM users WHERE id = ?", (user_id,)).fetchone()
        others = [new_user_id() for _ in range(count)]
        first = me + 1_000_000
        for start in range(0, count, 50_000):
            chunk = others[start : start + 50_000]
            keys = range(first + start, first + start + len(chunk))
            _insert(connection, me, user_id, list(zip(keys, chunk, strict=True)), 2 * start)
        connection.execute("UPDATE life SET settled = ?", (2 * count,))
        connection.commit()


def _insert(
    connection: sqlite3.Connection,
    me: int,
    user_id: UserId,
    others: list[tuple[int, UserId]],
    position: int,
) -> None:
    """Two messages for each of the others: theirs, then one's own."""
    insert = connection.executemany
    insert("INSERT INTO users (key, id) VALUES (?, ?)", others)
    insert(
        "INSERT INTO conversations (key, id, low, high) VALUES (?, ?, ?, ?)",
        (
            (key, conversation_id(user_id, other), *((me, key) if user_id < other else (key, me)))
            for key, other in others
        ),
    )
    rows = [
        (position + 2 * number + seq, key, seq, sender, other)
        for number, (key, other) in enumerate(others)
        for seq, sender in ((1, key), (2, me))
    ]
    insert(
        "INSERT INTO messages VALUES (?, ?, ?, ?, ?, ?, 1, 0, NULL, 0, 'an old message')",
        (
            (
                at,
                key,
                seq,
                sender,
                int(user_id < other and seq == 2) + int(user_id > other),
                f"old-{at}",
            )
            for at, key, seq, sender, other in rows
        ),
    )
    insert("INSERT INTO places VALUES (?, ?, ?)", ((key, seq, at) for at, key, seq, *_ in rows))
    insert("INSERT INTO inbox VALUES (?, ?)", ((me, at) for at, *_ in rows))
    insert("INSERT INTO inbox VALUES (?, ?)", ((key, at) for at, key, *_ in rows))
    insert(
        "INSERT INTO members (user, conversation, peer, last_position, last_seq)"
        " VALUES (?, ?, ?, ?, 2)",
        (
            (user, key, peer, position + 2 * number + 2)
            for number, (key, _) in enumerate(others)
            for user, peer in ((me, key), (key, me))
        ),
    )
