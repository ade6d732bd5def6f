"""What every `UserStore` and `SessionStore` does: SQLite's, PostgreSQL's, and those in memory."""

import dataclasses
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from profile_service.adapters.postgres_sessions import PostgresSessionStore
from profile_service.adapters.postgres_users import PostgresUserStore
from profile_service.adapters.sqlite_sessions import SqliteSessionStore
from profile_service.adapters.sqlite_stores import MIGRATIONS
from profile_service.adapters.sqlite_users import SqliteUserStore
from profile_service.errors import UsernameTaken
from profile_service.external_people import ExternalIdentity
from profile_service.ports import AuditEntry, FeedPosition, SessionStore, UserStore
from profile_service.rotation import (
    MAX_SESSIONS_PER_USER,
    Decision,
    PresentedRefresh,
    RotationRule,
    Session,
)
from profile_service.users import Profile, User
from shared.ids import SessionId, UserId, new_session_id, new_user_id
from shared.revocation import HeldSession, Revocation
from shared.sqlite import Database
from tests.support.profile_postgres import migrated_postgres
from tests.support.profile_service import MemorySessionStore, MemoryStorage, MemoryUserStore

NOW_MS = 1_700_000_000_000
LATER_MS = NOW_MS + 1_000_000
ZOE = ExternalIdentity("https://shop.example", "42")


@dataclasses.dataclass
class Stores:
    users: UserStore
    sessions: SessionStore

    async def add(self, username: str) -> tuple[User, Session]:
        user = new_user(username)
        session = new_session(user)
        await self.users.create_user(user, f"hash of {username}", session, entry("sign_up"))
        return user, session

    async def add_external(
        self, identity: ExternalIdentity, *names: str
    ) -> tuple[User | None, Session]:
        user = new_user("")
        session = new_session(user)
        added = await self.users.create_external_user(
            user, names, identity, session, entry("external_sign_up")
        )
        return added, session

    async def live(self, *sessions: Session) -> set[SessionId]:
        found = await self.sessions.live_sessions([session.id for session in sessions], NOW_MS)
        return {live.session.id for live in found}

    async def feed(self) -> list[Revocation]:
        return [entry.revocation for entry in await self.sessions.revocations_after(0, 1000)]

    async def rotate(self, *tokens: PresentedRefresh, now_ms: int = NOW_MS) -> list[Decision]:
        rotations = await self.sessions.rotate(
            [(token, entry("refresh")) for token in tokens],
            now_ms=now_ms,
            rule=RotationRule(grace_ms=100, burst=100),
            expires_at_ms=LATER_MS,
        )
        return [rotation.decision for rotation in rotations]


def new_user(username: str) -> User:
    return User(
        id=new_user_id(),
        username=username,
        profile=Profile(display_name="Ünï"),
        token_version=1,
        revision=1,
        created_at_ms=NOW_MS,
        updated_at_ms=NOW_MS,
    )


def new_session(user: User) -> Session:
    return Session(
        id=new_session_id(),
        user_id=user.id,
        device_name="phone",
        user_agent=None,
        generation=1,
        confirmed_generation=0,
        rotated_at_ms=NOW_MS,
        created_at_ms=NOW_MS,
        expires_at_ms=NOW_MS + 1000,
    )


def entry(kind: str) -> AuditEntry:
    return AuditEntry(at_ms=NOW_MS, kind=kind, address="192.0.2.1")


def presented(session: Session, generation: int = 1, version: int = 1) -> PresentedRefresh:
    return PresentedRefresh(
        session_id=session.id,
        user_id=session.user_id,
        token_version=version,
        generation=generation,
    )


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
async def stores(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Stores]:
    if request.param == "postgresql":
        async with migrated_postgres(request.getfixturevalue("postgres_databases")) as postgres:
            yield Stores(PostgresUserStore(postgres), PostgresSessionStore(postgres))
        return
    if request.param == "memory":
        storage = MemoryStorage()
        yield Stores(MemoryUserStore(storage), MemorySessionStore(storage))
        return
    database = await Database.open(tmp_path / "users.db", MIGRATIONS)
    yield Stores(SqliteUserStore(database), SqliteSessionStore(database))
    await database.close()


async def test_a_new_user_is_found_by_name_and_id(stores: Stores) -> None:
    user, session = await stores.add("Bob")
    found = await stores.users.credentials("bob")
    assert found is not None
    assert (found.user, found.password_hash) == (user, "hash of Bob")
    assert "hash of" not in repr(found)
    assert await stores.users.user_by_name("bob") == user
    assert await stores.users.users([user.id, UserId("u_nobody")]) == [user]
    (live,) = await stores.sessions.live_sessions([session.id, SessionId("s_none")], NOW_MS)
    assert (live.session, live.user) == (session, user)


