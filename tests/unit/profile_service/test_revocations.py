"""The feed of revocations and the groups of refreshes, without HTTP."""

import asyncio
import contextlib
from collections.abc import Sequence

import pytest

from profile_service.ports import AuditEntry, Rotation, StoreUnavailable
from profile_service.revocations import KeepAlive, Ready, RevocationFeed, Revoked
from profile_service.rotation import Decision, PresentedRefresh, RotationRule
from profile_service.rotations import Confirmations, RotationGroups
from shared.ids import SessionId, UserId
from shared.revocation import Revocation
from tests.support.profile_service import MemorySessionStore, MemoryStorage

TOKEN = PresentedRefresh(
    session_id=SessionId("s_one"), user_id=UserId("u_one"), token_version=1, generation=1
)
AUDIT = AuditEntry(at_ms=0, kind="refresh")


class ControlledStore(MemorySessionStore):
    """A store whose writes wait until a test lets them go, and may fail."""

    def __init__(self) -> None:
        self.storage = MemoryStorage()
        super().__init__(self.storage)
        self.may_write = asyncio.Event()
        self.failure: Exception | None = None
        self.groups: list[int] = []

    async def rotate(
        self,
        presented: Sequence[tuple[PresentedRefresh, AuditEntry]],
        *,
        now_ms: int,
        rule: RotationRule,
        expires_at_ms: int,
    ) -> list[Rotation]:
        self.groups.append(len(presented))
        await self.may_write.wait()
        if self.failure:
            raise self.failure
        return [Rotation(Decision.REFUSE, None) for _ in presented]

    async def confirm(self, shown: Sequence[tuple[SessionId, int]]) -> None:
        self.groups.append(len(shown))
        await self.may_write.wait()
        if self.failure:
            raise self.failure


@pytest.fixture
async def store() -> ControlledStore:
    return ControlledStore()


async def test_an_idle_feed_keeps_alive(store: ControlledStore) -> None:
    items = RevocationFeed(store, keepalive_s=0.01).follow(None)
    assert isinstance(await anext(items), Ready)
    assert isinstance(await anext(items), KeepAlive)
    assert isinstance(await anext(items), KeepAlive)


async def test_a_long_backlog_comes_in_order_and_page_by_page(store: ControlledStore) -> None:
    feed = RevocationFeed(store)
    items = feed.follow(None)
    await anext(items)
    for number in range(250):
        store.storage.revoke(Revocation("all_sessions", UserId("u"), token_version=number), 0)
    versions = []
    for _ in range(250):
        item = await anext(items)
        assert isinstance(item, Revoked)
        versions.append(item.revocation.token_version)
    assert versions == list(range(250))


async def test_a_closed_feed_ends_those_who_wait_and_those_who_come(
    store: ControlledStore,
) -> None:
    feed = RevocationFeed(store)
    items = feed.follow(None)
    await anext(items)
    waiting = asyncio.ensure_future(anext(items))
    await asyncio.sleep(0)
    feed.close()
    with pytest.raises(StopAsyncIteration):
        await waiting
    assert [type(item) async for item in feed.follow(None)] == [Ready]


def groups_of(store: ControlledStore) -> RotationGroups:
    rule = RotationRule(grace_ms=30_000, burst=100)
    return RotationGroups(store, rule=rule, refresh_lifetime_s=60, now_ms=lambda: 0)


async def test_what_waits_during_a_transaction_goes_into_the_next(
    store: ControlledStore,
) -> None:
    groups = groups_of(store)
    first = asyncio.create_task(groups.rotate(TOKEN, AUDIT))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    others = [asyncio.create_task(groups.rotate(TOKEN, AUDIT)) for _ in range(300)]
    await asyncio.sleep(0)
    others[0].cancel()
    store.may_write.set()
    await first
    done = await asyncio.gather(*others, return_exceptions=True)
    assert sum(isinstance(outcome, Rotation) for outcome in done) == 299
    assert store.groups == [1, 256, 44]


async def test_a_failed_group_tells_everybody_and_the_next_goes_through(
    store: ControlledStore,
) -> None:
    groups = groups_of(store)
    store.may_write.set()
    store.failure = StoreUnavailable("the disk is full")
    outcomes = await asyncio.gather(
        *(groups.rotate(TOKEN, AUDIT) for _ in range(3)), return_exceptions=True
    )
    assert [type(outcome) for outcome in outcomes] == [StoreUnavailable] * 3
    store.failure = None
    assert (await groups.rotate(TOKEN, AUDIT)).decision is Decision.REFUSE


async def test_notes_wait_for_nobody_and_survive_a_full_disk(store: ControlledStore) -> None:
    confirmations = Confirmations(store)
    confirmations.note(set())
    confirmations.note({(SessionId("s_one"), 1)})
    writer = confirmations._writer
    assert writer is not None
    await asyncio.sleep(0)
    confirmations.note({(SessionId("s_one"), 2), (SessionId("s_two"), 1)})
    store.failure = StoreUnavailable("the disk is full")
    store.may_write.set()
    with contextlib.suppress(asyncio.CancelledError):
        await writer
    assert store.groups == [1, 2]
