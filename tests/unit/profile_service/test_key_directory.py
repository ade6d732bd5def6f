"""Signing keys on the disk."""

from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key

from profile_service.adapters.key_directory import KeyDirectory
from profile_service.ports import KeysUnusable
from tests.support.profile_service import ManualClock

DAY_S = 86_400


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def directory(tmp_path: Path, clock: ManualClock) -> KeyDirectory:
    return KeyDirectory(tmp_path / "keys", now=clock)


async def test_the_first_load_makes_a_key_and_the_next_finds_it(
    directory: KeyDirectory, tmp_path: Path
) -> None:
    made = await directory.load()
    assert (await directory.load()).signing_id == made.signing_id
    (file,) = (tmp_path / "keys").iterdir()
    assert file.stat().st_mode & 0o777 == 0o600


async def test_the_newest_key_signs_and_the_older_ones_verify(
    directory: KeyDirectory, clock: ManualClock
) -> None:
    first = (await directory.load()).signing_id
    clock.advance(1)
    second = await directory.rotate(DAY_S)
    ring = await directory.load()
    assert ring.signing_id == second
    assert set(ring.verifying) == {first, second}


async def test_a_new_key_signs_even_if_the_clock_was_set_back(
    directory: KeyDirectory, clock: ManualClock
) -> None:
    await directory.load()
    clock.advance(-DAY_S)
    before = (await directory.load()).signing_id
    made = await directory.rotate(DAY_S)
    assert before != made == (await directory.load()).signing_id


async def test_a_key_goes_when_it_was_superseded_long_enough_ago(
    directory: KeyDirectory, clock: ManualClock
) -> None:
    first = (await directory.load()).signing_id
    clock.advance(100 * DAY_S)
    second = await directory.rotate(DAY_S)
    assert first in (await directory.load()).verifying
    clock.advance(DAY_S)
    third = await directory.rotate(DAY_S)
    assert set((await directory.load()).verifying) == {second, third}


async def test_only_a_change_is_loaded_again(directory: KeyDirectory, clock: ManualClock) -> None:
    await directory.load()
    assert await directory.load_if_changed() is None
    clock.advance(1)
    new = await KeyDirectory(directory._path, now=clock).rotate(DAY_S)
    ring = await directory.load_if_changed()
    assert ring is not None
    assert ring.signing_id == new
    assert await directory.load_if_changed() is None


@pytest.mark.parametrize("name", ["20260101T000000000000Z-x.pem", "nonsense.pem"])
async def test_what_is_no_key_is_named(directory: KeyDirectory, tmp_path: Path, name: str) -> None:
    await directory.load()
    (tmp_path / "keys" / name).write_text("nonsense")
    with pytest.raises(KeysUnusable, match=name):
        await directory.load()


async def test_a_key_without_a_time_or_of_another_kind_is_named(
    directory: KeyDirectory, tmp_path: Path
) -> None:
    await directory.load()
    (file,) = (tmp_path / "keys").iterdir()
    renamed = file.rename(file.with_name("renamed.pem"))
    with pytest.raises(KeysUnusable, match=r"renamed\.pem"):
        await directory.load()
    pem = generate_private_key(SECP256R1()).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    renamed.unlink()
    file.write_bytes(pem)
    with pytest.raises(KeysUnusable, match="not an Ed25519 key"):
        await directory.load()


async def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path, clock: ManualClock) -> None:
    (tmp_path / "file").write_text("")
    directory = KeyDirectory(tmp_path / "file" / "keys", now=clock)
    with pytest.raises(KeysUnusable, match="file/keys"):
        await directory.load()
