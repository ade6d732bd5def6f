"""What the gateway counts on at the profile service; run on the fake and on the real one."""

import asyncio
import contextlib
import weakref
from collections.abc import AsyncIterator
from pathlib import Path
from typing import ClassVar

import msgspec
import pytest

from shared.ids import SessionId, UserId, new_user_id
from shared.introspection import TokenPair
from shared.revocation import HeldSession, Revocation
from tests.support.profile_worlds import Device, FakeWorld, ProfileWorld, RealWorld
from ws_gateway.identity import Identity
from ws_gateway.ports import FeedEvent, FeedReady, FeedReset, ProfileServiceUnavailable
from ws_gateway.protocol.requests import is_token


@pytest.fixture(params=["real", "fake"])
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ProfileWorld]:
    if request.param == "fake":
        yield FakeWorld()
    else:
        async with RealWorld.running(tmp_path) as world:
            yield world


class Listener:
    """Listens to the feed of a world from where the last one stopped.

    An event counts as handled when the next one is asked for.
    """

    _handled: ClassVar[weakref.WeakKeyDictionary[ProfileWorld, str]] = weakref.WeakKeyDictionary()

    def __init__(self, world: ProfileWorld) -> None:
        self._world = world
        self.events = world.port.events(self._handled.get(world))
        self._told: str | None = None

    async def __anext__(self) -> FeedEvent:
        if self._told is not None:
            self._handled[self._world] = self._told
        self._told, event = await anext(self.events)
        return event


@contextlib.asynccontextmanager
async def listening(world: ProfileWorld) -> AsyncIterator[Listener]:
    """The feed, from where the last listener stopped."""
    listener = Listener(world)
    try:
        async with asyncio.timeout(10):
            yield listener
    finally:
        await listener.events.aclose()  # type: ignore[attr-defined]


def held(device: Device, version: int = 1) -> HeldSession:
    return HeldSession(sid=device.session_id, sub=device.user_id, ver=version)


async def test_good_access_token_tells_who_it_belongs_to(world: ProfileWorld) -> None:
    device = await world.sign_up()
    identity = await world.port.verify(TokenPair(device.tokens.access_token))
    assert identity is not None
    assert (identity.user_id, identity.username) == (device.user_id, device.username)
    assert (identity.session_id, identity.token_version) == (device.session_id, 1)
    assert identity.tokens is None


@pytest.mark.parametrize("token", ["nonsense", "a.b.c", "x" * 2048])
async def test_bad_access_token_is_nobodys(world: ProfileWorld, token: str) -> None:
    assert await world.port.verify(TokenPair(token)) is None
    assert await world.port.verify(TokenPair(token, token)) is None


async def test_expired_access_token_alone_is_not_good(world: ProfileWorld) -> None:
    device = await world.sign_up()
    await world.let_access_token_expire(device)
    assert await world.port.verify(TokenPair(device.tokens.access_token)) is None


async def test_expired_access_token_with_refresh_token_gives_new_tokens(
    world: ProfileWorld,
) -> None:
    device = await world.sign_up()
    await world.let_access_token_expire(device)
    identity = await world.port.verify(device.tokens)
    assert identity is not None
    assert identity.tokens is not None
    assert identity.session_id == device.session_id
    again = await world.port.verify(TokenPair(identity.tokens.access_token))
    assert again is not None
    assert again.expires_at == identity.expires_at


async def test_session_that_was_refreshed_too_often_is_told_when_to_ask_again(
    world: ProfileWorld,
) -> None:
    device = await world.sign_up()
    await world.let_access_token_expire(device)
    other = await world.sign_up()
    tokens = TokenPair(device.tokens.access_token, await world.refresh_too_often(device))
    refused, verified = await asyncio.gather(
        world.port.verify(tokens), world.port.verify(other.tokens), return_exceptions=True
    )
    assert isinstance(refused, ProfileServiceUnavailable)
    assert refused.retry_after_s == 10
    assert isinstance(verified, Identity)
    held = [HeldSession(device.session_id, device.user_id, 1)]
    assert await world.port.ended(held) == []


async def test_waiting_verifications_each_get_their_own_answer(world: ProfileWorld) -> None:
    devices = [await world.sign_up() for _ in range(3)]
    tokens = [device.tokens for device in devices] + [TokenPair("nonsense")]
    identities = await asyncio.gather(*map(world.port.verify, tokens))
    users = [identity and identity.user_id for identity in identities]
    assert users == [*(device.user_id for device in devices), None]


async def test_full_batch_of_the_longest_tokens_is_answered(world: ProfileWorld) -> None:
    device = await world.sign_up()
    taken = filter(is_token, map(chr, range(128)))
    widest = max(taken, key=lambda character: len(msgspec.json.encode(character)))
    longest = TokenPair(widest * 2048, widest * 2048)
    verdicts = await asyncio.gather(
        *(world.port.verify(longest) for _ in range(300)), world.port.verify(device.tokens)
    )
    assert [verdict is not None for verdict in verdicts] == [False] * 300 + [True]


