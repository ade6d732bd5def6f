"""Accounts: sign up, log in, change the password, delete."""

import contextlib
from collections.abc import Callable

import msgspec
import structlog

from profile_service.errors import (
    Fault,
    InvalidAccessToken,
    InvalidCredentials,
    Overloaded,
    ValidationFailed,
    WrongPassword,
)
from profile_service.limits import Limits
from profile_service.metrics import Metrics
from profile_service.passwords import Passwords
from profile_service.ports import AuditEntry, Credentials, SessionStore, StoreUnavailable, UserStore
from profile_service.revocations import RevocationFeed
from profile_service.rotation import Session
from profile_service.sessions import Caller
from profile_service.tokens import TokenAuthority
from profile_service.users import (
    Profile,
    User,
    canonical_username,
    check_device_name,
    check_profile,
    check_username,
)
from shared.ids import UserId, new_session_id, new_user_id
from shared.introspection import IssuedTokens

__all__ = ["Accounts", "Client", "LoggedIn"]

MAX_USER_AGENT_CHARACTERS = 256

_log = structlog.get_logger(__name__)


class Client(msgspec.Struct, frozen=True):
    """From where a request comes; the user agent is whatever the client says."""

    address: str
    user_agent: str | None = None


class LoggedIn(msgspec.Struct, frozen=True):
    """A user with a session and fresh tokens for it."""

    user: User
    session: Session
    tokens: IssuedTokens


class Accounts:
    """The use cases of accounts. Any coroutine may call it.

    `now_ms` gives milliseconds since the epoch.
    """

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
        refresh_lifetime_s: int,
        now_ms: Callable[[], int],
    ) -> None:
        self._users = users
        self._sessions = sessions
        self._passwords = passwords
        self._tokens = tokens
        self._limits = limits
        self._feed = feed
        self._metrics = metrics
        self._refresh_lifetime_ms = refresh_lifetime_s * 1000
        self._now_ms = now_ms

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
            ValidationFailed: username, password, profile or device name are unusable.
            UsernameTaken: in any spelling of upper and lower case, by anybody who ever had it.
            Throttled, Overloaded: try again later.
        """
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
        user = self._new_user(username, profile)
        session = self._new_session(user, device_name, client)
        audit = self._audit("sign_up", user.id, session, client)
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
        async with self._limits.attempt(name, client.address, user_id):
            correct = await self._passwords.verify(password, found.password_hash if found else None)
            if found is None or not correct:
                self._metrics.logged_in(succeeded=False)
                await self._sessions.append_audit(
                    self._audit("login_failed", user_id, None, client)
                )
                raise InvalidCredentials
        session = self._new_session(found.user, device_name, client)
        if not await self._sessions.create_session(
            session,
            expected_version=found.user.token_version,
            audit=self._audit("login", user_id, session, client),
        ):  # the password was changed while we checked the old one
            raise InvalidCredentials
        self._feed.notify()  # one session too many may have made room
        self._metrics.logged_in(succeeded=True)
        await self._rehash(found, password)
        tokens = self._tokens.issue(session, found.user.token_version)
        return LoggedIn(found.user, session, tokens)

    async def change_password(
        self, caller: Caller, current: str, new: str, client: Client
    ) -> LoggedIn:
        """Set a new password and end every other session; this one gets new tokens.

        Raises:
            WrongPassword: `current` is not the password.
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
            audit=self._audit("password_change", caller.user.id, caller.session, client),
        )
        if live is None:
            raise InvalidAccessToken("the session or the password changed meanwhile")
        self._feed.notify()
        tokens = self._tokens.issue(live.session, live.user.token_version)
        return LoggedIn(live.user, live.session, tokens)

    async def delete(self, caller: Caller, password: str, client: Client) -> None:
        """Erase the account and end its sessions. Nobody can ever take its name.

        Raises:
            WrongPassword: it is not the password.
            InvalidAccessToken: the password changed or the account went meanwhile.
            Throttled, Overloaded: try again later.
        """
        await self._confirm_password(caller, password, client)
        audit = self._audit("account_deletion", caller.user.id, caller.session, client)
        if not await self._users.delete_user(
            caller.user.id, expected_version=caller.user.token_version, audit=audit
        ):
            raise InvalidAccessToken("the password or the account changed meanwhile")
        self._feed.notify()
        _log.info("account_deleted", user=caller.user.id)

    async def _confirm_password(self, caller: Caller, password: str, client: Client) -> None:
        name = canonical_username(caller.user.username)
        found = await self._users.credentials(name)
        # By session, not by account: who guesses at log-in must not keep the owner from this.
        async with self._limits.attempt(caller.session.id, client.address, caller.user.id):
            if not await self._passwords.verify(password, found.password_hash if found else None):
                await self._sessions.append_audit(
                    self._audit("login_failed", caller.user.id, caller.session, client)
                )
                raise WrongPassword

    async def _rehash(self, found: Credentials, password: str) -> None:
        """Keep up with the hashing parameters, at the only time when the password is known."""
        if self._passwords.needs_rehash(found.password_hash):
            with contextlib.suppress(Overloaded, StoreUnavailable):  # the next login will do
                new_hash = await self._passwords.hash(password)
                await self._users.rehash_password(found.user.id, found.password_hash, new_hash)

    def _new_user(self, username: str, profile: Profile) -> User:
        now_ms = self._now_ms()
        return User(
            id=new_user_id(),
            username=username,
            profile=profile,
            token_version=1,
            revision=1,
            created_at_ms=now_ms,
            updated_at_ms=now_ms,
        )

    def _new_session(self, user: User, device_name: str | None, client: Client) -> Session:
        now_ms = self._now_ms()
        return Session(
            id=new_session_id(),
            user_id=user.id,
            device_name=device_name,
            user_agent=_printable(client.user_agent),
            generation=1,
            confirmed_generation=0,
            rotated_at_ms=now_ms,
            created_at_ms=now_ms,
            expires_at_ms=now_ms + self._refresh_lifetime_ms,
        )

    def _audit(
        self, kind: str, user_id: UserId | None, session: Session | None, client: Client
    ) -> AuditEntry:
        return AuditEntry(
            at_ms=self._now_ms(),
            kind=kind,
            user_id=user_id,
            session_id=session.id if session else None,
            address=client.address,
        )


def _printable(user_agent: str | None) -> str | None:
    if not user_agent:
        return None
    shown = "".join(c if c.isprintable() else "�" for c in user_agent)
    return shown[:MAX_USER_AGENT_CHARACTERS]
