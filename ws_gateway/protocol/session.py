"""The life of one connection as a state machine without I/O or clock.

Text goes in by `receive`, time by `wake`, the verdict on tokens by `verified`, `refused` and their
kin; each returns the one thing to do next. Whoever drives it (`ws_gateway.connection`) does it.

    CONNECTING --connect, or a header--> VERIFYING --verified--> OPEN
        |                                   |                     |
        +--- 5 s, or any other frame ---> CLOSED <--- refused ----+--- expired, malformed

What may come in when stands in `_ALLOWED`.
"""

import enum
from typing import ClassVar, TypeAlias

import msgspec

from shared.ids import UserId
from ws_gateway.conversations import Draft, is_valid_client_id
from ws_gateway.identity import Identity
from ws_gateway.protocol import codec, frames
from ws_gateway.protocol.errors import ERRORS, CloseCode, ErrorCode

__all__ = [
    "Action",
    "Authenticate",
    "Close",
    "Renew",
    "Reply",
    "Session",
    "SessionLimits",
    "State",
    "Submit",
    "error_frame",
]


class State(enum.Enum):
    """Where a connection is in its life."""

    CONNECTING = enum.auto()
    VERIFYING = enum.auto()
    OPEN = enum.auto()
    CLOSED = enum.auto()


class SessionLimits(msgspec.Struct, frozen=True):
    """How long a connection may take and last, in seconds."""

    connect_timeout_s: float = 5.0
    expiring_lead_s: float = 60.0
    """`expiring` is announced so long before the access token runs out."""
    expiry_grace_s: float = 25.0
    """A connection whose token ran out is closed so long after."""


class Authenticate(msgspec.Struct, frozen=True):
    """Verify these tokens, then call `verified` or `refused`. Read nothing until then."""

    access_token: str
    refresh_token: str | None

    def __repr__(self) -> str:
        return "Authenticate(…)"


class Renew(msgspec.Struct, frozen=True):
    """Verify this token, then call `renewed` or `not_renewed`; go on reading meanwhile."""

    request_id: str
    access_token: str

    def __repr__(self) -> str:
        return f"Renew({self.request_id!r}, …)"


class Submit(msgspec.Struct, frozen=True, gc=False):
    """Store and deliver this draft; its ack or error answers the client."""

    draft: Draft


class Reply(msgspec.Struct, frozen=True):
    """Send this frame to the client."""

    frame: frames.ServerFrame


class Close(msgspec.Struct, frozen=True):
    """Send `frame`, when there is one, then close with `code`."""

    code: CloseCode
    frame: frames.Error | None = None
    reason: str = ""


Action: TypeAlias = Authenticate | Renew | Submit | Reply | Close


def error_frame(
    code: ErrorCode,
    *,
    request_id: str | None = None,
    detail: str | None = None,
    retry_after_ms: int | None = None,
) -> frames.Error:
    """Make the `error` frame of a code; `detail` says more than its standing message."""
    rule = ERRORS[code]
    return frames.Error(
        code=code.value,
        message=f"{rule.message} ({detail})" if detail else rule.message,
        retryable=rule.retryable,
        id=request_id,
        retry_after_ms=retry_after_ms,
    )


class Session:
    """One connection's rules. Not thread-safe; `now` is always seconds since the epoch.

    Set a timer for `deadline` after each call, and call `wake` when it is reached.
    """

    _ALLOWED: ClassVar[dict[State, tuple[type, ...]]] = {
        State.CONNECTING: (frames.Connect,),
        State.VERIFYING: (),
        State.OPEN: (frames.Send, frames.Refresh),
        State.CLOSED: (),
    }

    def __init__(self, limits: SessionLimits, now: float) -> None:
        self.state = State.CONNECTING
        self.identity: Identity | None = None
        self.deadline: float | None = now + limits.connect_timeout_s
        self._limits = limits
        self._announced_expiry = False

    def present(self, access_token: str) -> Authenticate:
        """Take the token of the handshake's `Authorization` header in place of `connect`."""
        self.state, self.deadline = State.VERIFYING, None
        return Authenticate(access_token, None)

    def receive(self, raw: bytes | bytearray | str) -> Action | None:
        """Take one text frame. Returns what to do, or nothing once the connection is closed."""
        if self.state is State.CLOSED:
            return None
        try:
            frame = codec.decode(raw)
        except codec.InvalidFrame as error:
            return self._invalid(error)
        except codec.MalformedJson as error:
            return self._close(
                CloseCode.POLICY_VIOLATION, ErrorCode.MALFORMED_JSON, detail=str(error)
            )
        except codec.InvalidUtf8:
            return self._close(CloseCode.INVALID_DATA, None)
        if not isinstance(frame, self._ALLOWED[self.state]):
            return self._out_of_turn(frame)
        match frame:
            case frames.Send():
                return self._send(frame, self._user())
            case frames.Refresh():
                return Renew(frame.id, frame.access_token)
            case frames.Connect():
                self.state, self.deadline = State.VERIFYING, None
                return Authenticate(frame.access_token, frame.refresh_token)

    def receive_binary(self) -> Close | None:
        """Take a binary frame, which `duet.v1` does not have."""
        if self.state is State.CLOSED:
            return None
        return self._close(CloseCode.UNSUPPORTED_DATA, None, reason="frames are JSON text")

    def verified(self, identity: Identity) -> None:
        """The tokens are good: the connection is open until its access token runs out."""
        self.state, self.identity = State.OPEN, identity
        self._schedule_expiry(identity)

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

    def renewed(self, request_id: str, identity: Identity) -> Reply | Close | None:
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
            self._schedule_expiry(identity)
        return Reply(
            frames.Refreshed(id=request_id, expires_at=codec.timestamp(int(held.expires_at * 1000)))
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

    def _schedule_expiry(self, identity: Identity) -> None:
        self._announced_expiry = False
        self.deadline = identity.expires_at - self._limits.expiring_lead_s

    def _user(self) -> UserId:
        if self.identity is None:
            raise AssertionError("an open session has an identity")
        return self.identity.user_id

    def _send(self, frame: frames.Send, sender: UserId) -> Submit | Reply:
        if frame.to == sender:
            return Reply(error_frame(ErrorCode.RECIPIENT_IS_SENDER, request_id=frame.id))
        if not is_valid_client_id(frame.id):
            return self._invalid_field("id", "printable ASCII is wanted", None)
        if not is_valid_client_id(frame.to):  # nor could it be asked about with others' in one URL
            return Reply(error_frame(ErrorCode.RECIPIENT_NOT_FOUND, request_id=frame.id))
        if "\x00" in frame.text:
            return self._invalid_field("text", "U+0000 cannot be stored", frame.id)
        return Submit(Draft(sender, UserId(frame.to), frame.id, frame.text))

    def _invalid_field(self, field: str, reason: str, request_id: str | None) -> Reply:
        return Reply(
            error_frame(
                ErrorCode.INVALID_FRAME, request_id=request_id, detail=f"{reason} - at `$.{field}`"
            )
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

    def _out_of_turn(self, frame: frames.ClientFrame) -> Reply | Close:
        if self.state is State.OPEN:
            return Reply(error_frame(ErrorCode.ALREADY_CONNECTED))
        request_id = None if isinstance(frame, frames.Connect) else frame.id
        return self._close(
            CloseCode.POLICY_VIOLATION, ErrorCode.CONNECT_EXPECTED, request_id=request_id
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
