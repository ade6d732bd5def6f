"""A group of refreshes in one transaction, in as many round trips as a single one takes."""

from collections.abc import Sequence

import msgspec

from profile_service.adapters.postgres_access import storable
from profile_service.adapters.postgres_rows import append_audit, append_revocations
from profile_service.adapters.rows import (
    SESSION_COLUMNS,
    USER_COLUMNS,
    session_from_row,
    user_from_row,
)
from profile_service.ports import AuditEntry, LiveSession, Rotation
from profile_service.rotation import Decision, PresentedRefresh, RotationRule, Session, decide
from profile_service.users import User
from shared.ids import SessionId, UserId
from shared.postgres import Connection
from shared.revocation import Revocation

__all__ = ["rotate"]

_LOCK_SESSIONS = (
    f"SELECT {SESSION_COLUMNS} FROM sessions AS s WHERE s.id = ANY($1::text[]) "  # noqa: S608
    "ORDER BY s.id FOR NO KEY UPDATE"
)
_USERS = (
    f"SELECT {USER_COLUMNS} FROM users AS u "  # noqa: S608 - constants
    "WHERE u.id = ANY($1::text[]) AND u.deleted_at_ms IS NULL"
)
_UPDATE = """
UPDATE sessions AS s
SET generation = new.generation, rotated_at_ms = new.rotated_at_ms,
    expires_at_ms = new.expires_at_ms, ended_at_ms = new.ended_at_ms
FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[])
    AS new (id, generation, rotated_at_ms, expires_at_ms, ended_at_ms)
WHERE s.id = new.id
"""


async def rotate(
    connection: Connection,
    presented: Sequence[tuple[PresentedRefresh, AuditEntry]],
    *,
    now_ms: int,
    rule: RotationRule,
    expires_at_ms: int,
) -> list[Rotation]:
    """See `SessionStore.rotate`; the transaction is the caller's.

    The sessions are locked first, in order. Their users are read afterwards, in a snapshot of its
    own: whoever raises a token version ends the sessions in the same transaction, so what is read
    here is either all from before that or all from after it.
    """
    ids = storable(token.session_id for token, _ in presented)
    rows = await connection.fetch(_LOCK_SESSIONS, ids)
    sessions = {session.id: session for session in map(session_from_row, rows)}
    owners = list({session.user_id for session in sessions.values()})
    users = {user.id: user for user in map(user_from_row, await connection.fetch(_USERS, owners))}
    group = _Group(sessions, users, now_ms, rule, expires_at_ms)
    rotations = [group.rotate(token, audit) for token, audit in presented]
    await group.write(connection)
    return rotations


class _Group:
    """The sessions as they become, one presented token after the other."""

    def __init__(
        self,
        sessions: dict[SessionId, Session],
        users: dict[UserId, User],
        now_ms: int,
        rule: RotationRule,
        expires_at_ms: int,
    ) -> None:
        self._sessions = sessions
        self._users = users
        self._now_ms = now_ms
        self._rule = rule
        self._expires_at_ms = expires_at_ms
        self._changed: set[SessionId] = set()
        self._audit: list[AuditEntry] = []
        self._revocations: list[Revocation] = []

    def rotate(self, token: PresentedRefresh, audit: AuditEntry) -> Rotation:
        session = self._sessions.get(token.session_id)
        user = self._users.get(session.user_id) if session else None
        decision = decide(
            token,
            session,
            user.token_version if user else None,
            now_ms=self._now_ms,
            rule=self._rule,
        )
        if decision is Decision.REFUSE or session is None or user is None:
            return Rotation(Decision.REFUSE, None)
        if decision is Decision.ROTATE:
            session = self._change(
                msgspec.structs.replace(
                    session,
                    generation=session.generation + 1,
                    rotated_at_ms=self._now_ms,
                    expires_at_ms=self._expires_at_ms,
                )
            )
        if decision is Decision.REUSE:
            self._change(msgspec.structs.replace(session, ended_at_ms=self._now_ms))
            self._revocations.append(Revocation("session", user.id, session_id=session.id))
        if row := audit.of(decision, user.id):
            self._audit.append(row)
        return Rotation(decision, LiveSession(session, user) if decision.gives_tokens else None)

    async def write(self, connection: Connection) -> None:
        changed = [self._sessions[session_id] for session_id in sorted(self._changed)]
        if changed:
            await connection.execute(
                _UPDATE,
                [session.id for session in changed],
                [session.generation for session in changed],
                [session.rotated_at_ms for session in changed],
                [session.expires_at_ms for session in changed],
                [session.ended_at_ms for session in changed],
            )
        if self._audit:
            await append_audit(connection, *self._audit)
        await append_revocations(connection, self._revocations, self._now_ms)

    def _change(self, session: Session) -> Session:
        self._sessions[session.id] = session
        self._changed.add(session.id)
        return session
