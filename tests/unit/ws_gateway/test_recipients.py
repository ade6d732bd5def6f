"""The cache of who exists: order kept, failures told, deletion heeded."""

import asyncio

import pytest

from shared.ids import UserId
from tests.support.fake_profile import FakeProfile
from tests.support.manual_clock import ManualClock
from ws_gateway.ports import ProfileServiceUnavailable
from ws_gateway.recipients import Recipients, Verdict


@pytest.fixture
def profile() -> FakeProfile:
    return FakeProfile()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def recipients(profile: FakeProfile, clock: ManualClock) -> Recipients:
    return Recipients(profile, remember_s=300, max_remembered=2, now=clock)


async def ask(recipients: Recipients, user_id: UserId) -> Verdict:
    answered: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
    recipients.when_known(user_id, answered.set_result)
    async with asyncio.timeout(5):
        return await answered


async def test_existing_user_is_remembered_for_a_while(
    profile: FakeProfile, clock: ManualClock, recipients: Recipients
) -> None:
    bob = profile.sign_up("bob").user_id
    assert not recipients.is_known(bob)
    assert await ask(recipients, bob) is True
    assert recipients.is_known(bob)
    clock.advance(299)
    assert recipients.is_known(bob)
    clock.advance(1)
    assert not recipients.is_known(bob)


async def test_missing_user_is_asked_about_again(recipients: Recipients) -> None:
    assert await ask(recipients, UserId("u_x")) is False
    assert not recipients.is_known(UserId("u_x"))


async def test_failure_is_told_and_not_remembered(
    profile: FakeProfile, recipients: Recipients
) -> None:
    bob = profile.sign_up("bob").user_id
    profile.available = False
    assert isinstance(await ask(recipients, bob), ProfileServiceUnavailable)
    profile.available = True
    assert await ask(recipients, bob) is True


async def test_all_who_wait_share_a_look_up_and_are_answered_in_order(
    profile: FakeProfile, recipients: Recipients
) -> None:
    bob = profile.sign_up("bob").user_id
    profile.lookups.close()
    answers: list[int] = []
    for number in range(5):
        recipients.when_known(bob, lambda _, number=number: answers.append(number))  # type: ignore[misc]
    await profile.lookups.arrivals(1)
    recipients.remember(bob)  # by another way, while they still wait
    assert not recipients.is_known(bob)
    profile.lookups.open()
    await recipients.settled()
    assert answers == [0, 1, 2, 3, 4]
    assert recipients.is_known(bob)


async def test_deleted_user_is_forgotten(profile: FakeProfile, recipients: Recipients) -> None:
    bob = profile.sign_up("bob").user_id
    await ask(recipients, bob)
    recipients.forget(bob)
    recipients.forget(bob)
    assert not recipients.is_known(bob)


async def test_oldest_is_forgotten_when_too_many_are_remembered(recipients: Recipients) -> None:
    for name in ("u_1", "u_2", "u_3"):
        recipients.remember(UserId(name))
    known = [recipients.is_known(UserId(name)) for name in ("u_1", "u_2", "u_3")]
    assert known == [False, True, True]


async def test_settled_waits_for_every_answer(profile: FakeProfile, recipients: Recipients) -> None:
    await recipients.settled()
    profile.lookups.close()
    answers: list[Verdict] = []
    recipients.when_known(UserId("u_x"), answers.append)
    settled = asyncio.create_task(recipients.settled())
    await profile.lookups.arrivals(1)
    assert not settled.done()
    profile.lookups.open()
    await settled
    assert answers == [False]
