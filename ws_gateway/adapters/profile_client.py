"""The profile service over HTTP: verification and user look-ups in batches, and the feed.

httpx's and the network's exceptions end here, as `ProfileServiceUnavailable`.
"""

import asyncio
import functools
from collections.abc import AsyncIterator, Sequence
from typing import TypeVar

import httpx
import httpx_sse
import msgspec

from shared.batching import Batcher
from shared.ids import SessionId, UserId
from shared.introspection import (
    INTROSPECT_PATH,
    MAX_PAIRS,
    MAX_USER_IDS,
    USERS_PATH,
    Introspection,
    TokenPair,
    Users,
)
from shared.revocation import (
    FEED_KEEPALIVE_S,
    REVOCATIONS_PATH,
    SESSION_STATUS_PATH,
    HeldSession,
    Revocation,
    SessionStatusReply,
    SessionStatusRequest,
)
from shared.service_auth import ServiceCredentials
from ws_gateway.identity import Identity
from ws_gateway.metrics import Metrics
from ws_gateway.ports import FeedEvent, FeedReady, FeedReset, ProfileServiceUnavailable

__all__ = ["ProfileClient"]

Reply = TypeVar("Reply")

_VERIFICATION_PAUSE_S = 0.02
"""A request costs as much as five handshakes: in a storm, many connections share one."""


class ProfileClient:
    """`IdentityVerifier`, `UserDirectory` and `RevocationFeed` in one, on one pool of connections.

    Callers that wait at the same time share a request. For one event loop; `close` it.
    """

    def __init__(
        self,
        base_url: str,
        credentials: ServiceCredentials,
        metrics: Metrics,
        *,
        timeout_s: float = 3.0,
    ) -> None:
        self._credentials = credentials
        self._metrics = metrics
        self._timeout_s = timeout_s
        # trust_env: a proxy of the environment is not for calls between our own services.
        self._http = httpx.AsyncClient(
            base_url=base_url,
            trust_env=False,
            timeout=timeout_s,
            limits=httpx.Limits(max_connections=8, max_keepalive_connections=8),
        )
        self._verifications: Batcher[TokenPair, Introspection] = Batcher(
            self._introspect,
            max_batch=MAX_PAIRS,
            pause=functools.partial(asyncio.sleep, _VERIFICATION_PAUSE_S),
        )
        self._lookups: Batcher[UserId, str | None] = Batcher(
            self._usernames, max_batch=MAX_USER_IDS
        )

    async def verify(self, tokens: TokenPair) -> Identity | None:
        """Ask who a token pair belongs to; see `IdentityVerifier`."""
        verdict = await self._verifications.submit(tokens)
        if verdict.retry_after_s is not None:
            raise ProfileServiceUnavailable("refreshed too often", verdict.retry_after_s)
        if not verdict.active:
            return None
        if (
            verdict.sub is None
            or verdict.username is None
            or verdict.sid is None
            or verdict.ver is None
            or verdict.exp is None
        ):
            raise ProfileServiceUnavailable("an active introspection lacks a field")
        return Identity(
            user_id=verdict.sub,
            username=verdict.username,
            session_id=verdict.sid,
            token_version=verdict.ver,
            expires_at=float(verdict.exp),
            tokens=verdict.tokens,
        )

    async def username(self, user_id: UserId) -> str | None:
        """Ask for a user's name; see `UserDirectory`."""
        return await self._lookups.submit(user_id)

    async def ended(self, sessions: Sequence[HeldSession]) -> list[SessionId]:
        """Ask which sessions have ended; see `RevocationFeed`."""
        body = msgspec.json.encode(SessionStatusRequest(list(sessions)))
        reply = await self._call("session_status", SESSION_STATUS_PATH, SessionStatusReply, body)
        return reply.ended

    async def deleted(self, user_ids: Sequence[UserId]) -> list[UserId]:
        """Ask which users deleted their account; see `RevocationFeed`."""
        deleted: list[UserId] = []
        for start in range(0, len(user_ids), MAX_USER_IDS):
            deleted += (await self._users(user_ids[start : start + MAX_USER_IDS])).deleted
        return deleted

    async def events(self, after: str | None) -> AsyncIterator[tuple[str, FeedEvent]]:
        """Listen to the feed; see `RevocationFeed`."""
        headers = {"Authorization": self._credentials.authorization()}
        if after is not None:
            headers["Last-Event-ID"] = after
        timeout = httpx.Timeout(self._timeout_s, read=2 * FEED_KEEPALIVE_S)
        try:
            async with httpx_sse.aconnect_sse(
                self._http, "GET", REVOCATIONS_PATH, headers=headers, timeout=timeout
            ) as source:
                if source.response.status_code != httpx.codes.OK:
                    raise ProfileServiceUnavailable(f"answered {source.response.status_code}")
                async for sent in source.aiter_sse():
                    match sent.event:
                        case "revocation":
                            yield sent.id, msgspec.json.decode(sent.data, type=Revocation)
                        case "reset":
                            yield sent.id, FeedReset()
                        case "ready":
                            if after is None:  # what happened before is not known
                                yield sent.id, FeedReset()
                            yield sent.id, FeedReady()
        except (httpx.HTTPError, httpx_sse.SSEError, msgspec.DecodeError) as error:
            raise ProfileServiceUnavailable(repr(error)) from error

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def _introspect(self, pairs: Sequence[TokenPair]) -> list[Introspection]:
        body = msgspec.json.encode(list(pairs))
        verdicts = await self._call("introspect", INTROSPECT_PATH, list[Introspection], body)
        if len(verdicts) != len(pairs):
            raise ProfileServiceUnavailable("answered another number of introspections")
        return verdicts

    async def _usernames(self, user_ids: Sequence[UserId]) -> list[str | None]:
        reply = await self._users(user_ids)
        found = {user.id: user.username for user in reply.users}
        return [found.get(user_id) for user_id in user_ids]

    async def _users(self, user_ids: Sequence[UserId]) -> Users:
        query = str(httpx.QueryParams([("id", user_id) for user_id in dict.fromkeys(user_ids)]))
        return await self._call("users", f"{USERS_PATH}?{query}", Users)

    async def _call(
        self, name: str, path: str, reply: type[Reply], body: bytes | None = None
    ) -> Reply:
        """POST `body`, or GET without one, and read the answer as `reply`."""
        headers = {"Authorization": self._credentials.authorization()}
        if body is not None:
            headers["Content-Type"] = "application/json"
        with self._metrics.profile_call_seconds.labels(name).time():
            try:
                async with asyncio.timeout(self._timeout_s):
                    response = await self._http.request(
                        "GET" if body is None else "POST", path, content=body, headers=headers
                    )
                if response.status_code != httpx.codes.OK:
                    raise ProfileServiceUnavailable(f"{name} answered {response.status_code}")
                return msgspec.json.decode(response.content, type=reply)
            except (httpx.HTTPError, TimeoutError, msgspec.DecodeError) as error:
                raise ProfileServiceUnavailable(f"{name}: {error!r}") from error
