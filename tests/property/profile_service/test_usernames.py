"""Usernames: one canonical form, and nothing but what the rules say."""

import re

import hypothesis.strategies as st
from hypothesis import given, settings

from profile_service.users import (
    Profile,
    ProfilePatch,
    canonical_username,
    check_profile,
    check_username,
    merge,
)

acceptable = st.from_regex(r"[A-Za-z][A-Za-z0-9._-]{2,31}", fullmatch=True).filter(
    lambda name: not list(check_username(name))
)


@given(st.text())
def test_canonical_form_is_stable(username: str) -> None:
    once = canonical_username(username)
    assert canonical_username(once) == once


@given(acceptable)
def test_spellings_of_one_name_are_one_name(username: str) -> None:
    assert canonical_username(username.upper()) == canonical_username(username.lower())
    assert list(check_username(username.swapcase())) == []


@given(st.text())
def test_no_other_text_has_the_form_of_an_acceptable_name(username: str) -> None:
    if list(check_username(username)) == []:
        assert re.fullmatch(r"[A-Za-z][A-Za-z0-9._-]{2,31}", username, re.ASCII)
        assert canonical_username(username) == username.lower()


profile_fields = st.fixed_dictionaries(
    {}, optional={name: st.none() | st.text(max_size=80) for name in Profile.__struct_fields__}
)


@given(profile_fields, profile_fields)
@settings(max_examples=50)
def test_merge_patch_does_what_rfc_7396_says(
    old: dict[str, str | None], patch: dict[str, str | None]
) -> None:
    merged = merge(Profile(**old), ProfilePatch(**patch))
    assert merged == Profile(**(old | patch))


@given(profile_fields)
@settings(max_examples=50)
def test_checking_never_fails_itself(fields: dict[str, str | None]) -> None:
    for fault in check_profile(Profile(**fields)):
        assert fields[fault.pointer.removeprefix("/")] is not None
