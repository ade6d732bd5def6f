"""What happens beside the requests."""

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from profile_service.housekeeping import Housekeeping
from profile_service.ports import AuditEntry, StoreUnavailable
from profile_service.tokens import KeyRing, TokenAuthority
from tests.support.profile_service import ManualClock, MemorySessionStore, MemoryStorage


class Keys:
    """A source of keys that has what a test gives it."""

    def __init__(self) -> None:
        self.next: KeyRing | Exception | None = None

    def load_if_changed(self) -> KeyRing | None:
        if isinstance(self.next, Exception):
            raise self.next
        return self.next


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
    store: MemorySessionStore, keys: Keys, tokens: TokenAuthority, clock: ManualClock
) -> Housekeeping:
    return Housekeeping(
        store, keys, tokens, refresh_lifetime_s=3600, audit_retention_s=60, now=clock
    )


async def test_old_rows_go(tokens: TokenAuthority, clock: ManualClock) -> None:
    storage = MemoryStorage()
    for age_s in (0, 61):
        storage.audit.append(AuditEntry(at_ms=int((clock() - age_s) * 1000), kind="login"))
    await housekeeping_of(MemorySessionStore(storage), Keys(), tokens, clock).prune()
    assert [entry.at_ms for entry in storage.audit] == [clock() * 1000]


async def test_a_full_disk_does_not_stop_it(
    tokens: TokenAuthority, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    await housekeeping_of(FullStore(MemoryStorage()), Keys(), tokens, clock).prune()
    assert "prune_failed" in caplog.text


async def test_new_keys_come_into_force_and_broken_ones_do_not(
    tokens: TokenAuthority, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    keys = Keys()
    housekeeping = housekeeping_of(MemorySessionStore(MemoryStorage()), keys, tokens, clock)
    old = tokens.keys
    housekeeping.take_new_keys()
    assert tokens.keys is old
    keys.next = OSError("gone")
    housekeeping.take_new_keys()
    assert tokens.keys is old
    assert "keys_unusable" in caplog.text
    keys.next = KeyRing(Ed25519PrivateKey.generate(), old.verifying)
    housekeeping.take_new_keys()
    assert tokens.keys is keys.next
