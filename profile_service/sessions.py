"""Sessions and their tokens: authenticate, refresh, introspect, log out."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import msgspec
import structlog

from profile_service.errors import (
    InvalidAccessToken,
    InvalidRefreshToken,
    SessionNotFound,
    Throttled,
)
from profile_service.key_watch import KeyWatch
from profile_service.metrics import Metrics
from profile_service.ports import AuditEntry, LiveSession, SessionStore
from profile_service.revocations import RevocationFeed
from profile_service.rotation import ROTATION_INTERVAL_S, Decision, Session, is_acceptable
from profile_service.rotations import Confirmations, RotationGroups
from profile_service.tokens import TokenAuthority, TokenClaims
from profile_service.users import User
from shared.batching import Batcher
from shared.ids import SessionId
from shared.introspection import Introspection, IssuedTokens, TokenPair
from shared.revocation import HeldSession

__all__ = ["Caller", "Refreshed", "Sessions"]

CHECKS_PER_TURN = 32
"""Signature checks before other requests get a turn: at most about 6 ms of a core."""

LOOKUPS_AT_ONCE = 256
"""Sessions that requests which arrive together look up in one query."""

_INACTIVE = Introspection(active=False)
_log = structlog.get_logger(__name__)


class Caller(msgspec.Struct, frozen=True):
    """Who makes a request: proved by an access token whose session lives."""

    session: Session
    user: User


class Refreshed(msgspec.Struct, frozen=True):
    """The outcome of a good refresh."""

    tokens: IssuedTokens
    live: LiveSession


class Sessions:
    """The use cases of sessions. Any coroutine may call it.

    `now_ms` gives milliseconds since the epoch.
    """

    def __init__(
        self,
        *,
        store: SessionStore,
        rotations: RotationGroups,
        confirmations: Confirmations,
        tokens: TokenAuthority,
        keys: KeyWatch,
        feed: RevocationFeed,
        metrics: Metrics,
        now_ms: Callable[[], int],
    ) -> None:
        self._store = store
        self._rotations = rotations
        self._confirmations = confirmations
        self._tokens = tokens
        self._keys = keys
        self._feed = feed
        self._metrics = metrics
        self._now_ms = now_ms
        self._lookups: Batcher[SessionId, LiveSession | None] = Batcher(
            self._look_up, max_batch=LOOKUPS_AT_ONCE
        )

    async def authenticate(self, access_token: str) -> Caller:
        """Find out who presents an access token.

        Raises:
            InvalidAccessToken: it is not valid, or its session has ended.
        """
        try:
            claims = self._tokens.check_access(access_token)
        except InvalidAccessToken:
            if not await self._keys.look_for_key_of(access_token):
                raise
            claims = self._tokens.check_access(access_token)
        live = await self._lookups.submit(claims.sid)
        if live is None or not _matches(claims, live):
            raise InvalidAccessToken("the session has ended")
        self._note_shown([(claims, live)])
        return Caller(live.session, live.user)

    async def refresh(self, refresh_token: str, *, address: str | None) -> Refreshed:
        """Exchange a refresh token for a new pair. The old one is used up.

        Raises:
            InvalidRefreshToken: it buys nothing; a replayed one has ended its session.
            Throttled: its session was refreshed too often; nothing was changed.
        """
        try:
            claims = self._tokens.check_refresh(refresh_token)
        except InvalidRefreshToken:
            if not await self._keys.look_for_key_of(refresh_token):
                raise
            claims = self._tokens.check_refresh(refresh_token)
        audit = AuditEntry(
            at_ms=self._now_ms(), kind="refresh", session_id=claims.sid, address=address
        )
        rotation = await self._rotations.rotate(claims.presented(), audit)
        self._metrics.refreshed(rotation.decision.value)
        if rotation.decision is Decision.REUSE:
            self._feed.notify()
            _log.warning("refresh_reused", user=claims.sub, session=claims.sid, address=address)
        if rotation.decision is Decision.TOO_OFTEN:
            raise Throttled(ROTATION_INTERVAL_S)
        if rotation.live is None:
            raise InvalidRefreshToken(rotation.decision.value)
        live = rotation.live
        return Refreshed(self._tokens.issue(live.session, live.user.token_version), live)

    async def introspect(self, pairs: Sequence[TokenPair]) -> list[Introspection]:
        """Verify token pairs for another service: one answer a pair, in order.

        A pair whose access token has expired and whose refresh token is good is refreshed.

        Raises:
            StoreUnavailable: nothing is known about any of them.
        """
        checked = []
        for number, pair in enumerate(pairs, start=1):
            checked.append(self._check(pair) or await self._check_with_new_keys(pair))
            if number % CHECKS_PER_TURN == 0:
                await asyncio.sleep(0)
        wanted = {found.access.sid for found in checked if found and not found.expired}
        live = await self._live_sessions(list(wanted))
        answers = [_INACTIVE] * len(pairs)
        refreshing: dict[int, Coroutine[Any, Any, Introspection]] = {}
        shown: list[tuple[TokenClaims, LiveSession]] = []
        for place, found in enumerate(checked):
            if found is None:
                continue
            if found.expired:
                refreshing[place] = self._introspect_refreshed(found)
            elif (current := live.get(found.access.sid)) and _accepts(found, current):
                answers[place] = _active(found.access, current.user)
                shown.append((found.access, current))
                if found.refresh:
                    shown.append((found.refresh, current))
        if refreshing:  # waiting for none would be a turn of the loop
            refreshed = await asyncio.gather(*refreshing.values())
            for place, answer in zip(refreshing, refreshed, strict=True):
                answers[place] = answer
        self._note_shown(shown)
        active = sum(answer.active for answer in answers)
        self._metrics.introspected(active, len(answers) - active)
        return answers

    async def list_of(self, caller: Caller) -> list[Session]:
        """Return the caller's live sessions, the oldest first."""
        return await self._store.sessions_of(caller.user.id, self._now_ms())

    async def end(self, caller: Caller, session_id: SessionId, *, address: str | None) -> None:
        """Log out one device of the caller's.

        Raises:
            SessionNotFound: the caller has no such live session.
        """
        audit = self._revocation_audit(caller, session_id, address, "session")
        if not await self._store.end_session(caller.user.id, session_id, audit):
            raise SessionNotFound(session_id)
        self._feed.notify()

    async def end_all(self, caller: Caller, *, address: str | None) -> None:
        """Log out all devices of the caller's: every token issued so far is dead."""
        audit = self._revocation_audit(caller, caller.session.id, address, "all_sessions")
        await self._store.end_all_sessions(caller.user.id, audit)
        self._feed.notify()

    async def ended(self, held: Sequence[HeldSession]) -> list[SessionId]:
        """Return those of the sessions that another service holds which have ended."""
        return await self._store.ended(held, self._now_ms())

    def _check(self, pair: TokenPair) -> "_CheckedPair | None":
        try:
            access = self._tokens.check_access(pair.access_token, even_expired=True)
            expired = self._tokens.is_expired(access)
            if pair.refresh_token is None:
                return None if expired else _CheckedPair(access, expired, None, None)
            refresh = self._tokens.check_refresh(pair.refresh_token)
        except (InvalidAccessToken, InvalidRefreshToken):
            return None
        if (refresh.sid, refresh.sub) != (access.sid, access.sub):
            return None
        return _CheckedPair(access, expired, refresh, pair.refresh_token)

    async def _check_with_new_keys(self, pair: TokenPair) -> "_CheckedPair | None":
        """Check a refused pair again if a key that it needs has become known."""
        for token in (pair.access_token, pair.refresh_token):
            if token is not None and await self._keys.look_for_key_of(token):
                return self._check(pair)
        return None

    async def _introspect_refreshed(self, pair: "_CheckedPair") -> Introspection:
        try:
            refreshed = await self.refresh(pair.refresh_token or "", address=None)
            access = self._tokens.check_access(refreshed.tokens.access_token)
        except (InvalidRefreshToken, InvalidAccessToken):  # its session has just ended
            return _INACTIVE
        except Throttled as error:
            return Introspection(active=False, retry_after_s=error.retry_after_s)
        return _active(access, refreshed.live.user, refreshed.tokens)

    async def _live_sessions(self, ids: Sequence[SessionId]) -> dict[SessionId, LiveSession]:
        if len(ids) == 1:
            live = await self._lookups.submit(ids[0])
            return {} if live is None else {ids[0]: live}
        return await self._read(ids) if ids else {}

    async def _look_up(self, ids: Sequence[SessionId]) -> list[LiveSession | None]:
        found = await self._read(list(dict.fromkeys(ids)))
        return [found.get(session_id) for session_id in ids]

    async def _read(self, ids: Sequence[SessionId]) -> dict[SessionId, LiveSession]:
        found = await self._store.live_sessions(ids, self._now_ms())
        return {live.session.id: live for live in found}

    def _note_shown(self, shown: Sequence[tuple[TokenClaims, LiveSession]]) -> None:
        """Note which clients have certainly got their newest tokens (see `rotation`)."""
        self._confirmations.note(
            {
                (claims.sid, claims.gen)
                for claims, live in shown
                if claims.gen == live.session.generation > live.session.confirmed_generation
            }
        )

    def _revocation_audit(
        self, caller: Caller, session_id: SessionId, address: str | None, detail: str
    ) -> AuditEntry:
        return AuditEntry(
            at_ms=self._now_ms(),
            kind="revocation",
            user_id=caller.user.id,
            session_id=session_id,
            address=address,
            detail=detail,
        )


class _CheckedPair(msgspec.Struct, frozen=True):
    """A pair whose signatures are good."""

    access: TokenClaims
    expired: bool
    refresh: TokenClaims | None
    refresh_token: str | None


def _matches(claims: TokenClaims, live: LiveSession) -> bool:
    return claims.sub == live.user.id and claims.ver == live.user.token_version


def _accepts(pair: _CheckedPair, live: LiveSession) -> bool:
    if not _matches(pair.access, live):
        return False
    if pair.refresh is None:
        return True
    return _matches(pair.refresh, live) and is_acceptable(pair.refresh.presented(), live.session)


def _active(claims: TokenClaims, user: User, tokens: IssuedTokens | None = None) -> Introspection:
    return Introspection(
        active=True,
        sub=user.id,
        username=user.username,
        sid=claims.sid,
        ver=claims.ver,
        exp=claims.exp,
        tokens=tokens,
    )
