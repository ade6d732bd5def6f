"""Passwords are judged and hashed within bounds."""

import asyncio
import threading
import time
from collections.abc import Iterator

import argon2
import pytest

from profile_service.errors import Overloaded
from profile_service.passwords import BoundedExecutor, Passwords

HASHER = argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)


@pytest.fixture
def executor() -> Iterator[BoundedExecutor]:
    executor = BoundedExecutor("test", threads=1, max_waiting=1)
    yield executor
    executor.close()


@pytest.fixture
def passwords(executor: BoundedExecutor) -> Passwords:
    return Passwords(HASHER, executor, executor)


async def test_a_hash_verifies_its_password_and_no_other(passwords: Passwords) -> None:
    hashed = await passwords.hash("correct horse")
    assert hashed.startswith("$argon2id$v=19$m=8,t=1,p=1$")
    assert await passwords.verify("correct horse", hashed)
    assert not await passwords.verify("correct hors", hashed)


async def test_nobodys_hash_costs_the_same_and_never_matches(passwords: Passwords) -> None:
    parameters = argon2.extract_parameters(passwords._hash_of_nobody)
    assert parameters == argon2.extract_parameters(await passwords.hash("x"))
    assert not await passwords.verify("anything", None)


async def test_raised_parameters_ask_for_a_rehash(executor: BoundedExecutor) -> None:
    old = await Passwords(HASHER, executor, executor).hash("x")
    harder = argon2.PasswordHasher(time_cost=2, memory_cost=8, parallelism=1)
    assert Passwords(harder, executor, executor).needs_rehash(old)
    assert not Passwords(HASHER, executor, executor).needs_rehash(old)


@pytest.mark.parametrize(
    ("password", "weak"),
    [
        ("correct horse battery", False),
        ("x9#kQ2!vLp", False),
        ("short", True),
        ("password", True),
        ("robert-tables", True),
        ("Duet-duet", True),
        ("a" * 128, True),
        ("a" * 129, True),
        ("Tr0ub4dour" * 12, False),
    ],
)
async def test_judgement(passwords: Passwords, password: str, weak: bool) -> None:
    faults = await passwords.judge(password, ["robert-tables", ""])
    assert bool(faults) == weak
    assert all(fault.pointer == "/password" and fault.detail for fault in faults)


async def test_a_password_that_can_be_read_in_hundreds_of_ways_is_judged_as_soon(
    passwords: Passwords,
) -> None:
    await passwords.judge("correct horse battery", [])  # loads the lists of words
    started_s = time.process_time()
    assert await passwords.judge("!$%(+0123456789<@[{|" + "zq9-x.kv" * 6, []) == []
    assert time.process_time() - started_s < 1


async def test_a_weak_password_comes_with_advice(passwords: Passwords) -> None:
    details = [fault.detail for fault in await passwords.judge("password1", [])]
    assert len(details) >= 2


async def test_what_does_not_fit_is_refused_at_once(executor: BoundedExecutor) -> None:
    release = threading.Event()
    running = asyncio.create_task(executor.run(release.wait))
    waiting = asyncio.create_task(executor.run(release.wait))
    await asyncio.sleep(0)
    with pytest.raises(Overloaded) as refused:
        await executor.run(release.wait)
    assert refused.value.retry_after_s == 1
    release.set()
    assert all(await asyncio.gather(running, waiting))
    assert await executor.run(release.wait)


async def test_a_caller_that_leaves_keeps_its_place_until_the_work_is_done(
    executor: BoundedExecutor,
) -> None:
    release = threading.Event()
    leaving = asyncio.create_task(executor.run(release.wait))
    await asyncio.sleep(0)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    assert executor.pending == 1
    release.set()
    await executor.run(release.wait)
    assert executor.pending == 0


async def test_an_error_reaches_the_caller(executor: BoundedExecutor) -> None:
    def fail() -> None:
        raise LookupError

    with pytest.raises(LookupError):
        await executor.run(fail)
    assert executor.pending == 0
