"""Databases that hold many messages already: made once, kept, and used by later runs.

Filling ten million takes a while, so every size is made from the next smaller one. Each is a data
directory of both services, with accounts whose conversations are long, or many.
"""

import secrets
import shutil
from pathlib import Path

import httpx
import msgspec

from bench import tool
from bench.fill import Busy, FillPlan, FillResult, Long
from bench.people import Person
from bench.services import services
from bench.stage import say

__all__ = ["BUSY", "LONG", "Account", "Filled", "data_directory", "log_in"]

LONG = (1_000, 10_000, 100_000, 1_000_000)
"""Messages of conversations that are filled on purpose, where the database has room for them."""
BUSY = (10, 100, 1_000, 10_000, 100_000)
"""Conversations of people who are given so many."""

_ROOM = 8
"""What is made on purpose is at most such a part of the whole."""
_NAME = "filled.json"
_TIMEOUT_S = 3 * 3600.0


class Account(msgspec.Struct, frozen=True):
    """Somebody who has signed up, and can log in."""

    user_id: str
    username: str
    password: str


class Filled(msgspec.Struct, frozen=True, kw_only=True):
    """A data directory: what is in it, and what filling it took, from the smallest size on."""

    messages: int
    long: dict[int, tuple[Account, Account]]
    """By length: who wrote the conversation, and to whom."""
    busy: dict[int, tuple[Account, Account]]
    """By number of conversations: who has them, and one of the others."""
    steps: list[FillResult]

    @property
    def longest(self) -> int:
        """The length of the longest conversation that was made on purpose."""
        return max(length for length in self.long if length <= self.messages // _ROOM)


def data_directory(root: Path, messages: int) -> tuple[Path, Filled]:
    """Return a data directory with so many messages, made now when it is not there."""
    directory = root / str(messages)
    if not (directory / _NAME).exists():
        root.mkdir(parents=True, exist_ok=True)
        _make(root, directory, messages)
    return directory, msgspec.json.decode((directory / _NAME).read_bytes(), type=Filled)


def log_in(profile_url: str, account: Account) -> Person:
    """Open a session for an account.

    Raises:
        httpx.HTTPError: the profile service refuses.
    """
    with httpx.Client(base_url=profile_url, trust_env=False, timeout=30.0) as client:
        response = client.post(
            "/v1/sessions", json={"username": account.username, "password": account.password}
        )
        response.raise_for_status()
        body = response.json()
        return Person(account.user_id, body["access_token"], body["refresh_token"])


def _make(root: Path, directory: Path, messages: int) -> None:
    partial = directory.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    smaller = [int(d.name) for d in root.iterdir() if d.name.isdigit() and int(d.name) < messages]
    if smaller:
        say(f"copying the database of {max(smaller):,} messages")
        shutil.copytree(root / str(max(smaller)), partial)
        before = msgspec.json.decode((partial / _NAME).read_bytes(), type=Filled)
    else:
        partial.mkdir()
        before = _with_accounts(partial)
    say(f"filling a database up to {messages:,} messages")
    room = range(before.messages // _ROOM + 1, messages // _ROOM + 1)
    plan = FillPlan(
        directory=str(partial),
        messages=messages,
        long=[
            Long(one.user_id, other.user_id, size)
            for size, (one, other) in before.long.items()
            if size in room
        ],
        busy=[
            Busy(one.user_id, other.user_id, size)
            for size, (one, other) in before.busy.items()
            if size in room
        ],
    )
    result = tool.run("bench.fill", plan, FillResult, timeout_s=_TIMEOUT_S)
    say(
        f"{result.written:,} messages in {result.append_s:,.0f} s, indexed for search in "
        f"{result.index_s:,.0f} s: {result.file_bytes / 1e9:.2f} GB"
    )
    made = msgspec.structs.replace(before, messages=messages, steps=[*before.steps, result])
    (partial / _NAME).write_bytes(msgspec.json.format(msgspec.json.encode(made)))
    partial.rename(directory)


def _with_accounts(directory: Path) -> Filled:
    """Make both databases, and the accounts that are to have a past."""
    with (
        services(directory) as duet,
        httpx.Client(base_url=duet.profile_url, trust_env=False, timeout=30.0) as client,
    ):
        return Filled(
            messages=0,
            long={size: (_sign_up(client), _sign_up(client)) for size in LONG},
            busy={size: (_sign_up(client), _sign_up(client)) for size in BUSY},
            steps=[],
        )


def _sign_up(client: httpx.Client) -> Account:
    username, password = f"bench-{secrets.token_hex(8)}", secrets.token_urlsafe(18)
    response = client.post("/v1/users", json={"username": username, "password": password})
    response.raise_for_status()
    return Account(response.json()["user"]["id"], username, password)
