"""A person with very many conversations, and a conversation with very many messages."""

import contextlib
import sqlite3
import time
from pathlib import Path

from shared.ids import UserId, conversation_id, new_user_id
from tests.support.client import Client
from tests.support.fake_profile import FakeProfile, FakeSession
from tests.support.gateway import TestGateway, running_gateway

CONVERSATIONS = 100_000
CONNECT_WITHIN_S = 2.0
PAGE_WITHIN_S = 2.0
"""Of a test machine that does other things too; what is guarded against takes many seconds."""


async def test_person_with_100_000_conversations_is_served_like_any_other(tmp_path: Path) -> None:
    profile = FakeProfile()
    ann, bob = profile.sign_up("ann"), profile.sign_up("bob")
    async with running_gateway(tmp_path, profile=profile):
        pass  # makes the file
    _fill(tmp_path / "messages.db", ann.user_id)
    async with running_gateway(tmp_path, profile=profile):
        pass  # as it stops, it settles what was put into the log
    async with running_gateway(tmp_path, profile=profile) as gateway:
        await _talk(gateway, ann, bob)


async def _talk(gateway: TestGateway, ann: FakeSession, bob: FakeSession) -> None:
    async with gateway.talking(bob) as b:
        started = time.monotonic()
        async with gateway.talking(ann) as a:
            await a.say(bob.user_id, "hello", "1")
            await b.expect("message", text="hello")
            assert time.monotonic() - started < CONNECT_WITHIN_S
            await _pages_come_at_once(a)
            cursor = a.connected["cursor"]
        await b.say(ann.user_id, "while you were away", "2")
        started = time.monotonic()
        async with Client.open(gateway.url) as a:
            await a.connect(ann.access_token, resume=cursor)
            await a.expect("message", text="hello")
            await a.expect("message", text="while you were away")
            assert time.monotonic() - started < CONNECT_WITHIN_S


async def _pages_come_at_once(client: Client) -> None:
    after: dict[str, str] = {}
    for _ in range(3):
        started = time.monotonic()
        await client.send(type="conversations", id="c", limit=50, **after)
        page = await client.expect("conversations", id="c")
        assert time.monotonic() - started < PAGE_WITHIN_S
        assert len(page["items"]) == 50
        after = {"after": page["next"]}


def _fill(path: Path, user_id: UserId) -> None:
    """Give a person conversations with that many others, a message in each, as the log has it."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("INSERT OR IGNORE INTO users (id) VALUES (?)", (user_id,))
        (me,) = connection.execute("SELECT key FROM users WHERE id = ?", (user_id,)).fetchone()
        others = [new_user_id() for _ in range(CONVERSATIONS)]
        first = me + 1_000_000
        keys = range(first, first + CONVERSATIONS)
        connection.executemany(
            "INSERT INTO users (key, id) VALUES (?, ?)", zip(keys, others, strict=True)
        )
        connection.executemany(
            "INSERT INTO conversations (key, id, low, high) VALUES (?, ?, ?, ?)",
            (
                (
                    key,
                    conversation_id(user_id, other),
                    *((me, key) if user_id < other else (key, me)),
                )
                for key, other in zip(keys, others, strict=True)
            ),
        )
        connection.executemany(
            "INSERT INTO messages VALUES (?, ?, 1, ?, ?, ?, 1, 0, NULL, 0, 'an old message')",
            (
                (position, key, key, int(other < user_id), f"old-{position}")
                for position, (key, other) in enumerate(zip(keys, others, strict=True), start=1)
            ),
        )
        for user, peer in (("?", "key"), ("key", "?")):
            connection.execute(
                f"INSERT INTO members (user, conversation, peer) "
                f"SELECT {user}, key, {peer} FROM conversations WHERE key >= {first}",
                (me,),
            )
        connection.commit()
