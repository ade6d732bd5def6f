"""What a new account, a new session and an audit row begin with."""

from collections.abc import Callable

import msgspec

from profile_service.ports import AuditEntry
from profile_service.rotation import Session
from profile_service.users import Profile, User
from shared.ids import UserId, new_session_id, new_user_id
from shared.introspection import IssuedTokens

__all__ = ["Client", "LoggedIn", "Records"]

MAX_USER_AGENT_CHARACTERS = 256


class Client(msgspec.Struct, frozen=True):
    """From where a request comes; the user agent is whatever the client says."""

    address: str
    user_agent: str | None = None


class LoggedIn(msgspec.Struct, frozen=True):
    """A user with a session and fresh tokens for it."""

    user: User
    session: Session
    tokens: IssuedTokens


class Records:
    """Makes them; storing them is for others. `now_ms` gives milliseconds since the epoch."""

    def __init__(self, *, refresh_lifetime_s: int, now_ms: Callable[[], int]) -> None:
        self._refresh_lifetime_ms = refresh_lifetime_s * 1000
        self._now_ms = now_ms

    def user(self, username: str, profile: Profile) -> User:
        """Make a new user."""
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

    def session(self, user: User, device_name: str | None, client: Client) -> Session:
        """Make a new session of a user."""
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

    def audit(
        self,
        kind: str,
        user_id: UserId | None,
        session: Session | None,
        client: Client,
        detail: str | None = None,
    ) -> AuditEntry:
        """Make a row of the audit trail."""
        return AuditEntry(
            at_ms=self._now_ms(),
            kind=kind,
            user_id=user_id,
            session_id=session.id if session else None,
            address=client.address,
            detail=detail,
        )


def _printable(user_agent: str | None) -> str | None:
    if not user_agent:
        return None
    shown = "".join(c if c.isprintable() else "�" for c in user_agent)
    return shown[:MAX_USER_AGENT_CHARACTERS]
