"""Passwords: hashed with argon2id beside the event loop, and judged by how guessable they are."""

import asyncio
import base64
import concurrent.futures
import itertools
import secrets
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import argon2

from profile_service.errors import Fault, Overloaded

__all__ = ["MAX_PASSWORD_CHARACTERS", "BoundedExecutor", "Passwords"]

MIN_PASSWORD_CHARACTERS = 8
MAX_PASSWORD_CHARACTERS = 128
MIN_STRENGTH = 3
"""Of zxcvbn's 0 to 4: at least 10^8 guesses, safe against online guessing."""
MAX_JUDGED_CHARACTERS = 72
"""zxcvbn refuses longer ones."""
MAX_JUDGED_SUBSTRINGS = 50_000
"""zxcvbn looks up every substring, about one a microsecond, and does so again for each way to read
digits and signs as letters (`4` as `a`, `1` as `i` or `l`): a password can have hundreds of them,
and would take seconds, for which everybody else's would wait."""

T = TypeVar("T")


class BoundedExecutor:
    """A few threads and a bounded number of calls that wait for one.

    A call that does not fit is refused at once, so that a flood makes some people wait a second and
    the others try again, rather than all wait for ever.
    """

    def __init__(self, name: str, *, threads: int, max_waiting: int) -> None:
        self._threads = concurrent.futures.ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._capacity = threads + max_waiting
        self._pending = 0

    @property
    def pending(self) -> int:
        """How many calls run or wait."""
        return self._pending

    async def run(self, function: Callable[..., T], *arguments: Any) -> T:
        """Call the function in a thread.

        Raises:
            Overloaded: too many calls wait.
        """
        if self._pending >= self._capacity:
            raise Overloaded(retry_after_s=1)
        self._pending += 1
        call = asyncio.get_running_loop().run_in_executor(self._threads, function, *arguments)
        call.add_done_callback(self._finished)
        return await asyncio.shield(call)

    def close(self) -> None:
        """Let the threads end."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _finished(self, call: asyncio.Future[Any]) -> None:
        self._pending -= 1
        if not call.cancelled():
            call.exception()  # a caller that went away leaves nobody to retrieve it


class Passwords:
    """Hashes, verifies and judges passwords. Any coroutine may call it.

    A hash carries its own parameters, so that they can be raised later (`needs_rehash`).
    """

    def __init__(
        self, hasher: argon2.PasswordHasher, hashing: BoundedExecutor, judging: BoundedExecutor
    ) -> None:
        """`judging` must have one thread: zxcvbn changes a global."""
        self._hasher = hasher
        self._hashing = hashing
        self._judging = judging
        self._hash_of_nobody = (
            f"$argon2id$v=19$m={hasher.memory_cost},t={hasher.time_cost},p={hasher.parallelism}"
            f"${_unpadded(hasher.salt_len)}${_unpadded(hasher.hash_len)}"
        )

    async def hash(self, password: str) -> str:
        """Hash a new password.

        Raises:
            Overloaded: too many are waiting.
        """
        return await self._hashing.run(self._hasher.hash, _normal(password))

    async def verify(self, password: str, password_hash: str | None) -> bool:
        """Check a password; against the hash of nobody (None), this takes as long and fails.

        Raises:
            Overloaded: too many are waiting.
        """
        return await self._hashing.run(
            self._verify, _normal(password), password_hash or self._hash_of_nobody
        )

    def needs_rehash(self, password_hash: str) -> bool:
        """Tell whether the hash was made with other parameters than are in force."""
        return self._hasher.check_needs_rehash(password_hash)

    async def judge(
        self, password: str, known_words: Sequence[str], pointer: str = "/password"
    ) -> list[Fault]:
        """Say what is wrong with a new password; `known_words` are about the person.

        Raises:
            Overloaded: too many are waiting.
        """
        password = _normal(password)
        if not MIN_PASSWORD_CHARACTERS <= len(password) <= MAX_PASSWORD_CHARACTERS:
            return [
                Fault(
                    pointer,
                    f"use {MIN_PASSWORD_CHARACTERS} to {MAX_PASSWORD_CHARACTERS} characters",
                )
            ]
        reasons = await self._judging.run(_weaknesses, password, [*known_words, "duet"])
        return [Fault(pointer, reason) for reason in reasons]

    def _verify(self, password: str, password_hash: str) -> bool:
        try:
            return self._hasher.verify(password_hash, password)
        except argon2.exceptions.VerifyMismatchError:
            return False


def _weaknesses(password: str, known_words: Sequence[str]) -> list[str]:
    import zxcvbn  # noqa: PLC0415 - its word lists take a while to load; not at start

    result = zxcvbn.zxcvbn(_judged_part(password), user_inputs=known_words)
    return list(_explain(result)) if result["score"] < MIN_STRENGTH else []


def _judged_part(password: str) -> str:
    """Return as much of the beginning as can be judged in time: what follows makes it no weaker."""
    from zxcvbn import matching  # noqa: PLC0415 - as above

    judged = password[:MAX_JUDGED_CHARACTERS]
    signs = set(itertools.chain.from_iterable(matching.L33T_TABLE.values()))
    readings = 1
    for length, character in enumerate(judged, 1):
        if character in signs and character not in judged[: length - 1]:
            table = matching.relevant_l33t_subtable(judged[:length], matching.L33T_TABLE)
            readings = len(matching.enumerate_l33t_subs(table))
        if readings * length**2 > MAX_JUDGED_SUBSTRINGS:
            return judged[: length - 1]
    return judged


def _explain(result: dict[str, Any]) -> Iterator[str]:
    feedback = result["feedback"]
    yield feedback["warning"] or "This password is too easy to guess."
    yield from feedback["suggestions"]


def _normal(password: str) -> str:
    """Give the same password one form, however a device composes it (RFC 8265, OpaqueString)."""
    return unicodedata.normalize("NFC", password)


def _unpadded(length: int) -> str:
    return base64.b64encode(secrets.token_bytes(length)).decode().rstrip("=")
