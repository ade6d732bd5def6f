"""Two services on one PostgreSQL, at the same moment: what one call promises holds among them."""

import asyncio
import dataclasses
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import msgspec
import pytest

from profile_service.adapters.postgres_news import listening
from profile_service.adapters.postgres_rows import append_revocations
from profile_service.adapters.postgres_sessions import PostgresSessionStore
from profile_service.adapters.postgres_throttle import PostgresThrottle
from profile_service.adapters.postgres_users import PostgresUserStore
from profile_service.allowances import Charge, Limit
from profile_service.errors import UsernameTaken
from profile_service.external_people import ExternalIdentity
from profile_service.ports import AuditEntry, LiveSession
from profile_service.revocations import KeepAlive, Ready, RevocationFeed, Revoked
from profile_service.rotation import (
    MAX_SESSIONS_PER_USER,
    Decision,
    PresentedRefresh,
    RotationRule,
    Session,
)
from profile_service.users import Profile, User
from shared.ids import new_session_id, new_user_id
from shared.postgres import Connection, Postgres
from shared.revocation import Revocation
from tests.support.postgres import Databases, somebody_waits
from tests.support.profile_postgres import migrated_url, opened_postgres
from tests.support.profile_service import ManualClock
from tests.support.waiting import until

NOW_MS = 1_700_000_000_000
AUDIT = AuditEntry(at_ms=NOW_MS, kind="login")


@dataclasses.dataclass
class Side:
    """One of the services: a pool of its own."""

    database: Postgres
    users: PostgresUserStore
    sessions: PostgresSessionStore


@pytest.fixture
async def sides(postgres_databases: Databases) -> AsyncIterator[list[Side]]:
    url = migrated_url(postgres_databases)
    async with opened_postgres(url) as first, opened_postgres(url) as second:
        yield [
            Side(database, PostgresUserStore(database), PostgresSessionStore(database))
            for database in (first, second)
        ]


def new_user(name: str) -> User:
    return User(
        id=new_user_id(),
        username=name,
        profile=Profile(),
        token_version=1,
        revision=1,
        created_at_ms=NOW_MS,
        updated_at_ms=NOW_MS,
    )


def new_session(user: User) -> Session:
    return Session(
        id=new_session_id(),
        user_id=user.id,
        device_name=None,
        user_agent=None,
        generation=1,
        confirmed_generation=0,
        rotated_at_ms=NOW_MS,
        created_at_ms=NOW_MS,
        expires_at_ms=NOW_MS + 10_000,
    )


async def add(side: Side, name: str = "bob") -> tuple[User, Session]:
    user = new_user(name)
    session = new_session(user)
    await side.users.create_user(user, "hash", session, AUDIT)
    return user, session


def presented(session: Session, generation: int = 1, version: int = 1) -> PresentedRefresh:
    return PresentedRefresh(
        session_id=session.id,
        user_id=session.user_id,
        token_version=version,
        generation=generation,
    )


async def rotate(side: Side, *tokens: PresentedRefresh) -> list[Decision]:
    rotations = await side.sessions.rotate(
        [(token, AUDIT) for token in tokens],
        now_ms=NOW_MS,
        rule=RotationRule(grace_ms=1000, burst=100),
        expires_at_ms=NOW_MS + 20_000,
    )
    return [rotation.decision for rotation in rotations]


async def live(side: Side, session: Session) -> LiveSession | None:
    found = await side.sessions.live_sessions([session.id], NOW_MS)
    return found[0] if found else None


async def feed(side: Side) -> list[Revocation]:
    return [entry.revocation for entry in await side.sessions.revocations_after(0, 10_000)]


async def test_50_refreshes_of_one_token_over_two_services_are_one_step(
    sides: list[Side],
) -> None:
    _, session = await add(sides[0])
    refreshes = [rotate(sides[number % 2], presented(session)) for number in range(50)]
    decisions = Counter(decision for [decision] in await asyncio.gather(*refreshes))
    assert decisions == {Decision.ROTATE: 1, Decision.REISSUE: 49}
    found = await live(sides[1], session)
    assert found is not None
    assert found.session.generation == 2


async def test_of_two_sign_ups_with_one_name_one_wins(sides: list[Side]) -> None:
    for attempt in range(10):
        names = [f"bob{attempt}", f"BOB{attempt}"]
        outcomes = await asyncio.gather(
            *(add(side, name) for side, name in zip(sides, names, strict=True)),
            return_exceptions=True,
        )
        refused = [outcome for outcome in outcomes if isinstance(outcome, UsernameTaken)]
        assert len(refused) == 1
        assert len([outcome for outcome in outcomes if isinstance(outcome, tuple)]) == 1


