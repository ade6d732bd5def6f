"""What presenting a refresh token does, row by row of the rule's table."""

import msgspec
import pytest

from profile_service.rotation import (
    Decision,
    PresentedRefresh,
    RotationRule,
    Session,
    decide,
    is_acceptable,
)
from shared.ids import SessionId, UserId

NOW_MS = 1_000_000
GRACE_MS = 30_000

SESSION = Session(
    id=SessionId("s_one"),
    user_id=UserId("u_one"),
    device_name=None,
    user_agent=None,
    generation=5,
    confirmed_generation=5,
    rotated_at_ms=NOW_MS - GRACE_MS - 1,
    created_at_ms=0,
    expires_at_ms=NOW_MS + 1,
)
TOKEN = PresentedRefresh(
    session_id=SESSION.id, user_id=SESSION.user_id, token_version=3, generation=5
)


def decided(token: PresentedRefresh, session: Session | None, version: int | None = 3) -> Decision:
    rule = RotationRule(grace_ms=GRACE_MS, burst=5)
    return decide(token, session, version, now_ms=NOW_MS, rule=rule)


@pytest.mark.parametrize(
    ("generation", "session_changes", "expected"),
    [
        (5, {}, Decision.ROTATE),
        (4, {}, Decision.REUSE),
        (4, {"rotated_at_ms": NOW_MS - GRACE_MS}, Decision.REISSUE),
        (4, {"confirmed_generation": 4}, Decision.REISSUE),
        (3, {"confirmed_generation": 0, "rotated_at_ms": NOW_MS}, Decision.REUSE),
        (6, {}, Decision.REFUSE),
        (5, {"ended_at_ms": 1}, Decision.REFUSE),
        (5, {"expires_at_ms": NOW_MS}, Decision.REFUSE),
        (1, {"ended_at_ms": 1}, Decision.REFUSE),
        (5, {"user_id": "u_other"}, Decision.REFUSE),
        (5, {"created_at_ms": NOW_MS}, Decision.ROTATE),
        (6, {"generation": 6, "created_at_ms": NOW_MS}, Decision.TOO_OFTEN),
        (6, {"generation": 6, "created_at_ms": NOW_MS + 1}, Decision.TOO_OFTEN),
        (6, {"generation": 6, "created_at_ms": NOW_MS - 10_000}, Decision.ROTATE),
        (4, {"generation": 6, "created_at_ms": NOW_MS}, Decision.REUSE),
    ],
)
def test_rule(generation: int, session_changes: dict[str, object], expected: Decision) -> None:
    token = msgspec.structs.replace(TOKEN, generation=generation)
    session = msgspec.structs.replace(SESSION, **session_changes)
    assert decided(token, session) is expected


def test_a_token_of_a_lower_version_is_refused_and_not_a_theft() -> None:
    old = msgspec.structs.replace(TOKEN, generation=1, token_version=2)
    assert decided(old, SESSION) is Decision.REFUSE


def test_a_token_of_no_session_is_refused() -> None:
    assert decided(TOKEN, None, None) is Decision.REFUSE


@pytest.mark.parametrize(
    ("generation", "acceptable"), [(6, False), (5, True), (4, True), (3, False)]
)
def test_beside_a_valid_access_token_two_generations_are_acceptable(
    generation: int, acceptable: bool
) -> None:
    token = msgspec.structs.replace(TOKEN, generation=generation)
    assert is_acceptable(token, SESSION) is acceptable