async def test_a_name_is_unique_whatever_its_case(stores: Stores) -> None:
    await stores.add("Bob")
    with pytest.raises(UsernameTaken):
        await stores.add("bOB")


async def test_an_external_user_is_found_by_identity_and_has_no_password(stores: Stores) -> None:
    zoe, session = await stores.add_external(ZOE, "zoe")
    assert zoe is not None
    assert zoe.username == "zoe"
    assert await stores.users.user_by_identity(ZOE) == zoe
    assert await stores.users.user_by_identity(ExternalIdentity(ZOE.subject, ZOE.issuer)) is None
    found = await stores.users.credentials("zoe")
    assert found is not None
    assert (found.user, found.password_hash) == (zoe, None)
    assert await stores.live(session) == {session.id}


async def test_an_external_user_gets_the_first_free_name(stores: Stores) -> None:
    bob, _ = await stores.add("Bob")
    added, _ = await stores.add_external(ZOE, "bob", "BOB", "bob-x", "bob-y")
    assert added is not None
    assert added.username == "bob-x"
    assert await stores.users.user_by_name("bob") == bob
    other = ExternalIdentity(ZOE.issuer, "other")
    with pytest.raises(UsernameTaken):
        await stores.add_external(other, "bob", "Bob-X")
    assert await stores.users.user_by_identity(other) is None


async def test_an_identity_has_one_user(stores: Stores) -> None:
    zoe, _ = await stores.add_external(ZOE, "zoe")
    again, session = await stores.add_external(ZOE, "zoe-2")
    assert again is None
    assert await stores.users.user_by_name("zoe-2") is None
    assert await stores.live(session) == set()
    assert await stores.users.user_by_identity(ZOE) == zoe
    for other in (ExternalIdentity("other", ZOE.subject), ExternalIdentity(ZOE.issuer, "other")):
        added, _ = await stores.add_external(other, f"zoe-{other.issuer[:5]}-{other.subject}")
        assert added is not None
        assert added != zoe


async def test_a_deleted_user_leaves_the_identity_and_keeps_the_name(stores: Stores) -> None:
    zoe, _ = await stores.add_external(ZOE, "zoe")
    assert zoe is not None
    assert await stores.users.delete_user(zoe.id, expected_version=1, audit=entry("deletion"))
    assert await stores.users.user_by_identity(ZOE) is None
    assert await stores.users.deleted_users([zoe.id]) == [zoe.id]
    again, _ = await stores.add_external(ZOE, "zoe", "zoe-2")
    assert again is not None
    assert (again.username, again.id == zoe.id) == ("zoe-2", False)


async def test_nobody_is_not_found(stores: Stores) -> None:
    assert await stores.users.credentials("bob") is None
    assert await stores.users.user_by_name("bob") is None
    assert await stores.users.users([]) == []
    assert await stores.sessions.live_sessions([], NOW_MS) == []


async def test_prefix_pages_are_sorted_and_without_overlap(stores: Stores) -> None:
    for name in ["bob", "Bo.b", "bo-b", "bo_b", "alice", "boz", "bz"]:
        await stores.add(name)
    first = await stores.users.users_by_prefix("bo", "", 3)
    rest = await stores.users.users_by_prefix("bo", first[-1].username.lower(), 3)
    assert [user.username for user in first + rest] == ["bo-b", "Bo.b", "bo_b", "bob", "boz"]


async def test_a_profile_changes_only_from_the_expected_revision(stores: Stores) -> None:
    user, _ = await stores.add("bob")
    profile = Profile(bio="new")
    changed = await stores.users.update_profile(
        user.id, profile, expected_revision=1, now_ms=LATER_MS
    )
    assert changed == msgspec.structs.replace(
        user, profile=profile, revision=2, updated_at_ms=LATER_MS
    )
    assert await stores.users.users([user.id]) == [changed]
    late = await stores.users.update_profile(
        user.id, Profile(), expected_revision=1, now_ms=LATER_MS
    )
    assert late is None


async def test_a_rehash_does_not_undo_a_password_change(stores: Stores) -> None:
    user, _ = await stores.add("bob")
    await stores.users.rehash_password(user.id, "another", "lost")
    await stores.users.rehash_password(user.id, "hash of bob", "same, harder")
    found = await stores.users.credentials("bob")
    assert found is not None
    assert found.password_hash == "same, harder"


async def test_a_password_change_keeps_one_session(stores: Stores) -> None:
    user, kept = await stores.add("bob")
    other = new_session(user)
    assert await stores.sessions.create_session(other, expected_version=1, audit=entry("login"))
    live = await stores.users.change_password(
        kept, "new", expected_version=1, audit=entry("password_change")
    )
    assert live is not None
    assert (live.user.token_version, live.session.generation) == (2, 2)
    assert await stores.live(kept, other) == {kept.id}
    assert await stores.feed() == [
        Revocation("all_sessions", user.id, token_version=2, kept_session_id=kept.id)
    ]
    found = await stores.users.credentials("bob")
    assert found is not None
    assert found.password_hash == "new"


