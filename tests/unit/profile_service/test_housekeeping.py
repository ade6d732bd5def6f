"""What happens beside the requests."""

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from profile_service.housekeeping import Housekeeping
from profile_service.key_watch import KeyWatch
from profile_service.ports import AuditEntry, StoreUnavailable
from profile_service.tokens import KeyRing, TokenAuthority
from tests.support.profile_service import (
    ManualClock,
    MemorySessionStore,
    MemoryStorage,
    UnchangedKeys,
)


class FullStore(MemorySessionStore):
    """A store that cannot write."""

    async def prune(self, *, sessions_ms: int, revocations_ms: int, audit_ms: int) -> int:
        raise StoreUnavailable("the disk is full")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def tokens(clock: ManualClock) -> TokenAuthority:
    return TokenAuthority(
        KeyRing(Ed25519PrivateKey.generate(), {}),
        issuer="duet",
        audience="duet",
        access_lifetime_s=600,
        refresh_lifetime_s=3600,
        now=clock,
    )


def housekeeping_of(
    store: MemorySessionStore, tokens: TokenAuthority, clock: ManualClock
) -> Housekeeping:
    keys = KeyWatch(UnchangedKeys(tokens.keys), tokens, monotonic=clock)
    return Housekeeping(store, keys, refresh_lifetime_s=3600, audit_retention_s=60, now=clock)


async def test_old_rows_go(tokens: TokenAuthority, clock: ManualClock) -> None:
    storage = MemoryStorage()
    for age_s in (0, 61):
        storage.audit.append(AuditEntry(at_ms=int((clock() - age_s) * 1000), kind="login"))
    await housekeeping_of(MemorySessionStore(storage), tokens, clock).prune()
    assert [entry.at_ms for entry in storage.audit] == [clock() * 1000]


async def test_a_full_disk_does_not_stop_it(
    tokens: TokenAuthority, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    await housekeeping_of(FullStore(MemoryStorage()), tokens, clock).prune()
    assert "prune_failed" in caplog.text
