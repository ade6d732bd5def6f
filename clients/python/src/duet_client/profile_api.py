"""The profile service's HTTP API, one method an operation; its problems become exceptions."""

import asyncio
import ssl
import urllib.parse
from datetime import datetime
from typing import Any, Self, TypeVar

import httpx
import msgspec

from duet_client.errors import (
    ClientClosed,
    Fault,
    InvalidCredentials,
    LoginRequired,
    ProfileChanged,
    ProfileRefused,
    ServiceUnreachable,
    SessionNotFound,
    TryAgainLater,
    UsernameTaken,
    UserNotFound,
    ValuesRefused,
    WrongPassword,
)

__all__ = [
    "DEFAULT_PROFILE_URL",
    "Device",
    "Grant",
    "OwnProfile",
    "Profile",
    "ProfileApi",
    "ProfilePage",
]

T = TypeVar("T")

DEFAULT_PROFILE_URL = "http://127.0.0.1:8000"
_TIMEOUT_S = 20.0
_TOO_BUSY = frozenset({408, 429, 500, 502, 503, 504})


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """What anybody who is logged in may know of a user."""

    id: str
    username: str
    display_name: str | None = None
    bio: str | None = None
    avatar_url: str | None = None
    status_text: str | None = None


class OwnProfile(Profile, frozen=True, kw_only=True):
    """What you see of your own account."""

    locale: str | None = None
    timezone: str | None = None
    created_at: datetime
    updated_at: datetime


class ProfilePage(msgspec.Struct, frozen=True):
    """Users sorted by name; `next` is the `after` of the next page, if there is one."""

    users: list[Profile]
    next: str | None = None


class Grant(msgspec.Struct, frozen=True, kw_only=True):
    """A pair of tokens; with the account when a device has just logged in."""

    access_token: str
    refresh_token: str
    expires_in: int
    session_id: str
    user: OwnProfile | None = None

    def __repr__(self) -> str:
        return "Grant(…)"


class Device(msgspec.Struct, frozen=True, kw_only=True):
    """A logged-in device; `current` is this one."""

    id: str
    device_name: str | None
    user_agent: str | None
    created_at: datetime
    refreshed_at: datetime
    expires_at: datetime
    current: bool


class _Devices(msgspec.Struct, frozen=True):
    sessions: list[Device]


class _Problem(msgspec.Struct, frozen=True):
    code: str
    title: str = ""
    detail: str | None = None
    errors: list[Fault] = []


_REFUSALS: dict[str, type[ProfileRefused]] = {
    "invalid_credentials": InvalidCredentials,
    "precondition_failed": ProfileChanged,
    "session_not_found": SessionNotFound,
    "user_not_found": UserNotFound,
    "username_taken": UsernameTaken,
    "validation_failed": ValuesRefused,
    "wrong_password": WrongPassword,
}
_DEAD_TOKENS = frozenset({"invalid_grant", "invalid_token", "authentication_required"})


