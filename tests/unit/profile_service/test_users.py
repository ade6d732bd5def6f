"""What a username and a profile may be."""

import msgspec
import pytest

from profile_service.users import (
    Profile,
    ProfilePatch,
    canonical_username,
    check_device_name,
    check_profile,
    check_username,
    merge,
)


@pytest.mark.parametrize("username", ["bob", "Alice", "a.b_c-9", "x" * 32])
def test_ordinary_usernames_are_accepted(username: str) -> None:
    assert list(check_username(username)) == []


@pytest.mark.parametrize(
    ("username", "advice"),
    [
        ("", "3 to 32 characters"),
        ("ab", "3 to 32 characters"),
        ("x" * 33, "3 to 32 characters"),
        ("1abc", "beginning with a letter"),
        ("-abc", "beginning with a letter"),
        ("al ice", "ASCII letters"),
        ("alicé", "ASCII letters"),
        ("аlice", "ASCII letters"),  # Cyrillic a
        ("alice\n", "ASCII letters"),
        ("Admin", "reserved"),
        ("me2", None),
    ],
)
def test_unusable_usernames_get_advice(username: str, advice: str | None) -> None:
    faults = [fault.detail for fault in check_username(username)]
    assert faults == [] if advice is None else advice in faults[0]


def test_only_ascii_letters_are_folded() -> None:
    assert canonical_username("KeLvin") == "kelvin"
    assert canonical_username("\N{KELVIN SIGN}elvin") != "kelvin"


@pytest.mark.parametrize(
    "profile",
    [
        Profile(),
        Profile(display_name="Zoë 👩‍🚀", bio="two\nlines", status_text="away"),
        Profile(avatar_url="https://example.org:8443/a.png?size=64"),
        Profile(locale="zh-Hant-TW", timezone="Europe/Berlin"),
    ],
)
def test_ordinary_profiles_are_accepted(profile: Profile) -> None:
    assert list(check_profile(profile)) == []


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("display_name", ""),
        ("display_name", "  "),
        ("display_name", "x" * 65),
        ("display_name", "a\x1b[31mb"),
        ("display_name", "a\u202eb"),
        ("display_name", "a\nb"),
        ("display_name", "a\u2028b"),
        ("bio", "x" * 501),
        ("bio", "a\x00b"),
        ("status_text", "x" * 141),
        ("avatar_url", "javascript:alert(1)"),
        ("avatar_url", "//example.org/a.png"),
        ("avatar_url", "https://"),
        ("avatar_url", "https://a b/"),
        ("avatar_url", "https://user:pass@example.org/"),
        ("avatar_url", "https://example.org:99999/"),
        ("avatar_url", "https://[::1/"),
        ("avatar_url", "https://exämple.org/"),
        ("avatar_url", "https://example.org/" + "x" * 500),
        ("locale", "english please"),
        ("locale", "e"),
        ("locale", "en_US"),
        ("timezone", "Mars/Olympus"),
        ("timezone", "../etc/passwd"),
        ("timezone", "Europe/Berlin\n"),
    ],
)
def test_unusable_fields_are_named(field: str, value: str) -> None:
    faults = list(check_profile(Profile(**{field: value})))
    assert [fault.pointer for fault in faults] == [f"/{field}"]


def test_every_fault_of_a_profile_is_reported_at_once() -> None:
    faults = check_profile(Profile(locale="?", timezone="?"), "/profile")
    assert [fault.pointer for fault in faults] == ["/profile/locale", "/profile/timezone"]


def test_device_names_are_one_visible_line() -> None:
    assert list(check_device_name(None)) == []
    assert list(check_device_name("Bob's phone")) == []
    assert [fault.pointer for fault in check_device_name("a\rb")] == ["/device_name"]


def test_merge_patch_keeps_absent_and_clears_null() -> None:
    patch = msgspec.json.decode(b'{"bio": null, "status_text": "here"}', type=ProfilePatch)
    merged = merge(Profile(bio="old", display_name="Al"), patch)
    assert merged == Profile(bio=None, display_name="Al", status_text="here")
