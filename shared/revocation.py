"""How other services learn that a session has ended: a resumable feed, and a poll as its backstop.

`GET /internal/revocations` is a stream of server-sent events (HTML Living Standard, section 9.2).
Each has an opaque `id`; a client that reconnects sends the last one as `Last-Event-ID` and misses
nothing. The kinds of event (`event:` field):

- `ready`: sent first (after a `reset`, if there is one); its id is where the feed stands. Without
  `Last-Event-ID` it is the end of the feed.
- `revocation`: `data` is a `Revocation`.
- `reset`: the id that the client resumed from is unknown here (a restored database, or pruned):
  the client must check every session it holds with `POST /internal/sessions/status`, then go on.

Lines that begin with a colon are keep-alives, at least every `FEED_KEEPALIVE_S` seconds: a client
that hears nothing for twice that long should reconnect.
"""

from typing import Literal

import msgspec

from shared.ids import SessionId, UserId

__all__ = [
    "FEED_KEEPALIVE_S",
    "MAX_SESSIONS",
    "REVOCATIONS_PATH",
    "SESSION_STATUS_PATH",
    "HeldSession",
    "Revocation",
    "SessionStatusReply",
    "SessionStatusRequest",
]

REVOCATIONS_PATH = "/internal/revocations"
SESSION_STATUS_PATH = "/internal/sessions/status"
FEED_KEEPALIVE_S = 10.0
MAX_SESSIONS = 1000


class Revocation(msgspec.Struct, frozen=True, omit_defaults=True):
    """Something that ends live connections.

    - `session`: `session_id` has ended.
    - `all_sessions`: every session of `user_id` with a token version below `token_version` has
      ended, except `kept_session_id` (a password change keeps the device it was made on).
    - `user_deleted`: the user is gone, and so is every session.
    """

    kind: Literal["session", "all_sessions", "user_deleted"]
    user_id: UserId
    session_id: SessionId | None = None
    token_version: int | None = None
    kept_session_id: SessionId | None = None


class HeldSession(msgspec.Struct, frozen=True):
    """A session that the asking service holds connections of."""

    sid: SessionId
    sub: UserId
    ver: int


class SessionStatusRequest(msgspec.Struct, frozen=True):
    """Body of `POST /internal/sessions/status`, at most `MAX_SESSIONS` at a time."""

    sessions: list[HeldSession]


class SessionStatusReply(msgspec.Struct, frozen=True):
    """Those of the asked sessions that have ended; the others are alive."""

    ended: list[SessionId]