async def test_of_two_first_sign_ins_of_one_external_person_one_makes_the_user(
    sides: list[Side],
) -> None:
    for attempt in range(10):
        identity = ExternalIdentity("https://shop.example", str(attempt))

        async def sign_in(
            side: Side, first_name: str, identity: ExternalIdentity = identity
        ) -> User | None:
            user = new_user("")
            return await side.users.create_external_user(
                user, [first_name], identity, new_session(user), AUDIT
            )

        made = await asyncio.gather(
            *(sign_in(side, f"zoe-{attempt}-{number}") for number, side in enumerate(sides))
        )
        (winner,) = (user for user in made if user is not None)
        assert await sides[0].users.user_by_identity(identity) == winner
        other = f"zoe-{attempt}-{1 - made.index(winner)}"
        assert await sides[0].users.user_by_name(other) is None


async def test_log_out_everywhere_beats_every_refresh_that_races_it(sides: list[Side]) -> None:
    user, session = await add(sides[0])
    for version in range(1, 20):
        token = presented(session, version=version)
        (refreshed,), _ = await asyncio.gather(
            rotate(sides[version % 2], token),
            sides[(version + 1) % 2].sessions.end_all_sessions(user.id, AUDIT),
        )
        assert refreshed in {Decision.ROTATE, Decision.REFUSE}
        assert await live(sides[0], session) is None
        assert await rotate(sides[1], token) == [Decision.REFUSE]
        assert len(await feed(sides[1])) == version
        session = new_session(user)
        assert await sides[0].sessions.create_session(
            session, expected_version=version + 1, audit=AUDIT
        )


async def test_a_log_in_that_races_a_password_change_is_of_the_new_password_or_refused(
    sides: list[Side],
) -> None:
    user, kept = await add(sides[0])
    for version in range(1, 15):
        other = new_session(user)
        stored, changed = await asyncio.gather(
            sides[0].sessions.create_session(other, expected_version=version, audit=AUDIT),
            sides[1].users.change_password(kept, "new", expected_version=version, audit=AUDIT),
        )
        assert changed is not None
        assert changed.user.token_version == version + 1
        assert await live(sides[0], other) is None, stored


async def test_the_limit_of_sessions_holds_for_log_ins_at_both(sides: list[Side]) -> None:
    user, _ = await add(sides[0])
    sessions = [
        msgspec.structs.replace(new_session(user), rotated_at_ms=NOW_MS + number)
        for number in range(MAX_SESSIONS_PER_USER + 10)
    ]
    await asyncio.gather(
        *(
            sides[number % 2].sessions.create_session(session, expected_version=1, audit=AUDIT)
            for number, session in enumerate(sessions)
        )
    )
    assert len(await sides[0].sessions.sessions_of(user.id, NOW_MS)) == MAX_SESSIONS_PER_USER
    assert len(await feed(sides[0])) == 11


async def test_a_revocation_that_commits_late_is_not_skipped(sides: list[Side]) -> None:
    appended, commit = asyncio.Event(), asyncio.Event()
    user_ids = [new_user_id() for _ in range(3)]

    async def append(number: int, then: Callable[[], Awaitable[None]]) -> None:
        async def transaction(connection: Connection) -> None:
            revocation = Revocation("user_deleted", user_ids[number])
            await append_revocations(connection, [revocation], NOW_MS)
            await then()

        await sides[number % 2].database.write(transaction)

    async def wait() -> None:
        appended.set()
        await commit.wait()

    async def go_on() -> None:
        pass

    early = asyncio.create_task(append(0, wait))
    await appended.wait()
    late = asyncio.create_task(append(1, go_on))
    await sides[0].database.read(somebody_waits)
    assert await feed(sides[0]) == []
    commit.set()
    await asyncio.gather(early, late)
    await append(2, go_on)
    entries = await sides[1].sessions.revocations_after(0, 10)
    assert [entry.at.position for entry in entries] == [1, 2, 3]
    assert [entry.revocation.user_id for entry in entries] == user_ids


async def test_a_rolled_back_revocation_leaves_no_gap(sides: list[Side]) -> None:
    async def fail(connection: Connection) -> None:
        await append_revocations(connection, [Revocation("user_deleted", new_user_id())], NOW_MS)
        raise KeyError

    start = await sides[0].sessions.feed_end()
    with pytest.raises(KeyError):
        await sides[0].database.write(fail)
    assert await sides[0].sessions.feed_end() == start
    user, session = await add(sides[0])
    await sides[0].sessions.end_session(user.id, session.id, AUDIT)
    assert (await sides[1].sessions.feed_end()).position == 1
    assert await sides[1].sessions.feed_has(start)


