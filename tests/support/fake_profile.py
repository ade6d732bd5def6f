"""The profile service as the gateway sees it, in memory, with faults to switch on."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Sequence

import msgspec

from shared.ids import SessionId, UserId, new_session_id, new_user_id
from shared.introspection import IssuedTokens, TokenPair
from shared.revocation import HeldSession, Revocation
from tests.support.waiting import Gate
from ws_gateway.identity import Identity
from ws_gateway.ports import FeedEvent, FeedReady, FeedReset, ProfileServiceUnavailable

__all__ = ["FakeProfile", "FakeSession"]


class FakeSession(msgspec.Struct):
    """A logged-in device."""

    user_id: UserId
    username: str
    id: SessionId
    token_version: int
    access_token: str
    refresh_token: str
    expires_at: float


class FakeProfile:
    """A `ProfileService` without a network. Also what a person does at the real one.

    Passes the same contract tests as `ProfileClient` on a running profile service.
    """

    def __init__(self, *, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._users: dict[UserId, str] = {}
        self._deleted: set[UserId] = set()
        self._versions: dict[UserId, int] = {}
        self._sessions: dict[SessionId, FakeSession] = {}
        self._by_access_token: dict[str, FakeSession] = {}
        self._by_refresh_token: dict[str, FakeSession] = {}
        self._expires_at: dict[str, float] = {}
        self._made = 0
        self._log: list[Revocation] = []
        self._feed_life = 1
        self._listeners: set[asyncio.Queue[tuple[int, Revocation] | None]] = set()
        self._available = True
        self.feed_works = True
        """Without it, sessions end unheard: only `ended` tells."""
        self.refreshed_too_often: set[SessionId] = set()
        self.feed_calls = 0
        self.verifications = Gate()
        self.lookups = Gate()
        self.status_checks = Gate()

    @property
    def available(self) -> bool:
        """Whether it answers; setting it to false breaks the feed too."""
        return self._available

    @available.setter
    def available(self, available: bool) -> None:
        self._available = available
        if not available:
            self.break_feed()

    def sign_up(self, username: str, *, expires_in_s: float = 600) -> FakeSession:
        """Make a user with a first session."""
        user_id = new_user_id()
        self._users[user_id] = username
        self._versions[user_id] = 1
        return self.log_in(user_id, expires_in_s=expires_in_s)

    def log_in(self, user_id: UserId, *, expires_in_s: float = 600) -> FakeSession:
        """Make another session of a user."""
        session = FakeSession(
            user_id=user_id,
            username=self._users[user_id],
            id=new_session_id(),
            token_version=self._versions[user_id],
            access_token="",
            refresh_token="",
            expires_at=0.0,
        )
        self._sessions[session.id] = session
        self.refresh(session, expires_in_s=expires_in_s)
        return session

    def refresh(self, session: FakeSession, *, expires_in_s: float = 600) -> str:
        """Give a session new tokens; the old access token stays good. Returns the new one."""
        self._made += 1
        session.access_token = f"access-{self._made}-{session.username}"
        session.refresh_token = f"refresh-{self._made}-{session.username}"
        session.expires_at = (
            float(int(self._now() + expires_in_s))
            if expires_in_s >= 5
            else (self._now() + expires_in_s)
        )
        self._by_access_token[session.access_token] = session
        self._by_refresh_token[session.refresh_token] = session
        self._expires_at[session.access_token] = session.expires_at
        return session.access_token

    def expire(self, session: FakeSession) -> None:
        """Let the session's access token run out."""
        self._expires_at[session.access_token] = self._now() - 1

    def log_out(self, session: FakeSession) -> None:
        """End one session."""
        self._sessions.pop(session.id, None)
        self._revoke(Revocation("session", session.user_id, session_id=session.id))

    def log_out_unheard(self, session: FakeSession) -> None:
        """End one session without a word on the feed."""
        self._sessions.pop(session.id, None)

    def log_out_everywhere(self, user_id: UserId) -> None:
        """End every session of a user."""
        self._versions[user_id] += 1
        self._end_sessions(user_id)
        self._revoke(Revocation("all_sessions", user_id, token_version=self._versions[user_id]))

    def change_password(self, kept: FakeSession) -> None:
        """End every session of a user but one."""
        version = self._versions[kept.user_id] = self._versions[kept.user_id] + 1
        self._end_sessions(kept.user_id)
        kept.token_version = version
        self._sessions[kept.id] = kept
        self._revoke(
            Revocation("all_sessions", kept.user_id, token_version=version, kept_session_id=kept.id)
        )

    def delete_user(self, user_id: UserId, *, heard: bool = True) -> None:
        """Remove a user, with or without a word on the feed."""
        self._end_sessions(user_id)
        del self._users[user_id]
        self._deleted.add(user_id)
        if heard:
            self._revoke(Revocation("user_deleted", user_id))

    def let_everybody_through(self) -> None:
        """Open every gate."""
        for gate in (self.verifications, self.lookups, self.status_checks):
            gate.open()

    def break_feed(self) -> None:
        """End every connection to the feed."""
        for listener in list(self._listeners):
            listener.put_nowait(None)

    def forget_feed(self) -> None:
        """Lose the feed's past, as a restored database does, and break it."""
        self._log.clear()
        self._feed_life += 1
        self.break_feed()

    async def verify(self, tokens: TokenPair) -> Identity | None:
        """See `IdentityVerifier`."""
        found = self._by_access_token.get(tokens.access_token)
        issued: IssuedTokens | None = None
        session = found if found and found.id in self._sessions else None
        if session and self._expires_at[tokens.access_token] <= self._now():
            refreshable = self._by_refresh_token.get(tokens.refresh_token or "") is session
            session = session if refreshable else None
            if session:
                if session.id in self.refreshed_too_often:
                    raise ProfileServiceUnavailable("refreshed too often", 10.0)
                self.refresh(session)
                issued = IssuedTokens(session.access_token, session.refresh_token, 600)
        identity = None
        if session:
            good_token = issued.access_token if issued else tokens.access_token
            identity = Identity(
                user_id=session.user_id,
                username=session.username,
                session_id=session.id,
                token_version=session.token_version,
                expires_at=self._expires_at[good_token],
                tokens=issued,
            )
        await self.verifications.passed()  # a verdict may be overtaken by a revocation
        self._must_be_available()
        return identity

    async def username(self, user_id: UserId) -> str | None:
        """See `UserDirectory`."""
        await self.lookups.passed()
        self._must_be_available()
        return self._users.get(user_id)

    async def ended(self, sessions: Sequence[HeldSession]) -> list[SessionId]:
        """See `RevocationFeed`."""
        await self.status_checks.passed()
        self._must_be_available()
        return [held.sid for held in sessions if held.sid not in self._sessions]

    async def deleted(self, user_ids: Sequence[UserId]) -> list[UserId]:
        """See `RevocationFeed`."""
        await self.lookups.passed()
        self._must_be_available()
        return [user_id for user_id in user_ids if user_id in self._deleted]

    async def events(self, after: str | None) -> AsyncIterator[tuple[str, FeedEvent]]:
        """See `RevocationFeed`."""
        self.feed_calls += 1
        self._must_be_available()
        if not self.feed_works:
            raise ProfileServiceUnavailable("the feed is broken")
        listener: asyncio.Queue[tuple[int, Revocation] | None] = asyncio.Queue()
        life, _, read_up_to = (after or "").partition(".")
        start = int(read_up_to) if life == str(self._feed_life) else len(self._log)
        for number, revocation in enumerate(self._log[start:], start + 1):
            listener.put_nowait((number, revocation))
        self._listeners.add(listener)
        with contextlib.ExitStack() as stack:
            stack.callback(self._listeners.discard, listener)
            if life != str(self._feed_life):
                yield self._event_id(start), FeedReset()
            yield self._event_id(start), FeedReady()
            while (told := await listener.get()) is not None:
                yield self._event_id(told[0]), told[1]
        raise ProfileServiceUnavailable("the feed broke off")

    def _event_id(self, number: int) -> str:
        return f"{self._feed_life}.{number}"

    def _must_be_available(self) -> None:
        if not self._available:
            raise ProfileServiceUnavailable("it is switched off")

    def _end_sessions(self, user_id: UserId) -> None:
        ended = [s.id for s in self._sessions.values() if s.user_id == user_id]
        for session_id in ended:
            del self._sessions[session_id]

    def _revoke(self, revocation: Revocation) -> None:
        self._log.append(revocation)
        for listener in self._listeners:
            listener.put_nowait((len(self._log), revocation))
