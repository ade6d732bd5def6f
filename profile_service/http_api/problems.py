"""Refusals as `application/problem+json` (RFC 9457): one table of codes, one of errors."""

import math
from collections.abc import Mapping, Sequence

import msgspec
from starlette.responses import Response

from profile_service import errors
from profile_service.ports import StoreUnavailable

__all__ = ["PROBLEMS", "Problem", "ProblemError", "problem_response", "response_to"]

PROBLEMS: Mapping[str, tuple[int, str]] = {
    "malformed_json": (400, "The body is not JSON"),
    "invalid_grant": (400, "The refresh token is not valid"),
    "authentication_required": (401, "An access token is required"),
    "invalid_token": (401, "The token is not valid"),
    "invalid_external_token": (401, "The identity provider's token is not valid"),
    "invalid_credentials": (401, "Unknown user or wrong password"),
    "wrong_password": (403, "The current password is wrong"),
    "no_password": (403, "This account has no password"),
    "sign_up_closed": (403, "Signing up is closed"),
    "external_sign_in_off": (404, "No identity provider is set up"),
    "not_found": (404, "There is nothing here"),
    "user_not_found": (404, "There is no such user"),
    "session_not_found": (404, "There is no such session"),
    "method_not_allowed": (405, "The method is not allowed here"),
    "request_timeout": (408, "The body took too long to arrive"),
    "username_taken": (409, "The username is taken"),
    "precondition_failed": (412, "The profile has changed"),
    "content_too_large": (413, "The body is too large"),
    "unsupported_media_type": (415, "The body is of the wrong type"),
    "validation_failed": (422, "Some values are not acceptable"),
    "too_many_attempts": (429, "Too many attempts"),
    "internal_error": (500, "Something went wrong here"),
    "overloaded": (503, "Too much is waiting"),
    "identity_provider_unavailable": (503, "The identity provider does not answer"),
    "unavailable": (503, "The database does not answer"),
}
"""Status and title of each code. Codes are stable: clients decide by them."""

UNAVAILABLE_RETRY_S = 1


class ProblemField(msgspec.Struct, frozen=True):
    """One value that is not acceptable: a JSON pointer into the body, and what to do."""

    pointer: str
    detail: str


class Problem(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """Why a request was refused, for machines (`code`) and for people (`title`, `detail`)."""

    type: str
    title: str
    status: int
    code: str
    detail: str | msgspec.UnsetType = msgspec.UNSET
    instance: str | msgspec.UnsetType = msgspec.UNSET
    """Names this occurrence, for the log."""
    errors: list[ProblemField] | msgspec.UnsetType = msgspec.UNSET


class ProblemError(Exception):
    """A refusal that the HTTP layer itself decides on."""

    def __init__(
        self,
        code: str,
        detail: str | None = None,
        *,
        faults: Sequence[errors.Fault] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(code)
        self.code = code
        self.detail = detail
        self.faults = faults
        self.headers = headers


def problem_response(
    code: str,
    detail: str | None = None,
    *,
    faults: Sequence[errors.Fault] = (),
    headers: Mapping[str, str] | None = None,
    instance: str | None = None,
) -> Response:
    """Make the response that refuses with this code."""
    status, title = PROBLEMS[code]
    problem = Problem(
        type=f"urn:duet:problem:{code}",
        title=title,
        status=status,
        code=code,
        detail=detail or msgspec.UNSET,
        instance=instance or msgspec.UNSET,
        errors=[ProblemField(fault.pointer, fault.detail) for fault in faults] or msgspec.UNSET,
    )
    return Response(
        msgspec.json.encode(problem),
        status_code=status,
        headers=dict(headers or {}),
        media_type="application/problem+json",
    )


def response_to(error: Exception) -> Response | None:
    """Turn an error into its response; None for one that nobody expected."""
    match error:
        case ProblemError():
            return problem_response(
                error.code, error.detail, faults=error.faults, headers=error.headers
            )
        case errors.ValidationFailed():
            return problem_response("validation_failed", faults=error.faults)
        case errors.Throttled():
            return _try_again("too_many_attempts", error.retry_after_s)
        case errors.Overloaded():
            return _try_again("overloaded", error.retry_after_s)
        case errors.ExternalKeysUnavailable():
            return _try_again("identity_provider_unavailable", error.retry_after_s)
        case errors.InvalidExternalToken():
            return problem_response(
                "invalid_external_token", _REFUSED_BECAUSE[error.reason], headers=_BEARER
            )
        case StoreUnavailable():
            return _try_again("unavailable", UNAVAILABLE_RETRY_S)
        case _:
            simple = _SIMPLE.get(type(error))
            return simple and problem_response(simple[0], simple[1], headers=simple[2])


def _try_again(code: str, after_s: float) -> Response:
    seconds = max(1, math.ceil(after_s))
    return problem_response(
        code,
        f"Nothing was changed. Try again in {seconds} s.",
        headers={"Retry-After": str(seconds)},
    )


_BEARER = {"WWW-Authenticate": 'Bearer realm="duet"'}
_BEARER_INVALID = {"WWW-Authenticate": 'Bearer realm="duet", error="invalid_token"'}

_REFUSED_BECAUSE: Mapping[errors.RefusedBecause, str] = {
    "malformed": "It is not a signed JWT that can be read here.",
    "algorithm": "It is signed with an algorithm that the settings do not allow.",
    "unknown_key": "It is signed with a key that is not in the provider's key set.",
    "signature": "The signature is wrong.",
    "claims": "A claim is missing or of the wrong type: iss, aud, exp and the subject are needed.",
    "issuer": "It was issued by somebody else: `iss` is not the one in the settings.",
    "audience": "It is for somebody else: `aud` is not the one in the settings.",
    "expired": "It has expired. Get a new one.",
    "not_yet_valid": "It is not valid yet. Do the clocks agree?",
    "not_fresh": "This needs a token whose `iat` is at most five minutes ago. Get a new one.",
    "another_person": "It is about somebody else than the account.",
}

_SIMPLE: dict[type[Exception], tuple[str, str, Mapping[str, str]]] = {
    errors.InvalidAccessToken: (
        "invalid_token",
        "It is malformed or expired, or its session has ended. Refresh it, or log in again.",
        _BEARER_INVALID,
    ),
    errors.InvalidRefreshToken: (
        "invalid_grant",
        "It is malformed, expired or used up, or its session has ended. Log in again.",
        {},
    ),
    errors.InvalidCredentials: (
        "invalid_credentials",
        "Check the username and the password.",
        _BEARER,
    ),
    errors.WrongPassword: ("wrong_password", "Nothing was changed.", {}),
    errors.NoPassword: (
        "no_password",
        "Whoever made the account signs in with a token of the identity provider. "
        "To delete it, send a fresh one as `external_token`.",
        {},
    ),
    errors.SignUpClosed: (
        "sign_up_closed",
        "Accounts are not made here. Sign in where you have one.",
        {},
    ),
    errors.UserNotFound: ("user_not_found", "Check the name.", {}),
    errors.SessionNotFound: ("session_not_found", "It may have ended already.", {}),
    errors.UsernameTaken: ("username_taken", "Choose another one.", {}),
    errors.RevisionMismatch: (
        "precondition_failed",
        "Read the profile again, then decide whether your change still makes sense.",
        {},
    ),
}
