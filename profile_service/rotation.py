"""The rule of refresh tokens: what presenting one does to its session. Pure.

A session has a *generation*. Each refresh token carries the generation it was issued for, and
presenting the current one raises it by one (rotation, RFC 9700 section 4.14.2). Presenting an older
one is a theft, unless the client merely lost the response that carried its successor, in which case
it gets the current generation once more. What tells the two apart:

| presented generation        | then                                                       |
|-----------------------------|------------------------------------------------------------|
| the current one             | rotate; or nothing for now, see `RotationRule.burst`       |
| the one before, within the  | reissue the current one: a retry, or one of several        |
| grace after the rotation    | requests that raced                                        |
| the one before, and nobody  | reissue: the response with the successor never arrived     |
| has shown the successor     |                                                            |
| older, or the successor was | reuse: end the session                                     |
| shown and the grace is over |                                                            |
| newer                       | refuse: the database was restored from an older copy       |

"Shown" means that a token of that generation, access or refresh, was accepted anywhere.
"""

import enum

import msgspec

from shared.ids import SessionId, UserId

__all__ = [
    "MAX_SESSIONS_PER_USER",
    "ROTATION_INTERVAL_S",
    "Decision",
    "PresentedRefresh",
    "RotationRule",
    "Session",
    "decide",
    "is_acceptable",
]

MAX_SESSIONS_PER_USER = 100
"""One more log-in ends the session that was refreshed longest ago."""

ROTATION_INTERVAL_S = 10
"""In each such time of its life a session may rotate once, whenever that is; so whoever rotated too
often may again after it."""


class RotationRule(msgspec.Struct, frozen=True, kw_only=True):
    """What an installation may choose."""

    grace_ms: int
    """How long after a rotation the token before is taken for a retry."""
    burst: int
    """How many rotations a session has beyond one in each `ROTATION_INTERVAL_S` of its life: each
    leaves an audit row, and nobody's client needs more."""


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """One logged-in device. Times are milliseconds since the epoch."""

    id: SessionId
    user_id: UserId
    device_name: str | None
    user_agent: str | None
    generation: int
    confirmed_generation: int
    """The highest generation of which a token was shown, so that its client certainly has it."""
    rotated_at_ms: int
    created_at_ms: int
    expires_at_ms: int
    ended_at_ms: int | None = None


class PresentedRefresh(msgspec.Struct, frozen=True, kw_only=True):
    """A refresh token whose signature and lifetime were found good."""

    session_id: SessionId
    user_id: UserId
    token_version: int
    generation: int


class Decision(enum.Enum):
    """What to do about a presented refresh token."""

    ROTATE = "rotate"
    REISSUE = "reissue"
    TOO_OFTEN = "too_often"
    REUSE = "reuse"
    REFUSE = "refuse"

    @property
    def gives_tokens(self) -> bool:
        """Whether whoever presented it gets a new pair."""
        return self in (Decision.ROTATE, Decision.REISSUE)


def decide(
    presented: PresentedRefresh,
    session: Session | None,
    token_version: int | None,
    *,
    now_ms: int,
    rule: RotationRule,
) -> Decision:
    """Decide what presenting a refresh token does.

    `session` and `token_version` are what is stored now: the session, and its user's version; None
    where there is none (any more).
    """
    if session is None or session.user_id != presented.user_id:
        return Decision.REFUSE
    if session.ended_at_ms is not None or session.expires_at_ms <= now_ms:
        return Decision.REFUSE
    if presented.token_version != token_version or presented.generation > session.generation:
        return Decision.REFUSE
    if presented.generation == session.generation:
        age_ms = max(0, now_ms - session.created_at_ms)  # a clock may have been set back
        rotations = rule.burst + age_ms // (ROTATION_INTERVAL_S * 1000)
        return Decision.ROTATE if session.generation <= rotations else Decision.TOO_OFTEN
    if presented.generation == session.generation - 1:
        in_grace = now_ms - session.rotated_at_ms <= rule.grace_ms
        if in_grace or session.confirmed_generation < session.generation:
            return Decision.REISSUE
    return Decision.REUSE


def is_acceptable(presented: PresentedRefresh, session: Session) -> bool:
    """Tell whether a refresh token may accompany a valid access token of a live session.

    Nothing is bought with it here, so an older one is refused but not treated as a theft.
    """
    return (
        presented.session_id == session.id
        and presented.user_id == session.user_id
        and session.generation - 1 <= presented.generation <= session.generation
    )
