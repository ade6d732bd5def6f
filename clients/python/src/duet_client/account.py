"""Accounts: sign up, log in, devices, profiles. Needs no connection to the gateway."""

import contextlib
import functools
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Self, TypeVar

from duet_client.credentials import CredentialStore, MemoryCredentials, Tokens
from duet_client.errors import LoginRequired
from duet_client.profile_api import (
    DEFAULT_PROFILE_URL,
    Device,
    OwnProfile,
    Profile,
    ProfileApi,
    ProfilePage,
)
from duet_client.tokens import TokenKeeper, tokens_of

__all__ = ["Account", "log_in", "sign_up"]

T = TypeVar("T")


async def sign_up(
    profile_url: str,
    username: str,
    password: str,
    *,
    device_name: str | None = None,
    ssl_context: ssl.SSLContext | None = None,
    trust_env: bool = True,
    **profile: str,
) -> Tokens:
    """Create a user and log this device in. This is how a person begins.

    `profile` takes display_name, bio, avatar_url, status_text, locale and timezone.

    Raises:
        UsernameTaken: choose another name.
        ValuesRefused: a name or a password that will not do; `faults` says why.
        TryAgainLater, ServiceUnreachable: nothing was created, or (unreachable) it may have been:
            log in to find out.
    """
    async with ProfileApi(profile_url, ssl_context=ssl_context, trust_env=trust_env) as api:
        grant = await api.sign_up(username, password, device_name, profile)
    return tokens_of(grant, time.time())


async def log_in(
    profile_url: str,
    username: str,
    password: str,
    *,
    device_name: str | None = None,
    ssl_context: ssl.SSLContext | None = None,
    trust_env: bool = True,
) -> Tokens:
    """Log this device in. Keep the tokens in a `CredentialStore` and it stays so for weeks.

    Raises:
        InvalidCredentials: unknown user or wrong password.
        TryAgainLater: too many attempts, or too busy; `retry_after_s`.
        ServiceUnreachable: no answer.
    """
    async with ProfileApi(profile_url, ssl_context=ssl_context, trust_env=trust_env) as api:
        grant = await api.log_in(username, password, device_name)
    return tokens_of(grant, time.time())


class Account:
    """A logged-in person at the profile service. Use as `async with`.

    Every method raises `LoginRequired` when the session has ended, `ServiceUnreachable` when nobody
    answers, and `TryAgainLater`; what else, it says.
    """

    def __init__(
        self,
        profile_url: str = DEFAULT_PROFILE_URL,
        credentials: Tokens | CredentialStore | None = None,
        *,
        ssl_context: ssl.SSLContext | None = None,
        trust_env: bool = True,
    ) -> None:
        store = credentials
        if store is None or isinstance(store, Tokens):
            store = MemoryCredentials(store)
        self._api = ProfileApi(profile_url, ssl_context=ssl_context, trust_env=trust_env)
        self.keeper = TokenKeeper(self._api, store)
        """Keeps the tokens fresh."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections. The device stays logged in."""
        await self.keeper.close()
        await self._api.close()

    async def devices(self) -> list[Device]:
        """List the logged-in devices, the oldest first."""
        return await self._authorized(self._api.devices)

    async def log_out(self) -> None:
        """Log this device out and forget its tokens."""
        with contextlib.suppress(LoginRequired):  # it was already
            await self._authorized(self._api.log_out)
        await self.keeper.forget()

    async def log_out_device(self, session_id: str) -> None:
        """Log another device out.

        Raises:
            SessionNotFound: there is none, or not any more.
        """
        await self._authorized(lambda token: self._api.log_out(token, session_id))

    async def log_out_everywhere(self) -> None:
        """Log every device out, this one too."""
        await self._authorized(self._api.log_out_everywhere)
        await self.keeper.forget()

    async def profile(self) -> OwnProfile:
        """Read the own profile."""
        return (await self.profile_with_revision())[0]

    async def profile_with_revision(self) -> tuple[OwnProfile, str]:
        """Read the own profile and the `if_revision` of a later `update_profile`."""
        return await self._authorized(self._api.own_profile)

    async def update_profile(
        self, *, if_revision: str | None = None, **fields: str | None
    ) -> OwnProfile:
        """Change fields of the own profile; None clears one, what is not named stays.

        Raises:
            ProfileChanged: it is no longer at `if_revision`.
            ValuesRefused: some values are not acceptable.
        """
        changed, _ = await self._authorized(
            lambda token: self._api.update_profile(token, fields, if_revision)
        )
        return changed

    async def user(self, username: str) -> Profile:
        """Read somebody's profile.

        Raises:
            UserNotFound: nobody has this name.
        """
        return await self._authorized(lambda token: self._api.user(token, username))

    async def find_users(self, prefix: str) -> AsyncIterator[Profile]:
        """Yield those whose names begin so, sorted by name; pages are fetched as needed."""
        after: str | None = ""
        while after is not None:
            page = await self._authorized(functools.partial(self._page, prefix, after))
            for user in page.users:
                yield user
            after = page.next

    async def change_password(self, current: str, new: str) -> None:
        """Change the password. Every other device is logged out; this one stays.

        Raises:
            WrongPassword: `current` is not it.
            ValuesRefused: `new` will not do; the reason is told.
        """
        grant = await self._authorized(lambda token: self._api.change_password(token, current, new))
        await self.keeper.adopt(grant)

    async def delete_account(self, password: str) -> None:
        """Delete the account for good, with the text of all of its messages.

        Raises:
            WrongPassword: nothing was deleted.
        """
        await self._authorized(lambda token: self._api.delete_account(token, password))
        await self.keeper.forget()

    async def _page(self, prefix: str, after: str, token: str) -> ProfilePage:
        return await self._api.find_users(token, prefix, after, limit=50)

    async def _authorized(self, call: Callable[[str], Awaitable[T]]) -> T:
        """Call with a token; if that has died before its time, once more with a new one."""
        token = await self.keeper.access_token()
        try:
            return await call(token)
        except LoginRequired:
            renewed = await self.keeper.renew(token)
            return await call(renewed.access_token)
