"""Routes for Duet's other services: verify tokens, look users up, follow revocations."""

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator

import msgspec
import structlog
from starlette.responses import Response, StreamingResponse

from profile_service.errors import Fault, UserNotFound
from profile_service.http_api.bodies import IntrospectBody, UserIdsQuery
from profile_service.http_api.operation import Auth, Call, Operation, json_response
from profile_service.http_api.problems import ProblemError
from profile_service.metrics import Metrics
from profile_service.ports import StoreUnavailable
from profile_service.profiles import Profiles
from profile_service.revocations import KeepAlive, Ready, Reset, RevocationFeed, Revoked
from profile_service.sessions import Sessions
from profile_service.users import User
from shared.ids import UserId
from shared.introspection import (
    INTROSPECT_PATH,
    USERS_PATH,
    Introspection,
    TokenPair,
    Users,
    UserSummary,
)
from shared.revocation import (
    MAX_SESSIONS,
    REVOCATIONS_PATH,
    SESSION_STATUS_PATH,
    SessionStatusReply,
    SessionStatusRequest,
)

__all__ = ["InternalRoutes"]

MAX_BODY_BYTES = 2 * 1024 * 1024
"""A full batch of token pairs takes about half of this."""
EVENT_STREAM = "text/event-stream"

FeedItem = Ready | Reset | Revoked | KeepAlive

_log = structlog.get_logger(__name__)


class InternalRoutes:
    """Handlers of `/internal`; each wants a service token."""

    def __init__(
        self, sessions: Sessions, profiles: Profiles, feed: RevocationFeed, metrics: Metrics
    ) -> None:
        self._sessions = sessions
        self._profiles = profiles
        self._feed = feed
        self._metrics = metrics

    def operations(self) -> list[Operation]:
        """The rows of the route table."""
        return [*self._of_tokens(), *self._of_users(), *self._of_revocations()]

    def _of_tokens(self) -> list[Operation]:
        return [
            Operation(
                method="POST",
                path=INTROSPECT_PATH,
                summary="Verify one token pair, or a list of them (RFC 7662).",
                handler=self.introspect,
                auth=Auth.SERVICE,
                body=IntrospectBody,
                max_body_bytes=MAX_BODY_BYTES,
                replies={200: Introspection | list[Introspection]},
            ),
        ]

    def _of_users(self) -> list[Operation]:
        return [
            Operation(
                method="GET",
                path=USERS_PATH,
                summary="Look several users up; ids that were never given are left out.",
                handler=self.read_users,
                auth=Auth.SERVICE,
                query=UserIdsQuery,
                replies={200: Users},
            ),
            Operation(
                method="GET",
                path=USERS_PATH + "/{user_id}",
                summary="Look a user up.",
                handler=self.read_user,
                auth=Auth.SERVICE,
                replies={200: UserSummary},
                problems=("user_not_found",),
            ),
        ]

    def _of_revocations(self) -> list[Operation]:
        return [
            Operation(
                method="GET",
                path=REVOCATIONS_PATH,
                summary="Follow the revocations, as server-sent events.",
                handler=self.follow_revocations,
                auth=Auth.SERVICE,
                replies={200: str},
                reply_type=EVENT_STREAM,
                request_headers={"Last-Event-ID": "Resume after this event."},
                is_stream=True,
            ),
            Operation(
                method="POST",
                path=SESSION_STATUS_PATH,
                summary="Ask which of the sessions have ended.",
                handler=self.session_status,
                auth=Auth.SERVICE,
                body=SessionStatusRequest,
                max_body_bytes=MAX_BODY_BYTES,
                replies={200: SessionStatusReply},
            ),
        ]

    async def introspect(self, call: Call) -> Response:
        body: TokenPair | list[TokenPair] = call.body
        if isinstance(body, TokenPair):
            return json_response((await self._sessions.introspect([body]))[0])
        return json_response(await self._sessions.introspect(body))

    async def read_users(self, call: Call) -> Response:
        query: UserIdsQuery = call.query
        ids = [UserId(user_id) for user_id in query.id]
        found = await self._profiles.by_ids(ids)
        deleted = await self._profiles.deleted_among(ids) if len(found) < len(set(ids)) else []
        return json_response(Users([_summary(user) for user in found], deleted))

    async def read_user(self, call: Call) -> Response:
        user_id = UserId(call.request.path_params["user_id"])
        found = await self._profiles.by_ids([user_id])
        if not found:
            raise UserNotFound(user_id)
        return json_response(_summary(found[0]))

    async def session_status(self, call: Call) -> Response:
        body: SessionStatusRequest = call.body
        if len(body.sessions) > MAX_SESSIONS:
            raise ProblemError(
                "validation_failed", faults=[Fault("/sessions", f"send at most {MAX_SESSIONS}")]
            )
        return json_response(SessionStatusReply(await self._sessions.ended(body.sessions)))

    async def follow_revocations(self, call: Call) -> Response:
        items = self._feed.follow(call.request.headers.get("last-event-id"))
        first = await anext(items)  # before the headers go out, so that a failure can still be 503
        return StreamingResponse(
            self._events(first, items),
            media_type=EVENT_STREAM,
            headers={"X-Accel-Buffering": "no"},
        )

    async def _events(
        self, first: FeedItem, items: AsyncGenerator[FeedItem]
    ) -> AsyncIterator[bytes]:
        self._metrics.following(+1)
        try:
            async with contextlib.aclosing(items):
                yield _event(first)
                async for item in items:
                    yield _event(item)
        except StoreUnavailable as error:  # the follower will resume where it was
            _log.warning("revocation_feed_interrupted", reason=str(error))
        finally:
            self._metrics.following(-1)


def _summary(user: User) -> UserSummary:
    return UserSummary(user.id, user.username)


def _event(item: FeedItem) -> bytes:
    """Write an item in the form of the HTML Living Standard, section 9.2."""
    match item:
        case KeepAlive():
            return b": keep-alive\n\n"
        case Revoked():
            data = msgspec.json.encode(item.revocation)
            return b"event: revocation\nid: %b\ndata: %b\n\n" % (item.id.encode(), data)
        case Ready():
            return b"event: ready\nid: %b\ndata: {}\n\n" % item.id.encode()
        case Reset():
            return b"event: reset\nid: %b\ndata: {}\n\n" % item.id.encode()
