"""Signing keys that several services share: made once, encrypted, known before they are used."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from profile_service.adapters.postgres_keys import ACTIVATION_DELAY_S, PostgresKeys, reseal
from profile_service.ports import KeysUnusable
from shared.postgres import Postgres
from tests.support.postgres import Databases
from tests.support.profile_postgres import migrated_postgres
from tests.support.profile_service import ManualClock

DAY_S = 86_400
SECRET = b"a secret of the tests, at least 32 bytes"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def database(postgres_databases: Databases) -> AsyncIterator[Postgres]:
    async with migrated_postgres(postgres_databases) as database:
        yield database


async def test_services_that_start_at_once_agree_on_the_first_key(
    database: Postgres, clock: ManualClock
) -> None:
    sources = [PostgresKeys(database, SECRET, now=clock) for _ in range(6)]
    rings = await asyncio.gather(*(source.load() for source in sources))
    assert len({ring.signing_id for ring in rings}) == 1
    assert all(len(ring.verifying) == 1 for ring in rings)


async def test_a_new_key_verifies_at_once_and_signs_when_all_have_read_it(
    database: Postgres, clock: ManualClock
) -> None:
    rotating, serving = (PostgresKeys(database, SECRET, now=clock) for _ in range(2))
    old = (await serving.load()).signing_id
    new = await rotating.rotate(DAY_S)
    ring = await serving.load_if_changed()
    assert ring is not None
    assert (ring.signing_id, set(ring.verifying)) == (old, {old, new})
    clock.advance(ACTIVATION_DELAY_S - 0.1)
    assert await serving.load_if_changed() is None
    clock.advance(0.1)
    ring = await serving.load_if_changed()
    assert ring is not None
    assert ring.signing_id == new


async def test_a_key_that_was_removed_is_gone_at_the_next_look(
    database: Postgres, clock: ManualClock
) -> None:
    keys = PostgresKeys(database, SECRET, now=clock)
    old = (await keys.load()).signing_id
    new = await keys.rotate(DAY_S)
    await database.write(lambda c: c.execute("DELETE FROM signing_keys WHERE id = $1", old))
    ring = await keys.load_if_changed()
    assert ring is not None
    assert (ring.signing_id, set(ring.verifying)) == (new, {new})


async def test_the_private_half_is_not_in_the_database(
    database: Postgres, clock: ManualClock
) -> None:
    ring = await PostgresKeys(database, SECRET, now=clock).load()
    sealed = await database.read(lambda c: c.fetchval("SELECT sealed FROM signing_keys"))
    assert isinstance(ring.signing, Ed25519PrivateKey)
    assert ring.signing.private_bytes_raw() not in sealed


async def test_another_service_secret_opens_nothing_and_says_so(
    database: Postgres, clock: ManualClock
) -> None:
    await PostgresKeys(database, SECRET, now=clock).load()
    with pytest.raises(KeysUnusable, match="give all profile services the same one"):
        await PostgresKeys(database, SECRET + b"!", now=clock).load()


async def test_keys_follow_a_change_of_the_service_secret(
    database: Postgres, clock: ManualClock
) -> None:
    ring = await PostgresKeys(database, SECRET, now=clock).load()
    new_secret = SECRET + b"!"
    with pytest.raises(KeysUnusable):
        await database.write(lambda connection: reseal(connection, new_secret, new_secret))
    assert await database.write(lambda connection: reseal(connection, SECRET, new_secret)) == 1
    again = await PostgresKeys(database, new_secret, now=clock).load()
    assert again.signing.private_bytes_raw() == ring.signing.private_bytes_raw()


async def test_keys_cannot_be_swapped_in_the_database(
    database: Postgres, clock: ManualClock
) -> None:
    keys = PostgresKeys(database, SECRET, now=clock)
    await keys.load()
    await keys.rotate(DAY_S)
    swap = (
        "UPDATE signing_keys AS k SET sealed = o.sealed FROM signing_keys AS o WHERE k.id <> o.id"
    )
    await database.write(lambda connection: connection.execute(swap))
    with pytest.raises(KeysUnusable):
        await keys.load()