class ProfileApi:
    """Makes requests. Every method raises `ServiceUnreachable`, `TryAgainLater` or a
    `ProfileRefused`; those that take a token, `LoginRequired` as well. Use as `async with`.
    """

    def __init__(
        self,
        url: str = DEFAULT_PROFILE_URL,
        *,
        ssl_context: ssl.SSLContext | None = None,
        trust_env: bool = True,
        timeout_s: float = _TIMEOUT_S,
    ) -> None:
        self._timeout_s = timeout_s
        self._http = httpx.AsyncClient(
            base_url=url.rstrip("/"),
            trust_env=trust_env,
            verify=True if ssl_context is None else ssl_context,
            timeout=timeout_s,
            headers={"User-Agent": "duet-client"},
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def sign_up(
        self, username: str, password: str, device_name: str | None, fields: dict[str, str]
    ) -> Grant:
        """Create a user and log this device in."""
        body = {"username": username, "password": password, "device_name": device_name, **fields}
        return await self._ask("POST", "/v1/users", Grant, json=_present(body))

    async def log_in(self, username: str, password: str, device_name: str | None) -> Grant:
        """Log this device in."""
        body = {"username": username, "password": password, "device_name": device_name}
        return await self._ask("POST", "/v1/sessions", Grant, json=_present(body))

    async def refresh(self, refresh_token: str) -> Grant:
        """Exchange a refresh token. Repeating it is safe when the answer was lost."""
        return await self._ask("POST", "/v1/token", Grant, json={"refresh_token": refresh_token})

    async def log_out(self, token: str, session_id: str = "current") -> None:
        """Log out one device."""
        await self._ask("DELETE", f"/v1/sessions/{_segment(session_id)}", None, token)

    async def log_out_everywhere(self, token: str) -> None:
        """Log out every device."""
        await self._ask("DELETE", "/v1/sessions", None, token)

    async def devices(self, token: str) -> list[Device]:
        """List the logged-in devices, the oldest first."""
        return (await self._ask("GET", "/v1/sessions", _Devices, token)).sessions

    async def own_profile(self, token: str) -> tuple[OwnProfile, str]:
        """Read the own profile and its revision."""
        return await self._own("GET", token)

    async def update_profile(
        self, token: str, fields: dict[str, str | None], revision: str | None
    ) -> tuple[OwnProfile, str]:
        """Change fields of the own profile; None clears one."""
        headers = {"Content-Type": "application/merge-patch+json"}
        if revision is not None:
            headers["If-Match"] = revision
        return await self._own("PATCH", token, content=msgspec.json.encode(fields), headers=headers)

    async def user(self, token: str, username: str) -> Profile:
        """Read somebody's profile by name."""
        if username == "" or "/" in username:  # these are other paths, even when quoted
            raise UserNotFound("user_not_found", 404, "nobody has this name")
        return await self._ask("GET", f"/v1/users/{_segment(username)}", Profile, token)

    async def find_users(self, token: str, prefix: str, after: str, limit: int) -> ProfilePage:
        """Find users by how their names begin."""
        query: dict[str, str | int] = {"prefix": prefix, "limit": limit}
        if after:
            query["after"] = after
        return await self._ask("GET", "/v1/users", ProfilePage, token, params=query)

    async def change_password(self, token: str, current: str, new: str) -> Grant:
        """Change the password; every other device is logged out, this one gets new tokens."""
        body = {"current_password": current, "new_password": new}
        return await self._ask("PUT", "/v1/users/me/password", Grant, token, json=body)

    async def delete_account(self, token: str, password: str) -> None:
        """Delete the account for good."""
        await self._ask("DELETE", "/v1/users/me", None, token, json={"password": password})

    async def _own(self, method: str, token: str, **options: Any) -> tuple[OwnProfile, str]:
        answer = await self._request(method, "/v1/users/me", token, **options)
        return _decoded(answer, OwnProfile), answer.headers.get("ETag", "")

    async def _ask(
        self, method: str, path: str, kind: type[T] | None, token: str | None = None, **options: Any
    ) -> T:
        answer = await self._request(method, path, token, **options)
        return _decoded(answer, kind) if kind is not None else None  # type: ignore[return-value]

    async def _request(
        self, method: str, path: str, token: str | None, **options: Any
    ) -> httpx.Response:
        if token is not None:
            options["headers"] = {
                **options.get("headers", {}),
                "Authorization": f"Bearer {token}",
            }
        if self._http.is_closed:
            raise ClientClosed("the client is closed")
        try:
            async with asyncio.timeout(self._timeout_s):
                answer = await self._http.request(method, path, **options)
        except (httpx.HTTPError, TimeoutError, OSError) as error:
            reason = str(error) or type(error).__name__
            raise ServiceUnreachable(f"the profile service does not answer: {reason}") from None
        if answer.is_error:
            raise _refusal(answer)
        return answer


def _refusal(answer: httpx.Response) -> Exception:
    try:
        problem = msgspec.json.decode(answer.content, type=_Problem)
    except msgspec.DecodeError:  # something in between answered
        problem = _Problem("unknown", f"HTTP {answer.status_code}")
    detail = problem.detail or problem.title
    if problem.code in _DEAD_TOKENS:
        return LoginRequired(detail)
    if answer.status_code in _TOO_BUSY:
        return TryAgainLater(detail, _retry_after_s(answer))
    kind = _REFUSALS.get(problem.code, ProfileRefused)
    return kind(problem.code, answer.status_code, detail, problem.errors)


def _retry_after_s(answer: httpx.Response) -> float:
    told = answer.headers.get("Retry-After", "")
    return float(told) if told.isascii() and told.isdigit() else 1.0


def _decoded(answer: httpx.Response, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(answer.content, type=kind)
    except msgspec.DecodeError as error:
        raise ServiceUnreachable(f"what answered is no profile service: {error}") from None


def _present(fields: dict[str, str | None]) -> dict[str, str]:
    return {name: value for name, value in fields.items() if value is not None}


def _segment(text: str) -> str:
    """Quote a piece of a path; `.` and `..` would lead elsewhere, and nobody is called so."""
    quoted = urllib.parse.quote(text, safe="")
    return quoted.replace(".", "%2E") if text.strip(".") == "" else quoted
