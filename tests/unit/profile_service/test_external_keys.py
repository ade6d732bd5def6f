"""Keys of an identity provider are remembered, and read again when there is a reason to."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from profile_service.adapters.external_keys import (
    MAX_KEY_SET_BYTES,
    CachedKeys,
    KeySetFile,
    KeySetUnreadable,
    KeySetUrl,
    open_keys,
)
from profile_service.errors import ExternalKeysUnavailable
from profile_service.key_sets import PublicKey
from tests.support.identity_provider import IdentityProvider, SigningKey, serving_keys
from tests.support.profile_service import ManualClock
from tests.support.waiting import Gate

REFETCH_S = 10
MAX_AGE_S = 600


class Source:
    """A `KeySetSource` that is told what happens."""

    def __init__(self, provider: IdentityProvider) -> None:
        self.provider = provider
        self.available = True
        self.gate = Gate()

    async def read(self) -> bytes:
        self.provider.reads += 1
        await self.gate.passed()
        if not self.available:
            raise KeySetUnreadable("it is switched off")
        return self.provider.key_set()


class World:
    def __init__(self) -> None:
        self.provider = IdentityProvider()
        self.source = Source(self.provider)
        self.clock = ManualClock()
        self.readings: list[bool] = []
        self.keys = CachedKeys(
            self.source,
            refetch_s=REFETCH_S,
            max_age_s=MAX_AGE_S,
            monotonic=self.clock,
            on_read=self.readings.append,
        )

    async def find(self, kid: str) -> PublicKey | None:
        return await self.keys.find(kid, "EdDSA")


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    yield world
    await world.keys.close()


async def test_many_who_ask_at_once_wait_for_one_reading(world: World) -> None:
    found = await asyncio.gather(*(world.find("first") for _ in range(50)))
    assert None not in found
    assert world.provider.reads == 1
    assert await world.find("first") is not None
    assert world.provider.reads == 1


async def test_a_new_key_is_found_and_an_unknown_one_is_asked_for_now_and_then(
    world: World,
) -> None:
    await world.find("first")
    world.clock.advance(REFETCH_S)
    world.provider.keys.append(SigningKey("second"))
    assert await world.find("second") is not None
    assert world.provider.reads == 2
    for number in range(20):
        assert await world.find(f"invented-{number}") is None
    assert world.provider.reads == 2
    world.clock.advance(REFETCH_S)
    assert await world.find("invented") is None
    assert world.provider.reads == 3


async def test_without_keys_it_says_when_to_try_again_and_soon_does(world: World) -> None:
    world.source.available = False
    with pytest.raises(ExternalKeysUnavailable) as refused:
        await world.find("first")
    assert refused.value.retry_after_s == 1
    with pytest.raises(ExternalKeysUnavailable):
        await world.find("first")
    assert world.provider.reads == 1
    world.source.available = True
    world.clock.advance(1)
    assert await world.find("first") is not None
    assert world.readings == [False, True]


async def test_known_keys_are_good_while_the_source_is_away_and_unknown_ones_undecided(
    world: World,
) -> None:
    await world.find("first")
    world.source.available = False
    world.clock.advance(MAX_AGE_S + 1)
    assert await world.find("first") is not None
    world.clock.advance(4)
    with pytest.raises(ExternalKeysUnavailable) as refused:
        await world.find("second")
    assert refused.value.retry_after_s == REFETCH_S - 4
    assert await world.find("first") is not None
    assert world.readings == [True, False]


async def test_old_keys_are_used_while_they_are_read_again(world: World) -> None:
    await world.find("first")
    world.clock.advance(MAX_AGE_S + 1)
    world.source.gate.close()
    world.provider.keys = [SigningKey("second")]
    assert await world.find("first") is not None
    world.source.gate.open()
    assert await world.find("second") is not None
    assert await world.find("first") is None


async def test_what_is_no_key_set_counts_as_a_failure(world: World) -> None:
    world.provider.body = b"<html>sign in</html>"
    with pytest.raises(ExternalKeysUnavailable):
        await world.find("first")
    assert world.readings == [False]


async def test_closing_stops_a_reading(world: World) -> None:
    world.source.gate.close()
    asking = asyncio.create_task(world.find("first"))
    await world.source.gate.arrivals(1)
    await world.keys.close()
    with contextlib.suppress(asyncio.CancelledError):
        await asking
    assert asking.cancelled()


@contextlib.asynccontextmanager
async def reading(url: str, timeout_s: float = 5) -> AsyncIterator[KeySetUrl]:
    source = KeySetUrl(url, timeout_s=timeout_s)
    try:
        yield source
    finally:
        await source.close()


async def test_a_url_is_read_over_http() -> None:
    provider = IdentityProvider()
    with serving_keys(provider) as url:
        async with reading(url) as source:
            assert json.loads(await source.read())["keys"][0]["kid"] == "first"


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        (404, b"{}", "answered 404"),
        (302, b"{}", "answered 302"),
        (200, b" " * (MAX_KEY_SET_BYTES + 1), "longer than"),
    ],
)
async def test_a_url_that_answers_something_else_says_so(
    status: int, body: bytes, reason: str
) -> None:
    provider = IdentityProvider()
    provider.status, provider.body = status, body
    with serving_keys(provider) as url:
        async with reading(url) as source:
            with pytest.raises(KeySetUnreadable, match=reason):
                await source.read()
    async with reading(url) as source:
        with pytest.raises(KeySetUnreadable):
            await source.read()


async def test_a_url_that_never_answers_is_given_up() -> None:
    held = asyncio.Event()

    async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await held.wait()
        writer.close()

    server = await asyncio.start_server(hold, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    url = f"http://127.0.0.1:{port}/jwks.json"
    async with server, reading(url, timeout_s=0.05) as source:
        with pytest.raises(KeySetUnreadable):
            await source.read()
        held.set()


async def test_a_file_must_be_there_and_new_keys_of_it_are_found(tmp_path: Path) -> None:
    provider, clock = IdentityProvider(), ManualClock()
    file = tmp_path / "keys.json"
    readings: list[bool] = []

    def opened() -> contextlib.AbstractAsyncContextManager[CachedKeys]:
        return open_keys(
            file,
            timeout_s=5,
            refetch_s=REFETCH_S,
            max_age_s=MAX_AGE_S,
            monotonic=clock,
            on_read=readings.append,
        )

    with pytest.raises(KeySetUnreadable, match=f"{file}: No such file"):
        await opened().__aenter__()
    file.write_text("nonsense")
    with pytest.raises(KeySetUnreadable, match="not a JSON Web Key Set"):
        await opened().__aenter__()
    file.write_bytes(provider.key_set())
    async with opened() as keys:
        assert await keys.find("first", "EdDSA") is not None
        provider.keys.append(SigningKey("second"))
        file.write_bytes(provider.key_set())
        assert await keys.find("second", "EdDSA") is not None
    assert str(KeySetFile(file)) == str(file)