async def test_followers_at_one_hear_at_once_of_what_ends_at_the_other(sides: list[Side]) -> None:
    user, session = await add(sides[0])
    following = RevocationFeed(sides[1].sessions, keepalive_s=60)
    async with listening(sides[1].database, following.notify), asyncio.timeout(10):
        items = following.follow(None)
        assert isinstance(await anext(items), Ready)
        waiting = asyncio.ensure_future(anext(items))
        await sides[0].sessions.end_session(user.id, session.id, AUDIT)
        revoked = await waiting
        assert isinstance(revoked, Revoked)
        assert revoked.revocation.session_id == session.id
        await items.aclose()


async def test_followers_hear_of_it_a_little_later_when_no_wake_up_comes(
    sides: list[Side],
) -> None:
    user, session = await add(sides[0])
    items = RevocationFeed(sides[1].sessions, keepalive_s=0.01).follow(None)
    assert isinstance(await anext(items), Ready)
    assert isinstance(await anext(items), KeepAlive)
    await sides[0].sessions.end_session(user.id, session.id, AUDIT)
    async with asyncio.timeout(10):
        revoked = await anext(items)
        while isinstance(revoked, KeepAlive):
            revoked = await anext(items)
    assert isinstance(revoked, Revoked)
    assert revoked.revocation.session_id == session.id
    await items.aclose()


async def test_the_listener_comes_back_and_wakes_everybody(
    sides: list[Side], postgres_databases: Databases
) -> None:
    wake_ups = 0

    def count() -> None:
        nonlocal wake_ups
        wake_ups += 1

    async with listening(sides[1].database, count):
        await until(lambda: wake_ups == 1)
        await sides[0].database.read(
            lambda connection: connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND query LIKE 'LISTEN%'"
            )
        )
        await until(lambda: wake_ups == 2)


async def test_the_listener_outlives_a_fault_of_our_own(
    sides: list[Side], caplog: pytest.LogCaptureFixture
) -> None:
    wake_ups = 0

    def fail_at_first() -> None:
        nonlocal wake_ups
        wake_ups += 1
        if wake_ups == 1:
            raise KeyError("nobody thought of this")

    async with listening(sides[1].database, fail_at_first):
        await until(lambda: wake_ups == 2)
    assert "nobody thought of this" in caplog.text


async def test_attempts_at_both_count_together(sides: list[Side]) -> None:
    clock = ManualClock()
    throttles = [PostgresThrottle(side.database, now=clock) for side in sides]
    both = [Charge(Limit("logins", 10, 300), "bob"), Charge(Limit("addresses", 1000, 300), "net")]
    refusals = await asyncio.gather(
        *(throttles[number % 2].charge(both if number % 3 else both[::-1]) for number in range(40))
    )
    assert refusals.count(None) == 10
    assert len([refusal for refusal in refusals if refusal and refusal.first]) == 1


async def test_no_mixture_of_calls_makes_them_wait_for_each_other(
    sides: list[Side], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.postgres.RETRY_DELAYS_S", ())  # so that a deadlock would show
    chance = random.Random(7)
    people = [await add(sides[0], f"user{number}") for number in range(4)]
    sessions = [session for _, session in people]
    for user, _ in people:
        for _ in range(3):
            sessions.append(new_session(user))
            await sides[0].sessions.create_session(sessions[-1], expected_version=1, audit=AUDIT)

    def call() -> Awaitable[Any]:
        side, (user, _) = chance.choice(sides), chance.choice(people)
        group = chance.sample(sessions, 6)
        match chance.randrange(6):
            case 0:
                return side.sessions.end_all_sessions(user.id, AUDIT)
            case 1:
                kept = chance.choice(sessions)
                return side.users.change_password(kept, "x", expected_version=1, audit=AUDIT)
            case 2:
                return side.sessions.confirm([(session.id, 2) for session in group])
            case 3:
                return side.sessions.create_session(
                    new_session(user), expected_version=chance.randrange(1, 4), audit=AUDIT
                )
            case 4:
                ended = chance.choice(sessions)
                return side.sessions.end_session(ended.user_id, ended.id, AUDIT)
            case _:
                tokens = [presented(session, chance.randrange(1, 3)) for session in group]
                return rotate(side, *tokens)

    for _ in range(20):
        async with asyncio.timeout(5):
            await asyncio.gather(*(call() for _ in range(12)))
