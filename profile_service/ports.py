"""What the use cases need of stores, so that PostgreSQL can stand where SQLite and files do, and of
an identity provider, whose keys come from a file or from a URL.

Each method of a store is one transaction: it happens completely, durably and before it returns, or
not at all. Every one of them may raise `StoreUnavailable`: nothing was changed (or, when a
connection broke at the wrong moment, it is not known whether), the same call may succeed later.
Several services may share the stores of PostgreSQL; what is said of one call holds among them, too.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

import msgspec

from profile_service.allowances import Charge, Refusal
from profile_service.external_people import ExternalIdentity
from profile_service.key_sets import PublicKey
from profile_service.rotation import Decision, PresentedRefresh, RotationRule, Session
from profile_service.tokens import KeyRing
from profile_service.users import Profile, User
from shared.ids import SessionId, UserId
from shared.revocation import HeldSession, Revocation

__all__ = [
    "AuditEntry",
    "Credentials",
    "ExternalKeys",
    "FeedEntry",
    "FeedPosition",
    "KeySource",
    "KeysUnusable",
    "LiveSession",
    "Rotation",
    "SessionStore",
    "StoreUnavailable",
    "Stores",
    "Throttle",
    "UserStore",
]


class StoreUnavailable(Exception):
    """The store cannot do this now. Nothing was changed; the same call may succeed later."""


class KeysUnusable(Exception):
    """A signing key cannot be read or made. The message names it and says what is wrong."""


class AuditEntry(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened to an account. It holds no credential and no free text of a client.

    Kinds: `sign_up`, `login`, `login_failed`, `external_sign_up`, `external_login`,
    `external_login_failed`, `refresh`, `reuse`, `revocation`, `password_change`,
    `account_deletion`, `throttle`.
    """

    at_ms: int
    kind: str
    user_id: UserId | None = None
    session_id: SessionId | None = None
    address: str | None = None
    detail: str | None = None

    def of(self, decision: Decision, user_id: UserId) -> "AuditEntry | None":
        """Return the row that a decision about a refresh token leaves, if it leaves one."""
        kind = _REFRESH_KINDS.get(decision)
        if kind is None:
            return None
        return msgspec.structs.replace(self, kind=kind, detail=decision.value, user_id=user_id)


_REFRESH_KINDS = {Decision.ROTATE: "refresh", Decision.REUSE: "reuse"}


class Credentials(msgspec.Struct, frozen=True):
    """A user together with the hash that the password must match; None: there is no password."""

    user: User
    password_hash: str | None

    def __repr__(self) -> str:
        return f"Credentials({self.user.id!r}, …)"


class LiveSession(msgspec.Struct, frozen=True):
    """A session that has neither ended nor expired, with its user."""

    session: Session
    user: User


class Rotation(msgspec.Struct, frozen=True):
    """What was decided and done; `live` is the state afterwards unless the token was refused."""

    decision: Decision
    live: LiveSession | None


class FeedPosition(msgspec.Struct, frozen=True):
    """A place in the feed of revocations. The nonce tells this feed from a lost timeline's."""

    position: int
    nonce: str


class FeedEntry(msgspec.Struct, frozen=True):
    """A revocation and its place in the feed."""

    at: FeedPosition
    revocation: Revocation


class UserStore(Protocol):
    """Users, and the changes to them that end sessions."""

    async def create_user(
        self, user: User, password_hash: str, session: Session, audit: AuditEntry
    ) -> None:
        """Store a new user with the first session.

        Raises:
            UsernameTaken: the name, folded, belongs or belonged to somebody.
        """
        ...

    async def create_external_user(
        self,
        user: User,
        names: Sequence[str],
        identity: ExternalIdentity,
        session: Session,
        audit: AuditEntry,
    ) -> User | None:
        """Store a new user without a password, with the identity and the first session.

        The user gets the first of the names that is free, and is returned. None, with nothing
        changed, means that the identity has a user already.

        Raises:
            UsernameTaken: none of the names is free.
        """
        ...

    async def user_by_identity(self, identity: ExternalIdentity) -> User | None:
        """Return the user whom the identity provider knows as that."""
        ...

    async def credentials(self, canonical_username: str) -> Credentials | None:
        """Find whom a login is about."""
        ...

    async def users(self, ids: Sequence[UserId]) -> list[User]:
        """Return those of the users that exist, in no order."""
        ...

    async def deleted_users(self, ids: Sequence[UserId]) -> list[UserId]:
        """Return those of the users that deleted their account, in no order."""
        ...

    async def user_by_name(self, canonical_username: str) -> User | None:
        """Return the user of that name."""
        ...

    async def users_by_prefix(self, prefix: str, after: str, limit: int) -> list[User]:
        """Return users whose folded names begin with `prefix` and come after `after`, sorted."""
        ...

    async def update_profile(
        self, user_id: UserId, profile: Profile, *, expected_revision: int, now_ms: int
    ) -> User | None:
        """Replace the profile if it still has that revision; None means that it has not."""
        ...

    async def rehash_password(self, user_id: UserId, old_hash: str, new_hash: str) -> None:
        """Store the same password hashed with other parameters, unless it was changed meanwhile."""
        ...

    async def change_password(
        self, kept: Session, password_hash: str, *, expected_version: int, audit: AuditEntry
    ) -> LiveSession | None:
        """Store a new password, raise the token version, end all of the user's sessions but one.

        Returns the kept session, a generation further; None, with nothing changed, when it has
        ended or the user's token version is no longer that one.
        """
        ...

    async def delete_user(
        self, user_id: UserId, *, expected_version: int, audit: AuditEntry
    ) -> bool:
        """Erase profile, password and external identity, end all sessions, keep the name taken.

        Returns False, with nothing changed, when the token version is no longer that one.
        """
        ...


