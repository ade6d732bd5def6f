"""How users and sessions lie in rows: the same columns, in the same order, in both engines."""

from collections.abc import Sequence
from typing import Any

import msgspec

from profile_service.ports import LiveSession
from profile_service.rotation import Session
from profile_service.users import Profile, User

__all__ = [
    "SESSION_COLUMNS",
    "USER_COLUMNS",
    "encode_profile",
    "live_session_from_row",
    "session_from_row",
    "user_from_row",
]

USER_COLUMNS = (
    "u.id, u.username, u.profile, u.token_version, u.revision, u.created_at_ms, u.updated_at_ms"
)
SESSION_COLUMNS = (
    "s.id, s.user_id, s.device_name, s.user_agent, s.generation, s.confirmed_generation, "
    "s.rotated_at_ms, s.created_at_ms, s.expires_at_ms, s.ended_at_ms"
)
_USER_WIDTH = 7

_decode_profile = msgspec.json.Decoder(Profile).decode


def user_from_row(row: Sequence[Any]) -> User:
    """Make a user of `USER_COLUMNS`."""
    return User(
        id=row[0],
        username=row[1],
        profile=_decode_profile(row[2]),
        token_version=row[3],
        revision=row[4],
        created_at_ms=row[5],
        updated_at_ms=row[6],
    )


def session_from_row(row: Sequence[Any]) -> Session:
    """Make a session of `SESSION_COLUMNS`."""
    return Session(
        id=row[0],
        user_id=row[1],
        device_name=row[2],
        user_agent=row[3],
        generation=row[4],
        confirmed_generation=row[5],
        rotated_at_ms=row[6],
        created_at_ms=row[7],
        expires_at_ms=row[8],
        ended_at_ms=row[9],
    )


def live_session_from_row(row: Sequence[Any]) -> LiveSession:
    """Make a live session of `USER_COLUMNS` and `SESSION_COLUMNS`."""
    return LiveSession(session_from_row(row[_USER_WIDTH:]), user_from_row(row))


def encode_profile(profile: Profile) -> str:
    """Turn a profile into what its column holds."""
    return msgspec.json.encode(profile).decode()