async def test_a_password_change_from_a_stale_state_changes_nothing(stores: Stores) -> None:
    user, session = await stores.add("bob")
    audit = entry("password_change")
    assert (
        await stores.users.change_password(session, "new", expected_version=9, audit=audit) is None
    )
    await stores.sessions.end_session(user.id, session.id, entry("revocation"))
    assert (
        await stores.users.change_password(session, "new", expected_version=1, audit=audit) is None
    )
    found = await stores.users.credentials("bob")
    assert found is not None
    assert found.password_hash == "hash of bob"


async def test_a_deleted_user_is_gone_but_the_name_stays_taken(stores: Stores) -> None:
    user, session = await stores.add("bob")
    audit = entry("account_deletion")
    assert not await stores.users.delete_user(user.id, expected_version=9, audit=audit)
    assert await stores.users.deleted_users([user.id]) == []
    assert await stores.users.delete_user(user.id, expected_version=1, audit=audit)
    assert not await stores.users.delete_user(user.id, expected_version=2, audit=audit)
    assert await stores.users.deleted_users([user.id, new_user_id()]) == [user.id]
    assert await stores.users.credentials("bob") is None
    assert await stores.users.users([user.id]) == []
    assert await stores.users.users_by_prefix("b", "", 9) == []
    assert await stores.live(session) == set()
    assert await stores.feed() == [Revocation("user_deleted", user.id)]
    with pytest.raises(UsernameTaken):
        await stores.add("BOB")
    for version in (1, 2):
        assert not await stores.sessions.create_session(
            new_session(user), expected_version=version, audit=entry("login")
        )
    changed = await stores.users.update_profile(
        user.id, Profile(), expected_revision=2, now_ms=NOW_MS
    )
    assert changed is None
    await stores.sessions.end_all_sessions(user.id, entry("revocation"))
    assert len(await stores.feed()) == 1


async def test_sessions_are_listed_while_they_live(stores: Stores) -> None:
    user, first = await stores.add("bob")
    second = msgspec.structs.replace(new_session(user), created_at_ms=NOW_MS + 1)
    assert await stores.sessions.create_session(second, expected_version=1, audit=entry("login"))
    assert await stores.sessions.sessions_of(user.id, NOW_MS) == [first, second]
    assert await stores.sessions.sessions_of(user.id, NOW_MS + 1000) == []
    assert await stores.sessions.end_session(user.id, first.id, entry("revocation"))
    assert not await stores.sessions.end_session(user.id, first.id, entry("revocation"))
    assert await stores.sessions.sessions_of(user.id, NOW_MS) == [second]
    assert await stores.feed() == [Revocation("session", user.id, session_id=first.id)]


async def test_nobody_ends_another_persons_session(stores: Stores) -> None:
    _, session = await stores.add("bob")
    eve, _ = await stores.add("eve")
    assert not await stores.sessions.end_session(eve.id, session.id, entry("revocation"))
    assert await stores.live(session) == {session.id}


async def test_a_session_of_an_old_version_is_not_stored(stores: Stores) -> None:
    user, session = await stores.add("bob")
    await stores.sessions.end_all_sessions(user.id, entry("revocation"))
    assert await stores.live(session) == set()
    assert await stores.feed() == [Revocation("all_sessions", user.id, token_version=2)]
    assert not await stores.sessions.create_session(
        new_session(user), expected_version=1, audit=entry("login")
    )
    assert await stores.sessions.create_session(
        new_session(user), expected_version=2, audit=entry("login")
    )


async def test_the_session_unused_longest_makes_room(stores: Stores) -> None:
    user, first = await stores.add("bob")
    sessions = [first]
    for number in range(1, MAX_SESSIONS_PER_USER + 2):
        at_ms = NOW_MS + number
        session = msgspec.structs.replace(
            new_session(user), created_at_ms=at_ms, rotated_at_ms=at_ms, expires_at_ms=LATER_MS
        )
        assert await stores.sessions.create_session(
            session, expected_version=1, audit=entry("login")
        )
        sessions.append(session)
    assert await stores.live(*sessions) == {session.id for session in sessions[2:]}
    ended = [revocation.session_id for revocation in await stores.feed()]
    assert ended == [session.id for session in sessions[:2]]


async def test_one_group_of_equal_refreshes_is_one_step(stores: Stores) -> None:
    _, session = await stores.add("bob")
    decisions = await stores.rotate(*[presented(session)] * 50)
    assert decisions == [Decision.ROTATE] + [Decision.REISSUE] * 49
    (live,) = await stores.sessions.live_sessions([session.id], NOW_MS)
    assert live.session.generation == 2
    assert live.session.expires_at_ms == LATER_MS


