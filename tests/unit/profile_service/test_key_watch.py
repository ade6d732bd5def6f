"""New keys come into force, broken ones do not, and a token of an unknown one makes it look."""

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from profile_service.key_watch import MIN_INTERVAL_S, KeyWatch
from profile_service.ports import StoreUnavailable
from profile_service.rotation import Session
from profile_service.tokens import KeyRing, TokenAuthority
from shared.ids import new_session_id, new_user_id
from tests.support.profile_service import ManualClock, UnchangedKeys


class Keys(UnchangedKeys):
    """A source of keys that has what a test gives it."""

    next: KeyRing | Exception | None = None
    looks = 0

    async def load_if_changed(self) -> KeyRing | None:
        self.looks += 1
        if isinstance(self.next, Exception):
            raise self.next
        return self.next


def authority(keys: KeyRing, clock: ManualClock) -> TokenAuthority:
    return TokenAuthority(
        keys,
        issuer="duet",
        audience="duet",
        access_lifetime_s=600,
        refresh_lifetime_s=3600,
        now=clock,
    )


def token(tokens: TokenAuthority, clock: ManualClock) -> str:
    session = Session(
        id=new_session_id(),
        user_id=new_user_id(),
        device_name=None,
        user_agent=None,
        generation=1,
        confirmed_generation=0,
        rotated_at_ms=0,
        created_at_ms=0,
        expires_at_ms=int(clock() * 2000),
    )
    return tokens.issue(session, 1).access_token


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def tokens(clock: ManualClock) -> TokenAuthority:
    return authority(KeyRing(Ed25519PrivateKey.generate(), {}), clock)


@pytest.fixture
def keys(tokens: TokenAuthority) -> Keys:
    return Keys(tokens.keys)


@pytest.fixture
def watch(keys: Keys, tokens: TokenAuthority, clock: ManualClock) -> KeyWatch:
    return KeyWatch(keys, tokens, monotonic=clock)


async def test_new_keys_come_into_force_and_broken_ones_do_not(
    watch: KeyWatch, keys: Keys, tokens: TokenAuthority, caplog: pytest.LogCaptureFixture
) -> None:
    old = tokens.keys
    await watch.look()
    assert tokens.keys is old
    keys.next = OSError("gone")
    await watch.look()
    assert tokens.keys is old
    assert "keys_unusable" in caplog.text
    keys.next = KeyRing(Ed25519PrivateKey.generate(), old.verifying)
    await watch.look()
    assert tokens.keys is keys.next


async def test_a_token_of_a_key_that_another_service_made_is_good_at_once(
    watch: KeyWatch, keys: Keys, tokens: TokenAuthority, clock: ManualClock
) -> None:
    keys.next = KeyRing(Ed25519PrivateKey.generate(), tokens.keys.verifying)
    foreign = token(authority(keys.next, clock), clock)
    assert tokens.lacks_key_of(foreign)
    assert await watch.look_for_key_of(foreign)
    assert tokens.check_access(foreign)


async def test_forged_tokens_make_it_look_once_a_second(
    watch: KeyWatch, keys: Keys, tokens: TokenAuthority, clock: ManualClock
) -> None:
    forged = token(authority(KeyRing(Ed25519PrivateKey.generate(), {}), clock), clock)
    for _ in range(10):
        assert not await watch.look_for_key_of(forged)
    assert keys.looks == 1
    clock.advance(MIN_INTERVAL_S)
    assert not await watch.look_for_key_of(forged)
    assert keys.looks == 2
    for worthless in (token(tokens, clock), "x", "", "\ud800", "a.b.c", "x" * 5000):
        assert not await watch.look_for_key_of(worthless)
    assert keys.looks == 2


async def test_while_keys_cannot_be_read_nobody_is_told_that_a_token_is_bad(
    watch: KeyWatch, keys: Keys, clock: ManualClock
) -> None:
    keys.next = StoreUnavailable("away")
    foreign = token(authority(KeyRing(Ed25519PrivateKey.generate(), {}), clock), clock)
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            await watch.look_for_key_of(foreign)
    keys.next = None
    clock.advance(MIN_INTERVAL_S)
    assert not await watch.look_for_key_of(foreign)
