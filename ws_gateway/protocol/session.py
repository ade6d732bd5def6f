"""The life of one connection as a state machine without I/O or clock.

Text goes in by `receive`, time by `wake`, the verdict on tokens by `verified`, `refused` and their
kin; each returns the one thing to do next. Whoever drives it (`ws_gateway.connection`) does it.

    CONNECTING --connect, or a header--> VERIFYING --verified--> OPEN
        |                                   |                     |
        +--- 5 s, or any other frame ---> CLOSED <--- refused ----+--- expired, malformed, flood
"""

import enum

import msgspec

from shared.ids import ConversationId, UserId
from ws_gateway.conversations import Deletion, Draft, Edit, Mark, is_valid_client_id
from ws_gateway.identity import Identity
from ws_gateway.protocol import codec, frames, requests
from ws_gateway.protocol.actions import (
    Action,
    Ask,
    Authenticate,
    Close,
    Renew,
    Reply,
    Rest,
    Submit,
    Type,
    error_frame,
)
from ws_gateway.protocol.errors import CloseCode, ErrorCode
from ws_gateway.protocol.rate_limit import RateLimit, Strikes, TokenBucket
from ws_gateway.protocol.timestamps import timestamp

__all__ = ["Session", "SessionLimits", "State"]


class State(enum.Enum):
    """Where a connection is in its life."""

    CONNECTING = enum.auto()
    VERIFYING = enum.auto()
    OPEN = enum.auto()
    CLOSED = enum.auto()


_OPEN, _CLOSED = State.OPEN, State.CLOSED  # an attribute of an enumeration is slow to look up
_WRITES = (requests.Send, requests.Edit, requests.Delete)


class SessionLimits(msgspec.Struct, frozen=True):
    """How long a connection may take and last, in seconds, and how fast it may ask."""

    connect_timeout_s: float = 5.0
    expiring_lead_s: float = 60.0
    """`expiring` is announced so long before the access token runs out."""
    expiry_grace_s: float = 25.0
    """A connection whose token ran out is closed so long after."""
    requests: RateLimit = RateLimit(50.0, 200)
    """For everything one connection asks."""
    messages: RateLimit = RateLimit(10.0, 50)
    """For what a user writes, on all connections together."""


