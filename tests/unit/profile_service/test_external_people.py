"""What people of an identity provider are called here."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profile_service.external_people import ExternalIdentity, profile_of, usernames
from profile_service.users import Profile, check_profile, check_username
from shared.ids import UserId, new_user_id

IDENTITY = ExternalIdentity("https://shop.example", "42")
USER_ID = UserId("u_abcdefghijklmnopqrstuvwxyz")
SUFFIX = IDENTITY.fingerprint[:4]


@pytest.mark.parametrize(
    ("wish", "name"),
    [
        ("bob", "bob"),
        ("Zoë Müller", "Zoe-Muller"),
        ("zoe.muller@example.org", "zoe.muller"),
        ("42-bob", "bob"),
        ("bob!!", "bob"),
        ("x" * 40, "x" * 32),
        ("ﬁona", "fiona"),
        ("admin", f"user-{SUFFIX}"),
        ("me", f"user-{SUFFIX}"),
        ("Алиса", f"user-{SUFFIX}"),
        ("", f"user-{SUFFIX}"),
        (None, f"user-{SUFFIX}"),
    ],
)
def test_the_first_name_is_as_near_to_the_wish_as_it_can_be(wish: str | None, name: str) -> None:
    assert next(usernames(wish, IDENTITY, USER_ID)) == name


def test_further_names_carry_the_identity_and_the_last_one_chance() -> None:
    fingerprint = IDENTITY.fingerprint
    assert list(usernames("bob", IDENTITY, USER_ID)) == [
        "bob",
        f"bob-{fingerprint[:4]}",
        f"bob-{fingerprint[:8]}",
        f"bob-{fingerprint[:16]}",
        "bob-abcdefghijklmnop",
    ]
    other = ExternalIdentity("https://shop.example", "43")
    assert list(usernames("bob", other, USER_ID))[1] != f"bob-{fingerprint[:4]}"


def test_issuer_and_subject_cannot_be_shifted_into_each_other() -> None:
    assert ExternalIdentity("ab", "c").fingerprint != ExternalIdentity("a", "bc").fingerprint


@given(st.one_of(st.none(), st.text(max_size=80)), st.text(max_size=20))
def test_every_name_is_a_good_username(wish: str | None, subject: str) -> None:
    names = list(usernames(wish, ExternalIdentity("i", subject), new_user_id()))
    assert [list(check_username(name)) for name in names] == [[]] * len(names)
    assert len(set(names)) == len(names)


def test_claims_make_a_profile() -> None:
    assert profile_of(" Zoë \n Müller ", "https://shop.example/z.png", "de_CH") == Profile(
        display_name="Zoë Müller", avatar_url="https://shop.example/z.png", locale="de-CH"
    )


def test_claims_that_would_not_do_are_left_out() -> None:
    assert profile_of("x" * 100, "javascript:alert(1)", "?") == Profile(display_name="x" * 64)
    assert profile_of("\u202eevil", "http://" + "x" * 600, 7) == Profile()
    assert profile_of(["Zoë"], {}, None) == Profile()


@given(st.text(max_size=200), st.text(max_size=30), st.text(max_size=30))
def test_every_profile_is_a_good_one(name: str, avatar: str, locale: str) -> None:
    assert list(check_profile(profile_of(name, avatar, locale))) == []
