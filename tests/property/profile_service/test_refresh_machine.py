"""Refresh tokens under lost answers, retries, races and theft, for thousands of histories."""

import asyncio

import hypothesis.strategies as st
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from profile_service.errors import InvalidAccessToken, InvalidRefreshToken
from profile_service.key_watch import KeyWatch
from profile_service.metrics import Metrics
from profile_service.ports import AuditEntry
from profile_service.revocations import RevocationFeed
from profile_service.rotation import RotationRule, Session
from profile_service.rotations import Confirmations, RotationGroups
from profile_service.sessions import Sessions
from profile_service.tokens import KeyRing, TokenAuthority
from profile_service.users import Profile, User
from shared.ids import SessionId, UserId
from shared.introspection import IssuedTokens, TokenPair
from tests.support.profile_service import (
    ManualClock,
    MemorySessionStore,
    MemoryStorage,
    MemoryUserStore,
    UnchangedKeys,
)

GRACE_S = 30
ACCESS_LIFETIME_S = 600
KEYS = KeyRing(Ed25519PrivateKey.generate(), {})
USER = User(
    id=UserId("u_one"),
    username="bob",
    profile=Profile(),
    token_version=1,
    revision=1,
    created_at_ms=0,
    updated_at_ms=0,
)
SESSION_ID = SessionId("s_one")


class RefreshMachine(RuleBasedStateMachine):
    """An honest client that may lose any answer, and a thief who has every token ever issued."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.clock = ManualClock()
        self.storage = MemoryStorage()
        store = MemorySessionStore(self.storage)
        self.tokens = TokenAuthority(
            KEYS,
            issuer="duet",
            audience="duet",
            access_lifetime_s=ACCESS_LIFETIME_S,
            refresh_lifetime_s=10**7,
            now=self.clock,
        )
        rotations = RotationGroups(
            store,
            rule=RotationRule(grace_ms=GRACE_S * 1000, burst=10**6),
            refresh_lifetime_s=10**7,
            now_ms=self.now_ms,
        )
        self.sessions = Sessions(
            store=store,
            rotations=rotations,
            confirmations=Confirmations(store),
            tokens=self.tokens,
            keys=KeyWatch(UnchangedKeys(KEYS), self.tokens, monotonic=self.clock),
            feed=RevocationFeed(store),
            metrics=Metrics(),
            now_ms=self.now_ms,
        )
        session = Session(
            id=SESSION_ID,
            user_id=USER.id,
            device_name=None,
            user_agent=None,
            generation=1,
            confirmed_generation=0,
            rotated_at_ms=self.now_ms(),
            created_at_ms=self.now_ms(),
            expires_at_ms=self.now_ms() + 10**10,
        )
        audit = AuditEntry(at_ms=self.now_ms(), kind="sign_up")
        self.runner.run(MemoryUserStore(self.storage).create_user(USER, "hash", session, audit))
        self.held = self.tokens.issue(session, 1)
        self.shown = 0
        self.issued: list[tuple[int, IssuedTokens]] = [(1, self.held)]
        self.stolen = False

    def teardown(self) -> None:
        self.runner.close()

    def now_ms(self) -> int:
        return int(self.clock() * 1000)

    @property
    def session(self) -> Session:
        return self.storage.sessions[SESSION_ID]

    def refresh(self, tokens: IssuedTokens) -> IssuedTokens:
        refreshed = self.runner.run(self.sessions.refresh(tokens.refresh_token, address=None))
        self.issued.append((refreshed.live.session.generation, refreshed.tokens))
        return refreshed.tokens

    def show(self, tokens: IssuedTokens) -> None:
        claims = self.tokens.check_refresh(tokens.refresh_token)
        self.shown = max(self.shown, claims.gen)

    @precondition(lambda self: not self.stolen)
    @rule(arrives=st.booleans())
    def client_refreshes(self, arrives: bool) -> None:
        before = self.session.generation
        tokens = self.refresh(self.held)
        assert self.session.generation - before in {0, 1}
        if arrives:
            self.held = tokens

    @precondition(lambda self: not self.stolen)
    @rule(times=st.integers(2, 50), arriving=st.booleans())
    def client_races_itself(self, times: int, arriving: bool) -> None:
        before = self.session.generation
        held = self.held.refresh_token

        async def race() -> list[IssuedTokens]:
            racing = [self.sessions.refresh(held, address=None) for _ in range(times)]
            return [refreshed.tokens for refreshed in await asyncio.gather(*racing)]

        answers = self.runner.run(race())
        assert self.session.generation - before in {0, 1}
        self.issued += [(self.session.generation, tokens) for tokens in answers]
        if arriving:
            self.held = answers[-1]

    @precondition(lambda self: not self.stolen)
    @rule(with_refresh_token=st.booleans())
    def client_connects(self, with_refresh_token: bool) -> None:
        before = self.session.generation
        pair = TokenPair(
            self.held.access_token, self.held.refresh_token if with_refresh_token else None
        )
        expired = self.tokens.is_expired(
            self.tokens.check_access(self.held.access_token, even_expired=True)
        )
        (answer,) = self.runner.run(self.sessions.introspect([pair]))
        assert answer.active == (with_refresh_token or not expired)
        if answer.tokens is not None:
            self.held = answer.tokens
            self.issued.append((self.session.generation, answer.tokens))
            assert self.session.generation - before in {0, 1}
        elif answer.active:
            assert self.session.generation == before
            self.show(self.held)

    @rule(seconds=st.sampled_from([1, GRACE_S - 1, GRACE_S + 1, ACCESS_LIFETIME_S]))
    def time_passes(self, seconds: int) -> None:
        self.clock.advance(seconds)

    @precondition(lambda self: not self.stolen)
    @rule(data=st.data())
    def thief_replays(self, data: st.DataObject) -> None:
        generation = self.session.generation
        grace_over = self.now_ms() - self.session.rotated_at_ms > GRACE_S * 1000
        used_up = [
            tokens
            for issued_for, tokens in self.issued
            if issued_for < generation - 1
            or (issued_for == generation - 1 and grace_over and self.shown == generation)
        ]
        if not used_up:
            return
        with pytest.raises(InvalidRefreshToken):
            self.refresh(data.draw(st.sampled_from(used_up)))
        self.stolen = True

    @precondition(lambda self: self.stolen)
    @rule()
    def nobody_gets_in_any_more(self) -> None:
        for _, tokens in self.issued:
            with pytest.raises(InvalidRefreshToken):
                self.refresh(tokens)
            with pytest.raises(InvalidAccessToken):
                self.runner.run(self.sessions.authenticate(tokens.access_token))

    @invariant()
    def theft_is_noted_once_and_nothing_else_is_taken_for_it(self) -> None:
        reuses = [entry for entry in self.storage.audit if entry.kind == "reuse"]
        assert len(reuses) == len(self.storage.feed) == self.stolen
        assert (self.session.ended_at_ms is not None) == self.stolen


RefreshMachine.TestCase.settings = settings(
    max_examples=120, stateful_step_count=30, deadline=None, derandomize=True
)
TestRefreshMachine = RefreshMachine.TestCase
