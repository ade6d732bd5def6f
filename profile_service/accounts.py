"""Accounts: sign up, log in, change the password, delete."""

import contextlib

import structlog

from profile_service.errors import (
    Fault,
    InvalidAccessToken,
    InvalidCredentials,
    NoPassword,
    Overloaded,
    SignUpClosed,
    ValidationFailed,
    WrongPassword,
)
from profile_service.limits import Limits
from profile_service.metrics import Metrics
from profile_service.passwords import Passwords
from profile_service.ports import SessionStore, StoreUnavailable, UserStore
from profile_service.records import Client, LoggedIn, Records
from profile_service.revocations import RevocationFeed
from profile_service.sessions import Caller
from profile_service.tokens import TokenAuthority
from profile_service.users import (
    Profile,
    canonical_username,
    check_device_name,
    check_profile,
    check_username,
)
from shared.ids import UserId

__all__ = ["Accounts"]

_log = structlog.get_logger(__name__)


class Accounts:
    """The use cases of accounts with a password. Any coroutine may call it."""

    def __init__(
        self,
        *,
        users: UserStore,
        sessions: SessionStore,
        passwords: Passwords,
        tokens: TokenAuthority,
        limits: Limits,
        feed: RevocationFeed,
        metrics: Metrics,
        records: Records,
        sign_up_open: bool = True,
    ) -> None:
        self._users = users
        self._sessions = sessions
        self._passwords = passwords
        self._tokens = tokens
        self._limits = limits
        self._feed = feed
        self._metrics = metrics
        self._records = records
        self._sign_up_open = sign_up_open

    async def sign_up(
        self,
        username: str,
        password: str,
        profile: Profile,
        device_name: str | None,
        client: Client,
    ) -> LoggedIn:
        """Create a user and log in the device.

        Raises:
            SignUpClosed: the settings say so.
            ValidationFailed: username, password, profile or device name are unusable.
            UsernameTaken: in any spelling of upper and lower case, by anybody who ever had it.
            Throttled, Overloaded: try again later.
        """
        if not self._sign_up_open:
            raise SignUpClosed
        await self._limits.sign_up(client.address)
        faults = [
            *check_username(username),
            *check_profile(profile),
            *check_device_name(device_name),
        ]
        known_words = [username, profile.display_name or ""]
        faults += await self._passwords.judge(password, known_words)
        if faults:
            raise ValidationFailed(faults)
        password_hash = await self._passwords.hash(password)
        user = self._records.user(username, profile)
        session = self._records.session(user, device_name, client)
        audit = self._records.audit("sign_up", user.id, session, client)
        await self._users.create_user(user, password_hash, session, audit)
        self._metrics.signed_up()
        _log.info("signed_up", user=user.id)
        return LoggedIn(user, session, self._tokens.issue(session, user.token_version))

    async def log_in(
        self, username: str, password: str, device_name: str | None, client: Client
    ) -> LoggedIn:
        """Check a password and open a session for the device.

        Raises:
            ValidationFailed: the device name is unusable.
            InvalidCredentials: no such user or wrong password.
            Throttled, Overloaded: the password was not looked at; try again later.
        """
        if faults := list(check_device_name(device_name)):
            raise ValidationFailed(faults)
        name = canonical_username(username)
        found = await self._users.credentials(name)
        user_id = found.user.id if found else None
        stored = found.password_hash if found else None
        async with self._limits.attempt(name, client.address, user_id):
            correct = await self._passwords.verify(password, stored)
            if found is None or stored is None or not correct:
                self._metrics.logged_in(succeeded=False)
                await self._sessions.append_audit(
                    self._records.audit("login_failed", user_id, None, client)
                )
                raise InvalidCredentials
        session = self._records.session(found.user, device_name, client)
        if not await self._sessions.create_session(
            session,
            expected_version=found.user.token_version,
            audit=self._records.audit("login", user_id, session, client),
        ):  # the password was changed while we checked the old one
            raise InvalidCredentials
        self._feed.notify()  # one session too many may have made room
        self._metrics.logged_in(succeeded=True)
        await self._rehash(found.user.id, stored, password)
        tokens = self._tokens.issue(session, found.user.token_version)
        return LoggedIn(found.user, session, tokens)

    async def change_password(
        self, caller: Caller, current: str, new: str, client: Client
    ) -> LoggedIn:
        """Set a new password and end every other session; this one gets new tokens.

        Raises:
            WrongPassword: `current` is not the password.
            NoPassword: the account has none.
            ValidationFailed: the new one is too weak.
            InvalidAccessToken: the session ended meanwhile.
            Throttled, Overloaded: try again later.
        """
        await self._confirm_password(caller, current, client)
        known_words = [caller.user.username, caller.user.profile.display_name or ""]
        if current == new:
            raise ValidationFailed([Fault("/new_password", "this is the current password")])
        if faults := await self._passwords.judge(new, known_words, "/new_password"):
            raise ValidationFailed(faults)
        live = await self._users.change_password(
            caller.session,
            await self._passwords.hash(new),
            expected_version=caller.user.token_version,
            audit=self._records.audit("password_change", caller.user.id, caller.session, client),
        )
        if live is None:
            raise InvalidAccessToken("the session or the password changed meanwhile")
        self._feed.notify()
        tokens = self._tokens.issue(live.session, live.user.token_version)
        return LoggedIn(live.user, live.session, tokens)

    async def delete(self, caller: Caller, password: str, client: Client) -> None:
        """Erase the account of somebody who knows its password; see `erase`.

        Raises:
            WrongPassword: it is not the password.
            NoPassword: the account has none.
            InvalidAccessToken: the password changed or the account went meanwhile.
            Throttled, Overloaded: try again later.
        """
        await self._confirm_password(caller, password, client)
        await self.erase(caller, client)

    async def erase(self, caller: Caller, client: Client) -> None:
        """Erase an account that its owner has confirmed to be theirs, and end its sessions.

        Nobody can ever take its name.

        Raises:
            InvalidAccessToken: the password changed or the account went meanwhile.
        """
        audit = self._records.audit("account_deletion", caller.user.id, caller.session, client)
        if not await self._users.delete_user(
            caller.user.id, expected_version=caller.user.token_version, audit=audit
        ):
            raise InvalidAccessToken("the password or the account changed meanwhile")
        self._feed.notify()
        _log.info("account_deleted", user=caller.user.id)

    async def _confirm_password(self, caller: Caller, password: str, client: Client) -> None:
        found = await self._users.credentials(canonical_username(caller.user.username))
        stored = found.password_hash if found else None
        if found is not None and stored is None:
            raise NoPassword
        # By session, not by account: who guesses at log-in must not keep the owner from this.
        async with self._limits.attempt(caller.session.id, client.address, caller.user.id):
            if not await self._passwords.verify(password, stored):
                await self._sessions.append_audit(
                    self._records.audit("login_failed", caller.user.id, caller.session, client)
                )
                raise WrongPassword

    async def _rehash(self, user_id: UserId, old_hash: str, password: str) -> None:
        """Keep up with the hashing parameters, at the only time when the password is known."""
        if self._passwords.needs_rehash(old_hash):
            with contextlib.suppress(Overloaded, StoreUnavailable):  # the next login will do
                new_hash = await self._passwords.hash(password)
                await self._users.rehash_password(user_id, old_hash, new_hash)