class SessionStore(Protocol):
    """Sessions, the feed of what ended them, and the audit trail."""

    async def create_session(
        self, session: Session, *, expected_version: int, audit: AuditEntry
    ) -> bool:
        """Store a new session; False when the user's token version is no longer that one.

        Of more than `MAX_SESSIONS_PER_USER` live ones, those refreshed longest ago are ended.
        """
        ...

    async def live_sessions(self, ids: Sequence[SessionId], now_ms: int) -> list[LiveSession]:
        """Return those that are alive, in no order."""
        ...

    async def sessions_of(self, user_id: UserId, now_ms: int) -> list[Session]:
        """Return a user's live sessions, the oldest first."""
        ...

    async def rotate(
        self,
        presented: Sequence[tuple[PresentedRefresh, AuditEntry]],
        *,
        now_ms: int,
        rule: RotationRule,
        expires_at_ms: int,
    ) -> list[Rotation]:
        """Apply `rotation.decide` to each in turn, in one transaction, and do what it says.

        A reuse ends the session and appends a revocation. The given entry is the audit row of a
        rotation, and of a reuse with its kind replaced. Nothing else leaves one: it could be asked
        for without end.
        """
        ...

    async def confirm(self, shown: Sequence[tuple[SessionId, int]]) -> None:
        """Note that tokens of these generations were shown by their clients."""
        ...

    async def end_session(self, user_id: UserId, session_id: SessionId, audit: AuditEntry) -> bool:
        """End one session; False when this user has no such live session."""
        ...

    async def end_all_sessions(self, user_id: UserId, audit: AuditEntry) -> None:
        """Raise the user's token version, end all sessions and append the revocation."""
        ...

    async def ended(self, held: Sequence[HeldSession], now_ms: int) -> list[SessionId]:
        """Return those that are not alive, or are not that user's.

        Whatever raises a user's token version ends the sessions that do not go along with it.
        """
        ...

    async def feed_end(self) -> FeedPosition:
        """Return the place of the newest revocation."""
        ...

    async def feed_has(self, at: FeedPosition) -> bool:
        """Tell whether the feed can be read on from there without a gap."""
        ...

    async def revocations_after(self, position: int, limit: int) -> list[FeedEntry]:
        """Return what follows, in order."""
        ...

    async def append_audit(self, entry: AuditEntry) -> None:
        """Note something that changed nothing else."""
        ...

    async def prune(self, *, sessions_ms: int, revocations_ms: int, audit_ms: int) -> int:
        """Remove some of what expired or happened before these times; returns how many rows went.

        Call it until it returns 0: one call must not keep other writers waiting for long. The
        newest revocation always stays, so that an idle feed keeps its place.
        """
        ...

    async def ping(self) -> None:
        """Return when the store answers."""
        ...


class Throttle(Protocol):
    """How much of their allowances people have used. It need not survive a crash."""

    async def charge(self, charges: Sequence[Charge]) -> Refusal | None:
        """Take an attempt from each of the allowances, or from none when one of them is used up.

        The refusal is that of the first one that is used up.
        """
        ...

    async def refund(self, charges: Sequence[Charge]) -> None:
        """Give the attempts back: they turned out to be rightful ones."""
        ...


class KeySource(Protocol):
    """Where the signing keys are kept. All services that issue tokens share them."""

    async def load(self) -> KeyRing:
        """Read all keys, making the first one when there is none.

        Raises:
            KeysUnusable: the message says which and why.
        """
        ...

    async def load_if_changed(self) -> KeyRing | None:
        """Read all keys again; None when they are what was read before.

        Raises:
            KeysUnusable: the message says which and why. Keep the keys that you have.
        """
        ...

    async def rotate(self, keep_s: float) -> str:
        """Make a new key, and remove those superseded `keep_s` ago; return the new one's id.

        It signs as soon as every service has had the time to read it.

        Raises:
            KeysUnusable: the message says which and why.
        """
        ...


class Stores(msgspec.Struct, frozen=True):
    """Everything that is kept, over one engine."""

    users: UserStore
    sessions: SessionStore
    throttle: Throttle
    keys: KeySource
    news: Callable[[Callable[[], None]], AbstractAsyncContextManager[None]]
    """While the context lasts, call that function when another service may have appended to the
    feed. It is a wake-up: it may come too often, and now and then not at all."""


class ExternalKeys(Protocol):
    """The keys of the embedder's identity provider."""

    async def find(self, kid: str | None, algorithm: str) -> PublicKey | None:
        """Return the key of that name for that algorithm; None when the provider has no such key.

        Raises:
            ExternalKeysUnavailable: the provider cannot be asked now.
        """
        ...
