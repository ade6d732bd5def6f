"""Accounts of people whom an embedder's identity provider vouches for: they have no password.

A token of the provider is exchanged for a session of ours, in the manner of RFC 8693. The first one
makes the account.
"""

import contextlib

import structlog

from profile_service.accounts import Accounts
from profile_service.errors import (
    ExternalKeysUnavailable,
    InvalidExternalToken,
    ValidationFailed,
)
from profile_service.external_people import ExternalPerson, usernames
from profile_service.external_tokens import ExternalTokens
from profile_service.limits import Limits
from profile_service.metrics import Metrics
from profile_service.ports import SessionStore, StoreUnavailable, UserStore
from profile_service.records import Client, LoggedIn, Records
from profile_service.revocations import RevocationFeed
from profile_service.sessions import Caller
from profile_service.tokens import TokenAuthority
from profile_service.users import User, check_device_name

__all__ = ["ExternalAccounts"]

FRESH_S = 300
"""A token that confirms a deletion was made within this time: the person is here, now."""

_log = structlog.get_logger(__name__)


class ExternalAccounts:
    """The use cases of accounts without a password. Any coroutine may call it."""

    def __init__(
        self,
        *,
        accounts: Accounts,
        users: UserStore,
        sessions: SessionStore,
        external_tokens: ExternalTokens,
        tokens: TokenAuthority,
        limits: Limits,
        feed: RevocationFeed,
        metrics: Metrics,
        records: Records,
    ) -> None:
        self._accounts = accounts
        self._users = users
        self._sessions = sessions
        self._external_tokens = external_tokens
        self._tokens = tokens
        self._limits = limits
        self._feed = feed
        self._metrics = metrics
        self._records = records

    async def open_session(self, token: str, device_name: str | None, client: Client) -> LoggedIn:
        """Exchange a token for a session, making the account at first sight.

        Raises:
            ValidationFailed: the device name is unusable.
            InvalidExternalToken: the token is not good.
            ExternalKeysUnavailable, Throttled: try again later.
        """
        if faults := list(check_device_name(device_name)):
            raise ValidationFailed(faults)
        person = await self._checked(token, client)
        await self._limits.external_session(person.identity, client.address)
        opened: LoggedIn | None = None
        while opened is None:  # each turn means that another change to this account went through
            user = await self._users.user_by_identity(person.identity)
            if user is None:
                opened = await self._first_session(person, device_name, client)
            else:
                opened = await self._next_session(user, device_name, client)
        return opened

    async def delete(self, caller: Caller, token: str, client: Client) -> None:
        """Erase the account of somebody who has just signed in at the provider.

        Raises:
            InvalidExternalToken: it is not good, not fresh, or about somebody else.
            ExternalKeysUnavailable, Throttled: try again later.
            InvalidAccessToken: the account went meanwhile.
        """
        await self._checked(token, client, deleting=caller)
        await self._accounts.erase(caller, client)

    async def _first_session(
        self, person: ExternalPerson, device_name: str | None, client: Client
    ) -> LoggedIn | None:
        draft = self._records.user("", person.profile)
        session = self._records.session(draft, device_name, client)
        user = await self._users.create_external_user(
            draft,
            list(usernames(person.username, person.identity, draft.id)),
            person.identity,
            session,
            self._records.audit("external_sign_up", draft.id, session, client),
        )
        if user is None:  # another device of the same person was first
            return None
        self._metrics.signed_up()
        self._metrics.signed_in_externally("created")
        _log.info("signed_up", user=user.id, external=True)
        return LoggedIn(user, session, self._tokens.issue(session, user.token_version))

    async def _next_session(
        self, user: User, device_name: str | None, client: Client
    ) -> LoggedIn | None:
        session = self._records.session(user, device_name, client)
        if not await self._sessions.create_session(
            session,
            expected_version=user.token_version,
            audit=self._records.audit("external_login", user.id, session, client),
        ):
            return None
        self._feed.notify()  # one session too many may have made room
        self._metrics.signed_in_externally("known")
        return LoggedIn(user, session, self._tokens.issue(session, user.token_version))

    async def _checked(
        self, token: str, client: Client, deleting: Caller | None = None
    ) -> ExternalPerson:
        async with self._limits.external_token(client.address):
            try:
                person = await self._external_tokens.check(token)
                if deleting is not None:
                    await self._confirm(person, deleting)
            except InvalidExternalToken as error:
                await self._note_refusal(error, client, deleting)
                raise
            except ExternalKeysUnavailable:
                self._metrics.signed_in_externally("unavailable")
                raise
        return person

    async def _confirm(self, person: ExternalPerson, caller: Caller) -> None:
        age_s = self._external_tokens.age_s(person)
        if age_s is None or age_s > FRESH_S:
            raise InvalidExternalToken("not_fresh")
        user = await self._users.user_by_identity(person.identity)
        if user is None or user.id != caller.user.id:
            raise InvalidExternalToken("another_person")

    async def _note_refusal(
        self, error: InvalidExternalToken, client: Client, caller: Caller | None
    ) -> None:
        self._metrics.signed_in_externally("refused")
        _log.warning("external_token_refused", reason=error.reason, address=client.address)
        audit = self._records.audit(
            "external_login_failed",
            caller.user.id if caller else None,
            caller.session if caller else None,
            client,
            error.reason,
        )
        with contextlib.suppress(StoreUnavailable):
            await self._sessions.append_audit(audit)