class Session:
    """One connection's rules. Not thread-safe; `now` is always seconds since the epoch.

    Set a timer for `deadline` after each call, and call `wake` when it is reached.
    """

    __slots__ = (
        "_announced_expiry",
        "_limits",
        "_messages",
        "_requests",
        "_strikes",
        "deadline",
        "identity",
        "state",
    )

    def __init__(self, limits: SessionLimits, now: float) -> None:
        self.state = State.CONNECTING
        self.identity: Identity | None = None
        self.deadline: float | None = now + limits.connect_timeout_s
        self._limits = limits
        self._announced_expiry = False
        self._requests = TokenBucket(limits.requests, now)
        self._messages = TokenBucket(limits.messages, now)
        self._strikes = Strikes()

    def present(self, access_token: str, resume: str | None) -> Authenticate:
        """Take what the handshake carried (`Authorization`, `?resume=`) in place of `connect`."""
        self.state, self.deadline = State.VERIFYING, None
        return Authenticate(access_token, None, resume)

    def receive(self, raw: bytes | bytearray | str, now: float) -> Action | None:
        """Take one text frame. Returns what to do, or nothing once the connection is closed."""
        if self.state is _CLOSED:
            return None
        try:
            request = codec.decode(raw)
        except codec.InvalidFrame as error:
            return self._limited(None, now) or self._invalid(error)
        except codec.MalformedJson as error:
            return self._close(
                CloseCode.POLICY_VIOLATION, ErrorCode.MALFORMED_JSON, detail=str(error)
            )
        except codec.InvalidUtf8:
            return self._close(CloseCode.INVALID_DATA, None)
        if self.state is _OPEN and self.identity is not None:
            return self._limited(request, now) or self._open(request, self.identity.user_id)
        if self.state is State.CONNECTING and isinstance(request, requests.Connect):
            self.state, self.deadline = State.VERIFYING, None
            return Authenticate(request.access_token, request.refresh_token, request.resume)
        return self._close(
            CloseCode.POLICY_VIOLATION,
            ErrorCode.CONNECT_EXPECTED,
            request_id=getattr(request, "id", None),
        )

    def receive_binary(self) -> Close | None:
        """Take a binary frame, which `duet.v1` does not have."""
        if self.state is State.CLOSED:
            return None
        return self._close(CloseCode.UNSUPPORTED_DATA, None, reason="frames are JSON text")

    def receive_ping(self, now: float) -> Rest | Close | None:
        """Take a ping: it costs a request, and a flood of them ends as one of requests does."""
        if self.state is State.CLOSED or not self._requests.take(now):
            return None
        if self._strikes.add(now):
            return self._close(CloseCode.POLICY_VIOLATION, ErrorCode.FLOOD)
        return Rest()

    def verified(self, identity: Identity, messages: TokenBucket, now: float) -> None:
        """The tokens are good: the connection is open until its access token runs out.

        `messages` is the user's bucket, shared by all of their connections.
        """
        self.state, self.identity, self._messages = State.OPEN, identity, messages
        self._schedule_expiry(identity, now)

    def refused(self) -> Close:
        """The tokens are not good."""
        return self._close(CloseCode.UNAUTHORIZED, ErrorCode.UNAUTHORIZED)

    def not_verifiable(self, retry_after_ms: int) -> Close:
        """Nobody could check the tokens; the connection is not accepted unverified."""
        return self._close(
            CloseCode.TRY_AGAIN_LATER,
            ErrorCode.VERIFICATION_UNAVAILABLE,
            retry_after_ms=retry_after_ms,
        )

    def renewed(self, request_id: str, identity: Identity, now: float) -> Reply | Close | None:
        """The token of a `Renew` is good: extend the connection, if it is this session's."""
        held = self.identity
        if self.state is State.CLOSED:  # while the token was being verified
            return None
        if held is None or (held.user_id, held.session_id) != (
            identity.user_id,
            identity.session_id,
        ):
            return self._close(CloseCode.FORBIDDEN, ErrorCode.WRONG_USER, request_id=request_id)
        if identity.expires_at > held.expires_at:
            self.identity = held = identity
            self._schedule_expiry(identity, now)
        return Reply(
            frames.Refreshed(id=request_id, expires_at=timestamp(int(held.expires_at * 1000)))
        )

    def not_renewed(self, request_id: str, *, verifiable: bool) -> Reply:
        """The token of a `Renew` is not good, or could not be checked; the connection goes on."""
        code = ErrorCode.UNAUTHORIZED if verifiable else ErrorCode.VERIFICATION_UNAVAILABLE
        return Reply(error_frame(code, request_id=request_id))

    def end(self, code: CloseCode, error: ErrorCode | None, reason: str = "") -> Close | None:
        """The gateway ends the connection: evicted, logged out, restarting."""
        if self.state is State.CLOSED:
            return None
        return self._close(code, error, reason=reason)

    def wake(self, now: float) -> Action | None:
        """The deadline may have been reached: announce the expiry, or close."""
        if self.deadline is None or now < self.deadline or self.state is State.CLOSED:
            return None
        if self.identity is None:
            return self._close(CloseCode.TIMEOUT, ErrorCode.CONNECT_TIMEOUT)
        if self._announced_expiry:
            return self._close(CloseCode.UNAUTHORIZED, ErrorCode.TOKEN_EXPIRED)
        self._announced_expiry = True
        self.deadline = self.identity.expires_at + self._limits.expiry_grace_s
        return Reply(frames.Expiring(in_s=max(0, round(self.identity.expires_at - now))))

    def _schedule_expiry(self, identity: Identity, now: float) -> None:
        """Announce the expiry in time, but not right away when tokens are made to live shortly."""
        self._announced_expiry = False
        lead_s = min(self._limits.expiring_lead_s, (identity.expires_at - now) / 3)
        self.deadline = identity.expires_at - lead_s

    def _limited(self, request: requests.Request | None, now: float) -> Rest | Close | None:
        """Refuse what comes too fast; never in silence, and not for ever.

        Whoever then waits as they are told is let through: a refusal takes from neither bucket.
        """
        wait_s = self._requests.take(now)
        if isinstance(request, _WRITES):
            if wait_s:
                wait_s = max(wait_s, self._messages.wait_s(now))
            elif wait_s := self._messages.take(now):
                self._requests.put_back()
        if not wait_s:
            return None
        request_id = getattr(request, "id", None)
        if self._strikes.add(now):
            return self._close(CloseCode.POLICY_VIOLATION, ErrorCode.FLOOD, request_id=request_id)
        return Rest(
            error_frame(
                ErrorCode.RATE_LIMITED,
                request_id=request_id,
                retry_after_ms=int(wait_s * 1000) + 2,  # never a rounding error too early
            )
        )

    def _open(self, request: requests.Request, user_id: UserId) -> Action:
        """Take a request of a verified user; the sender is never what a frame says."""
        if isinstance(request, requests.Send):  # nearly always, and a pattern costs more
            return self._send(request, user_id)
        match request:
            case requests.Received(conversation, seq, request_id):
                return Submit(
                    Mark(user_id, request_id, ConversationId(conversation), seq, read=False)
                )
            case requests.Read(conversation, seq, request_id):
                return Submit(
                    Mark(user_id, request_id, ConversationId(conversation), seq, read=True)
                )
            case requests.Edit(request_id, conversation, seq, text):
                return self._storable(request_id, text) or Submit(
                    Edit(user_id, request_id, ConversationId(conversation), seq, text)
                )
            case requests.Delete(request_id, conversation, seq):
                return self._storable(request_id, "") or Submit(
                    Deletion(user_id, request_id, ConversationId(conversation), seq)
                )
            case requests.Typing(to, active):
                return Type(UserId(to), active)
            case requests.Refresh(request_id, access_token):
                return Renew(request_id, access_token)
            case requests.Connect():
                return Reply(error_frame(ErrorCode.ALREADY_CONNECTED))
            case requests.Block(request_id, other) if not is_valid_client_id(other):
                return self._nobody(request_id)
            case _:
                return Ask(request)

    def _nobody(self, request_id: str) -> Reply:
        """No user has such an id, nor could it be asked about with others' in one URL."""
        return Reply(error_frame(ErrorCode.RECIPIENT_NOT_FOUND, request_id=request_id))

    def _send(self, request: requests.Send, sender: UserId) -> Submit | Reply:
        if request.to == sender:
            return Reply(error_frame(ErrorCode.RECIPIENT_IS_SENDER, request_id=request.id))
        if not is_valid_client_id(request.to):
            return self._nobody(request.id)
        return self._storable(request.id, request.text) or Submit(
            Draft(sender, UserId(request.to), request.id, request.text)
        )

    def _storable(self, request_id: str, text: str) -> Reply | None:
        """Refuse what the frame's types cannot: ids and texts that no database should keep."""
        if not is_valid_client_id(request_id):
            detail, request_id_or_none = "printable ASCII is wanted - at `$.id`", None
        elif "\x00" in text:
            detail, request_id_or_none = "U+0000 cannot be stored - at `$.text`", request_id
        else:
            return None
        return Reply(
            error_frame(ErrorCode.INVALID_FRAME, request_id=request_id_or_none, detail=detail)
        )

    def _invalid(self, error: codec.InvalidFrame) -> Reply | Close:
        if self.state is State.OPEN:
            return Reply(
                error_frame(ErrorCode.INVALID_FRAME, request_id=error.request_id, detail=str(error))
            )
        return self._close(
            CloseCode.POLICY_VIOLATION,
            ErrorCode.INVALID_FRAME,
            request_id=error.request_id,
            detail=str(error),
        )

    def _close(
        self,
        code: CloseCode,
        error: ErrorCode | None,
        *,
        request_id: str | None = None,
        detail: str | None = None,
        retry_after_ms: int | None = None,
        reason: str = "",
    ) -> Close:
        self.state, self.deadline = State.CLOSED, None
        if error is None:
            return Close(code, None, reason)
        frame = error_frame(
            error, request_id=request_id, detail=detail, retry_after_ms=retry_after_ms
        )
        return Close(code, frame, error.value)