async def test_users_exist_or_do_not(world: ProfileWorld) -> None:
    device = await world.sign_up()
    asked = [device.user_id, new_user_id(), UserId("bob"), UserId("a&id=b #%"), device.user_id]
    found = await asyncio.gather(*map(world.port.username, asked))
    assert list(found) == [device.username, None, None, None, device.username]


async def test_full_batch_of_the_longest_user_ids_is_answered(world: ProfileWorld) -> None:
    device = await world.sign_up()
    asked = [UserId("&" * 60 + f"{n:04}") for n in range(300)]
    found = await asyncio.gather(*map(world.port.username, [*asked, device.user_id]))
    assert list(found) == [None] * 300 + [device.username]


async def test_deleted_user_is_gone(world: ProfileWorld) -> None:
    device = await world.sign_up()
    await world.delete_user(device)
    assert await world.port.username(device.user_id) is None
    assert await world.port.verify(device.tokens) is None
    other = await world.sign_up()
    asked = [other.user_id, new_user_id(), device.user_id]
    assert await world.port.deleted(asked) == [device.user_id]


async def test_logged_out_session_is_ended_and_the_other_is_not(world: ProfileWorld) -> None:
    phone = await world.sign_up()
    laptop = await world.log_in(phone)
    await world.log_out(phone)
    assert await world.port.ended([held(phone), held(laptop)]) == [phone.session_id]
    assert await world.port.verify(phone.tokens) is None
    assert await world.port.verify(laptop.tokens) is not None


async def test_unknown_session_is_ended(world: ProfileWorld) -> None:
    device = await world.sign_up()
    unknown = HeldSession(sid=SessionId("s_unknown"), sub=device.user_id, ver=1)
    assert await world.port.ended([unknown, held(device)]) == [unknown.sid]


async def test_logging_out_everywhere_ends_every_session(world: ProfileWorld) -> None:
    phone = await world.sign_up()
    laptop = await world.log_in(phone)
    await world.log_out_everywhere(laptop)
    ended = await world.port.ended([held(phone), held(laptop)])
    assert sorted(ended) == sorted([phone.session_id, laptop.session_id])


async def test_first_listener_is_told_that_the_past_is_unknown(world: ProfileWorld) -> None:
    device = await world.sign_up()
    await world.log_out(device)
    async with listening(world) as events:
        assert [await anext(events), await anext(events)] == [FeedReset(), FeedReady()]


async def test_feed_tells_each_way_that_sessions_end(world: ProfileWorld) -> None:
    phone = await world.sign_up()
    laptop = await world.log_in(phone)
    async with listening(world) as events:
        await anext(events), await anext(events)
        await world.log_out(phone)
        assert await anext(events) == Revocation(
            "session", phone.user_id, session_id=phone.session_id
        )
        await world.change_password(laptop)
        assert await anext(events) == Revocation(
            "all_sessions", phone.user_id, token_version=2, kept_session_id=laptop.session_id
        )


async def test_feed_tells_of_logging_out_everywhere_and_of_deletion(world: ProfileWorld) -> None:
    ann, bob = await world.sign_up(), await world.sign_up()
    async with listening(world) as events:
        await anext(events), await anext(events)
        await world.log_out_everywhere(ann)
        assert await anext(events) == Revocation("all_sessions", ann.user_id, token_version=2)
        await world.delete_user(bob)
        assert await anext(events) == Revocation("user_deleted", bob.user_id)


async def test_next_listener_hears_what_was_missed_and_what_was_not_handled(
    world: ProfileWorld,
) -> None:
    ann, bob, cid = [await world.sign_up() for _ in range(3)]
    async with listening(world) as events:
        await anext(events), await anext(events)
        await world.log_out_everywhere(ann)
        await anext(events)
    await world.log_out_everywhere(bob)
    async with listening(world) as events:
        assert await anext(events) == FeedReady()
        assert await anext(events) == Revocation("all_sessions", ann.user_id, token_version=2)
        assert await anext(events) == Revocation("all_sessions", bob.user_id, token_version=2)
        await world.log_out_everywhere(cid)
        assert await anext(events) == Revocation("all_sessions", cid.user_id, token_version=2)


async def test_nothing_is_answered_while_it_is_down(world: ProfileWorld) -> None:
    device = await world.sign_up()
    await world.break_down()
    with pytest.raises(ProfileServiceUnavailable):
        await world.port.verify(device.tokens)
    with pytest.raises(ProfileServiceUnavailable):
        await world.port.username(device.user_id)
    with pytest.raises(ProfileServiceUnavailable):
        await world.port.ended([held(device)])
    with pytest.raises(ProfileServiceUnavailable):
        async with listening(world) as events:
            await anext(events)


async def test_feed_that_breaks_off_raises(world: ProfileWorld) -> None:
    async with listening(world) as events:
        await anext(events), await anext(events)
        await world.break_down()
        with pytest.raises((ProfileServiceUnavailable, StopAsyncIteration)):
            await anext(events)
