"""What can go wrong, as one tree of exceptions:

    DuetError
    ├── ServiceUnreachable        no answer over the network; try again later
    ├── TryAgainLater             a service is too busy just now; `retry_after_s`
    ├── LoginRequired             the tokens are dead: log in again
    ├── ProfileRefused            the profile service says no: `code`, `status`, `detail`
    │   ├── InvalidCredentials    unknown user or wrong password
    │   ├── ProfileChanged        somebody changed the profile since you read it
    │   ├── SessionNotFound       no such device, or logged out already
    │   ├── UserNotFound          nobody has this name
    │   ├── UsernameTaken         choose another name
    │   ├── ValuesRefused         some values are not acceptable: `faults`
    │   └── WrongPassword         the current password is wrong; nothing was changed
    ├── RequestRefused            the gateway says no, for good: `code`, `message`
    │   ├── Blocked               this person does not take messages from you
    │   ├── Conflict              the message is deleted, or the id was used for something else
    │   ├── InvalidRequest        text or argument out of bounds
    │   ├── MessageNotFound       you have no conversation with such a message
    │   ├── NotAuthor             only its author may change a message
    │   ├── RecipientIsSender     a message needs another person to go to
    │   └── RecipientNotFound     there is no such user
    ├── NoAnswer                  the answer did not come in time; ask again
    ├── ConnectionEnded           this client will not connect again; what is queued stays queued
    │   ├── ClientClosed          `async with connect(…)` was left
    │   ├── Evicted               newer connections of the same user took this one's place
    │   └── ProtocolFault         the gateway could not make sense of this client, or the reverse
    └── StateError                the state file cannot be used
        ├── OutboxFull            too much is queued already; wait for acknowledgements
        ├── StateInUse            another process, or another client here, has it open
        └── WrongState            it belongs to another user

`TryAgainLater` and `ServiceUnreachable` are the ones to retry; while connected, the client retries
by itself and you meet them only where you ask the profile service directly.
"""

from collections.abc import Sequence

import msgspec

__all__ = [
    "Blocked",
    "ClientClosed",
    "Conflict",
    "ConnectionEnded",
    "DuetError",
    "Evicted",
    "Fault",
    "InvalidCredentials",
    "InvalidRequest",
    "LoginRequired",
    "MessageNotFound",
    "NoAnswer",
    "NotAuthor",
    "OutboxFull",
    "ProfileChanged",
    "ProfileRefused",
    "ProtocolFault",
    "RecipientIsSender",
    "RecipientNotFound",
    "RequestRefused",
    "ServiceUnreachable",
    "SessionNotFound",
    "StateError",
    "StateInUse",
    "TryAgainLater",
    "UserNotFound",
    "UsernameTaken",
    "ValuesRefused",
    "WrongPassword",
    "WrongState",
    "refusal",
]


class DuetError(Exception):
    """Base of everything this package raises on purpose."""


class ServiceUnreachable(DuetError):
    """No answer over the network. Nothing is known of what was asked; asking again is safe."""


class TryAgainLater(DuetError):
    """A service refused for now; nothing was changed."""

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class LoginRequired(DuetError):
    """The tokens are missing, expired or revoked. Log in again."""


class Fault(msgspec.Struct, frozen=True):
    """One value that is not acceptable: a JSON pointer, and what to do about it."""

    pointer: str
    detail: str


class ProfileRefused(DuetError):
    """The profile service refused; `code` is stable, `detail` is for people."""

    def __init__(self, code: str, status: int, detail: str, faults: Sequence[Fault] = ()) -> None:
        super().__init__("; ".join([detail, *(f"{f.pointer}: {f.detail}" for f in faults)]))
        self.code = code
        self.status = status
        self.detail = detail
        self.faults = tuple(faults)


class InvalidCredentials(ProfileRefused):
    """Unknown user or wrong password."""


class ProfileChanged(ProfileRefused):
    """The profile is no longer the one you read. Read it again, then decide."""


class SessionNotFound(ProfileRefused):
    """There is no such device; it may be logged out already."""


class UserNotFound(ProfileRefused):
    """Nobody has this name."""


class UsernameTaken(ProfileRefused):
    """Somebody has this name."""


class ValuesRefused(ProfileRefused):
    """Some values are not acceptable; `faults` says which, why, and what to do."""


class WrongPassword(ProfileRefused):
    """The current password is wrong."""


class RequestRefused(DuetError):
    """The gateway refused a request and would refuse it again; `code` is stable."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class Blocked(RequestRefused):
    """This person does not take messages from you."""


class Conflict(RequestRefused):
    """The message is deleted, or the id names something else already."""


class InvalidRequest(RequestRefused):
    """A text or an argument is out of bounds; the message says which."""


class MessageNotFound(RequestRefused):
    """You have no conversation with such a message."""


class NotAuthor(RequestRefused):
    """Only its author may change a message."""


class RecipientIsSender(RequestRefused):
    """A message needs another person to go to."""


class RecipientNotFound(RequestRefused):
    """There is no such user."""


class NoAnswer(DuetError):
    """The answer did not come in time. Nothing is known of the request; asking again is safe."""


class ConnectionEnded(DuetError):
    """This client will not connect again. What is queued stays in its state file."""


class ClientClosed(ConnectionEnded):
    """The client was closed here."""


class Evicted(ConnectionEnded):
    """Newer connections of the same user took this one's place."""


class ProtocolFault(ConnectionEnded):
    """One side could not make sense of the other: probably one of them is too old."""


class StateError(DuetError):
    """The state file cannot be used; the message says why."""


class OutboxFull(StateError):
    """Too many messages wait for their acknowledgement. Nothing was queued."""


class StateInUse(StateError):
    """Somebody else has the state file open. Use one file for each client that runs at once."""


class WrongState(StateError):
    """The state file belongs to another user. Use one file for each user."""


_REFUSALS: dict[str, type[RequestRefused]] = {
    "blocked": Blocked,
    "conflict": Conflict,
    "invalid_frame": InvalidRequest,
    "invalid_cursor": InvalidRequest,
    "message_not_found": MessageNotFound,
    "not_author": NotAuthor,
    "recipient_is_sender": RecipientIsSender,
    "recipient_not_found": RecipientNotFound,
}


def refusal(code: str, message: str) -> RequestRefused:
    """Make the exception of an error code of the gateway."""
    return _REFUSALS.get(code, RequestRefused)(code, message)