async def test_reuse_ends_the_session_and_says_so_once(stores: Stores) -> None:
    user, session = await stores.add("bob")
    await stores.rotate(presented(session))
    await stores.rotate(presented(session, 2))
    assert await stores.rotate(presented(session), presented(session, 3)) == [
        Decision.REUSE,
        Decision.REFUSE,
    ]
    assert await stores.live(session) == set()
    assert await stores.feed() == [Revocation("session", user.id, session_id=session.id)]


async def test_a_shown_successor_turns_a_late_retry_into_reuse(stores: Stores) -> None:
    _, session = await stores.add("bob")
    await stores.rotate(presented(session))
    assert await stores.rotate(presented(session), now_ms=NOW_MS + 500) == [Decision.REISSUE]
    await stores.sessions.confirm([(session.id, 2), (session.id, 1), (SessionId("s_none"), 1)])
    (live,) = await stores.sessions.live_sessions([session.id], NOW_MS)
    assert live.session.confirmed_generation == 2
    assert await stores.rotate(presented(session), now_ms=NOW_MS + 500) == [Decision.REUSE]


async def test_refused_tokens_change_nothing(stores: Stores) -> None:
    _, session = await stores.add("bob")
    nobody = msgspec.structs.replace(presented(session), session_id=SessionId("s_none"))
    refused = [nobody, presented(session, 2), presented(session, 1, version=0)]
    assert await stores.rotate(*refused) == [Decision.REFUSE] * 3
    assert await stores.live(session) == {session.id}
    assert await stores.feed() == []


async def test_ended_sessions_are_told_from_living_ones(stores: Stores) -> None:
    user, alive = await stores.add("bob")
    other, ended = await stores.add("eve")
    await stores.sessions.end_session(other.id, ended.id, entry("revocation"))
    held = [
        HeldSession(alive.id, user.id, 1),
        HeldSession(ended.id, other.id, 1),
        HeldSession(alive.id, other.id, 1),
        HeldSession(SessionId("s_none"), user.id, 1),
    ]
    assert await stores.sessions.ended(held, NOW_MS) == [ended.id, alive.id, "s_none"]
    assert await stores.sessions.ended(held[:1], NOW_MS + 1000) == [alive.id]


async def test_the_feed_can_be_resumed_from_every_place(stores: Stores) -> None:
    start = await stores.sessions.feed_end()
    assert start.position == 0
    assert await stores.sessions.feed_has(start)
    assert not await stores.sessions.feed_has(FeedPosition(0, "0" * 16))
    user, _ = await stores.add("bob")
    for _ in range(3):
        await stores.sessions.end_all_sessions(user.id, entry("revocation"))
    entries = await stores.sessions.revocations_after(0, 2)
    assert [found.revocation.token_version for found in entries] == [2, 3]
    (last,) = await stores.sessions.revocations_after(entries[-1].at.position, 2)
    assert last.at == await stores.sessions.feed_end()
    for place in [start, *(found.at for found in entries), last.at]:
        assert await stores.sessions.feed_has(place)
    assert not await stores.sessions.feed_has(FeedPosition(last.at.position, start.nonce))
    assert not await stores.sessions.feed_has(FeedPosition(99, last.at.nonce))


async def test_pruning_keeps_the_newest_revocation(stores: Stores) -> None:
    user, session = await stores.add("bob")
    start = await stores.sessions.feed_end()
    for _ in range(3):
        await stores.sessions.end_all_sessions(user.id, entry("revocation"))
    await stores.sessions.append_audit(entry("throttle"))
    removed = await stores.sessions.prune(
        sessions_ms=LATER_MS, revocations_ms=LATER_MS, audit_ms=LATER_MS
    )
    assert removed == 1 + 2 + 5
    end = await stores.sessions.feed_end()
    assert end.position == 3
    assert await stores.sessions.feed_has(end)
    assert not await stores.sessions.feed_has(start)
    again = await stores.sessions.prune(
        sessions_ms=LATER_MS, revocations_ms=LATER_MS, audit_ms=LATER_MS
    )
    assert again == 0
    assert await stores.live(session) == set()


async def test_text_that_cannot_be_stored_is_nobody(stores: Stores) -> None:
    await stores.add("bob")
    assert await stores.users.user_by_name("bob\0") is None
    assert await stores.users.credentials("bob\0") is None
    assert await stores.users.users([UserId("\0")]) == []
    assert await stores.users.deleted_users([UserId("\0")]) == []
    assert await stores.users.user_by_identity(ExternalIdentity("\0", "42")) is None
    assert await stores.sessions.live_sessions([SessionId("\0")], NOW_MS) == []


async def test_a_store_answers(stores: Stores) -> None:
    await stores.sessions.ping()
