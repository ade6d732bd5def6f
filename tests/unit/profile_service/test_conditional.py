"""Entity tags and conditions."""

import pytest

from profile_service.http_api.conditional import entity_tag, expected_revisions, is_unmodified
from profile_service.users import Profile, User
from shared.ids import UserId

USER = User(
    id=UserId("u_one"),
    username="bob",
    profile=Profile(),
    token_version=1,
    revision=7,
    created_at_ms=0,
    updated_at_ms=0,
)


@pytest.mark.parametrize(
    ("if_match", "revisions"),
    [
        (None, None),
        ("*", None),
        ('"r7"', {7}),
        ('"r7", "r8"', {7, 8}),
        ('"other", "r8"', {8}),
        ('W/"r7"', set()),
        ('"7"', set()),
        ("r7", set()),
        ("", set()),
        ('"r' + "9" * 40 + '"', set()),
    ],
)
def test_if_match_names_revisions(if_match: str | None, revisions: set[int] | None) -> None:
    assert expected_revisions(if_match) == (None if revisions is None else frozenset(revisions))


@pytest.mark.parametrize(
    ("if_none_match", "unmodified"),
    [(None, False), ("*", True), ('"r7"', True), ('W/"r7"', True), ('"r6"', False), ("r7", False)],
)
def test_if_none_match_compares_weakly(if_none_match: str | None, unmodified: bool) -> None:
    assert entity_tag(USER) == '"r7"'
    assert is_unmodified(if_none_match, USER) is unmodified
