"""What every `KeySource` does: the directory, and PostgreSQL's."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from profile_service.adapters.key_directory import KeyDirectory
from profile_service.adapters.postgres_keys import ACTIVATION_DELAY_S, PostgresKeys
from profile_service.ports import KeySource
from tests.support.profile_postgres import migrated_postgres
from tests.support.profile_service import ManualClock

DAY_S = 86_400
SECRET = b"a secret of the tests, at least 32 bytes"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(params=["directory", "postgresql"])
async def another(
    request: pytest.FixtureRequest, clock: ManualClock, tmp_path: Path
) -> AsyncIterator[Callable[[], KeySource]]:
    """Makes the source of another service that shares the keys."""
    if request.param == "directory":
        yield lambda: KeyDirectory(tmp_path / "keys", now=clock)
        return
    async with migrated_postgres(request.getfixturevalue("postgres_databases")) as database:
        yield lambda: PostgresKeys(database, SECRET, now=clock)


@pytest.fixture
def keys(another: Callable[[], KeySource]) -> KeySource:
    return another()


async def test_the_first_load_makes_a_key_and_others_find_it(
    keys: KeySource, another: Callable[[], KeySource]
) -> None:
    made = await keys.load()
    assert set(made.verifying) == {made.signing_id}
    found = await another().load()
    assert found.signing_id == made.signing_id
    assert found.signing.private_bytes_raw() == made.signing.private_bytes_raw()


async def test_the_newest_key_signs_and_the_older_ones_verify(
    keys: KeySource, clock: ManualClock
) -> None:
    first = (await keys.load()).signing_id
    second = await keys.rotate(DAY_S)
    clock.advance(ACTIVATION_DELAY_S)
    ring = await keys.load()
    assert ring.signing_id == second
    assert set(ring.verifying) == {first, second}


async def test_a_new_key_signs_even_if_the_clock_was_set_back(
    keys: KeySource, clock: ManualClock
) -> None:
    await keys.load()
    clock.advance(-3)
    new = await keys.rotate(DAY_S)
    clock.advance(ACTIVATION_DELAY_S)
    assert (await keys.load()).signing_id == new


async def test_a_key_goes_when_it_was_superseded_long_enough_ago(
    keys: KeySource, clock: ManualClock
) -> None:
    first = (await keys.load()).signing_id
    clock.advance(100 * DAY_S)
    second = await keys.rotate(DAY_S)
    assert first in (await keys.load()).verifying
    clock.advance(DAY_S + ACTIVATION_DELAY_S)
    third = await keys.rotate(DAY_S)
    assert set((await keys.load()).verifying) == {second, third}


async def test_only_a_change_is_loaded_again(
    keys: KeySource, another: Callable[[], KeySource], clock: ManualClock
) -> None:
    await keys.load()
    assert await keys.load_if_changed() is None
    clock.advance(1)
    new = await another().rotate(DAY_S)
    ring = await keys.load_if_changed()
    assert ring is not None
    assert new in ring.verifying
    clock.advance(ACTIVATION_DELAY_S)
    ring = await keys.load_if_changed() or ring
    assert ring.signing_id == new
    assert await keys.load_if_changed() is None
