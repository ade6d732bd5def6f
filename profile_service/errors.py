"""Everything the use cases refuse, as one tree. Each error carries the data its answer needs.

    AccountError
    ├── ValidationFailed       some fields are unusable; carries every fault
    ├── UsernameTaken
    ├── InvalidCredentials     unknown user or wrong password: never says which
    ├── WrongPassword          a logged-in person gave a wrong current password
    ├── NoPassword             the account signs in elsewhere; there is none to check or change
    ├── SignUpClosed           this installation makes no accounts with passwords
    ├── InvalidExternalToken   the identity provider's token is not good; carries the reason
    ├── InvalidAccessToken
    ├── InvalidRefreshToken
    ├── UserNotFound
    ├── SessionNotFound
    ├── RevisionMismatch       somebody else changed the profile first
    ├── Throttled              too many attempts; carries when to try again
    ├── Overloaded             too much work is waiting; carries when to try again
    └── ExternalKeysUnavailable  the provider's keys cannot be had; carries when to try again

`http_api.problems` maps each to a status code and a problem type.
"""

import dataclasses
from collections.abc import Sequence
from typing import Literal

__all__ = [
    "AccountError",
    "ExternalKeysUnavailable",
    "Fault",
    "InvalidAccessToken",
    "InvalidCredentials",
    "InvalidExternalToken",
    "InvalidRefreshToken",
    "NoPassword",
    "Overloaded",
    "RefusedBecause",
    "RevisionMismatch",
    "SessionNotFound",
    "SignUpClosed",
    "Throttled",
    "UserNotFound",
    "UsernameTaken",
    "ValidationFailed",
    "WrongPassword",
]

RefusedBecause = Literal[
    "malformed",
    "algorithm",
    "unknown_key",
    "signature",
    "claims",
    "issuer",
    "audience",
    "expired",
    "not_yet_valid",
    "not_fresh",
    "another_person",
]
"""Why a token of the identity provider was refused: for the answer, the log and the audit trail."""


@dataclasses.dataclass(frozen=True)
class Fault:
    """One thing that is wrong with a request: where (RFC 6901 JSON pointer) and what to do."""

    pointer: str
    detail: str


class AccountError(Exception):
    """The request was understood and refused; nothing was changed unless the subclass says so."""


class ValidationFailed(AccountError):
    """Some fields are unusable. Show `faults` to the person and let them correct them."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        super().__init__("; ".join(f"{fault.pointer}: {fault.detail}" for fault in faults))
        self.faults = tuple(faults)


class UsernameTaken(AccountError):
    """Somebody has, or had, this name in some spelling of upper and lower case."""


class InvalidCredentials(AccountError):
    """There is no such user or the password is wrong."""


class WrongPassword(AccountError):
    """The current password that confirms a change is wrong."""


class NoPassword(AccountError):
    """The account was made by a token of the identity provider, and has no password."""


class SignUpClosed(AccountError):
    """Nobody can sign up with a password here; the settings say so."""


class InvalidExternalToken(AccountError):
    """The identity provider's token proves nothing here. `reason` says which check failed."""

    def __init__(self, reason: RefusedBecause) -> None:
        super().__init__(reason)
        self.reason = reason


class InvalidAccessToken(AccountError):
    """The access token is malformed, forged or expired, or its session has ended."""


class InvalidRefreshToken(AccountError):
    """The refresh token buys nothing. When it was replayed, its session has been ended."""


class UserNotFound(AccountError):
    """There is no such user, or not any more."""


class SessionNotFound(AccountError):
    """There is no such session of this user, or not any more."""


class RevisionMismatch(AccountError):
    """The profile has changed since the client read it. Read it again, then decide."""


class Throttled(AccountError):
    """Too many attempts. The same request may succeed after `retry_after_s` seconds."""

    def __init__(self, retry_after_s: float) -> None:
        super().__init__(f"try again in {retry_after_s:.0f} s")
        self.retry_after_s = retry_after_s


class Overloaded(AccountError):
    """Too many passwords are waiting to be hashed. Try again after `retry_after_s` seconds."""

    def __init__(self, retry_after_s: float) -> None:
        super().__init__(f"try again in {retry_after_s:.0f} s")
        self.retry_after_s = retry_after_s


class ExternalKeysUnavailable(AccountError):
    """Whether the token is good cannot be told: the keys are not to be had just now."""

    def __init__(self, retry_after_s: float) -> None:
        super().__init__(f"try again in {retry_after_s:.0f} s")
        self.retry_after_s = retry_after_s
