"""Keeping the access token fresh: one refresh at a time, and nothing used before it is kept."""

import asyncio
import time
from collections.abc import Callable

from duet_client.credentials import CredentialStore, Tokens
from duet_client.errors import LoginRequired
from duet_client.profile_api import Grant, ProfileApi

__all__ = ["TokenKeeper", "tokens_of"]

_FRESH_FOR_S = 30.0
"""A token that runs out sooner is renewed before it is used."""


def tokens_of(grant: Grant, now: float, before: Tokens | None = None) -> Tokens:
    """Make tokens of a grant; a refresh does not say whose they are, `before` does."""
    if grant.user is not None:
        user_id, username = grant.user.id, grant.user.username
    elif before is not None:
        user_id, username = before.user_id, before.username
    else:
        raise ValueError("the grant names no user")
    return Tokens(
        access_token=grant.access_token,
        refresh_token=grant.refresh_token,
        expires_at=now + grant.expires_in,
        session_id=grant.session_id,
        user_id=user_id,
        username=username,
    )


class TokenKeeper:
    """Hands out access tokens, renewed in time. For one event loop, any number of callers.

    A new pair is stored before it is used, so that dying in between costs nothing: the profile
    service answers the refresh token before once more as long as nobody has shown its successor.
    Cancelling a caller does not cancel the refresh, which others may be waiting for.
    """

    def __init__(
        self,
        api: ProfileApi,
        store: CredentialStore,
        *,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._api = api
        self._store = store
        self._now = now
        self._tokens: Tokens | None = None
        self._renewal: asyncio.Task[Tokens] | None = None

    async def tokens(self) -> Tokens:
        """Return the tokens as they are, fresh or not.

        Raises:
            LoginRequired: there are none.
        """
        if self._tokens is None:
            self._tokens = await asyncio.to_thread(self._store.load)
        if self._tokens is None:
            raise LoginRequired("not logged in")
        return self._tokens

    async def access_token(self) -> str:
        """Return an access token that is good for a while.

        Raises:
            LoginRequired: there is none, and no refresh token that works.
            ServiceUnreachable, TryAgainLater: it cannot be renewed just now.
        """
        tokens = await self.tokens()
        if tokens.expires_at - self._now() < _FRESH_FOR_S:
            tokens = await self.renew(tokens.access_token)
        return tokens.access_token

    async def renew(self, spent: str) -> Tokens:
        """Replace the access token `spent`, unless somebody has already.

        Raises:
            LoginRequired: the refresh token is dead.
            ServiceUnreachable, TryAgainLater: not now; the tokens are as they were.
        """
        if self._renewal is None:
            self._renewal = asyncio.create_task(self._renew(spent), name="duet: renew tokens")
            self._renewal.add_done_callback(self._renewed)
        return await asyncio.shield(self._renewal)

    async def adopt(self, grant: Grant) -> Tokens:
        """Keep a pair that came otherwise (a changed password), and use it from now on."""
        tokens = tokens_of(grant, self._now(), await self.tokens())
        await asyncio.to_thread(self._store.save, tokens)
        self._tokens = tokens
        return tokens

    async def forget(self) -> None:
        """The tokens are dead: keep them no longer."""
        self._tokens = None
        await asyncio.to_thread(self._store.clear)

    async def close(self) -> None:
        """Stop a refresh that is under way; the next process may repeat it."""
        if self._renewal is not None:
            self._renewal.cancel()
            await asyncio.wait([self._renewal])

    async def _renew(self, spent: str) -> Tokens:
        async with self._store.locked():
            kept = await asyncio.to_thread(self._store.load) or await self.tokens()
            if kept.access_token == spent:
                grant = await self._api.refresh(kept.refresh_token)
                kept = tokens_of(grant, self._now(), kept)
                await asyncio.to_thread(self._store.save, kept)
        self._tokens = kept
        return kept

    def _renewed(self, renewal: asyncio.Task[Tokens]) -> None:
        self._renewal = None
        if not renewal.cancelled():
            renewal.exception()  # told to those who waited, if any still do
