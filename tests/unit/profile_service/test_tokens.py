"""Which tokens are believed."""

import base64
from typing import Any

import jwt
import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from profile_service import tokens
from profile_service.errors import InvalidAccessToken, InvalidRefreshToken
from profile_service.rotation import Session
from profile_service.tokens import KeyRing, TokenAuthority
from shared.ids import SessionId, UserId
from tests.support.profile_service import ManualClock

SESSION = Session(
    id=SessionId("s_one"),
    user_id=UserId("u_one"),
    device_name=None,
    user_agent=None,
    generation=5,
    confirmed_generation=5,
    rotated_at_ms=0,
    created_at_ms=0,
    expires_at_ms=10**13,
)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def key() -> Ed25519PrivateKey:
    return Ed25519PrivateKey.generate()


def authority_of(key: Ed25519PrivateKey, clock: ManualClock) -> TokenAuthority:
    return TokenAuthority(
        KeyRing(key, {}),
        issuer="duet",
        audience="duet",
        access_lifetime_s=600,
        refresh_lifetime_s=3600,
        now=clock,
    )


@pytest.fixture
def authority(key: Ed25519PrivateKey, clock: ManualClock) -> TokenAuthority:
    return authority_of(key, clock)


def good_claims(clock: ManualClock, **changes: Any) -> dict[str, Any]:
    claims = {
        "iss": "duet",
        "sub": "u_one",
        "aud": "duet",
        "iat": int(clock()),
        "exp": int(clock()) + 60,
        "jti": "x",
        "sid": "s_one",
        "ver": 2,
        "gen": 5,
    }
    return {name: value for name, value in (claims | changes).items() if value is not None}


def signed(key: Ed25519PrivateKey, claims: dict[str, Any], **header: Any) -> str:
    ring = KeyRing(key, {})
    return jwt.encode(
        claims, key, "EdDSA", headers={"typ": "at+jwt", "kid": ring.signing_id, **header}
    )


def test_issued_tokens_say_whose_they_are(authority: TokenAuthority, clock: ManualClock) -> None:
    issued = authority.issue(SESSION, 2)
    access = authority.check_access(issued.access_token)
    refresh = authority.check_refresh(issued.refresh_token)
    assert (access.sub, access.sid, access.ver, access.gen) == ("u_one", "s_one", 2, 5)
    assert access.exp == clock() + 600 == clock() + issued.expires_in
    assert refresh.exp == clock() + 3600


@pytest.mark.parametrize("left_s", [0, 200, 1800])
def test_no_token_outlives_its_session(
    authority: TokenAuthority, clock: ManualClock, left_s: int
) -> None:
    """One that a retry gets would: a retry does not let a session live longer."""
    end_ms = int(clock() + left_s) * 1000 + 999
    issued = authority.issue(msgspec.structs.replace(SESSION, expires_at_ms=end_ms), 2)
    access = authority.check_access(issued.access_token, even_expired=True)
    assert access.exp == clock() + min(left_s, 600) == clock() + issued.expires_in
    payload = jwt.decode(issued.refresh_token, options={"verify_signature": False})
    assert payload["exp"] == clock() + left_s


def test_another_process_with_the_same_keys_believes_them(
    authority: TokenAuthority, key: Ed25519PrivateKey, clock: ManualClock
) -> None:
    issued = authority.issue(SESSION, 2)
    other = authority_of(key, clock)
    assert other.check_access(issued.access_token).sub == "u_one"
    assert other.check_refresh(issued.refresh_token).gen == 5


def test_the_published_keys_verify_offline(authority: TokenAuthority) -> None:
    token = authority.issue(SESSION, 2).access_token
    keys = jwt.PyJWKSet.from_dict(authority.keys.jwks())
    key = keys[jwt.get_unverified_header(token)["kid"]]
    assert (
        jwt.decode(
            token,
            key,
            algorithms=["EdDSA"],
            audience="duet",
            options={"verify_exp": False, "verify_iat": False},
        )["sub"]
        == "u_one"
    )


def test_neither_kind_passes_for_the_other(authority: TokenAuthority) -> None:
    issued = authority.issue(SESSION, 2)
    with pytest.raises(InvalidAccessToken):
        authority.check_access(issued.refresh_token)
    with pytest.raises(InvalidRefreshToken):
        authority.check_refresh(issued.access_token)


def test_expiry_is_exact(authority: TokenAuthority, clock: ManualClock) -> None:
    issued = authority.issue(SESSION, 2)
    clock.advance(599)
    authority.check_access(issued.access_token)
    clock.advance(1)
    with pytest.raises(InvalidAccessToken):
        authority.check_access(issued.access_token)
    assert authority.is_expired(authority.check_access(issued.access_token, even_expired=True))
    clock.advance(3000)
    with pytest.raises(InvalidRefreshToken):
        authority.check_refresh(issued.refresh_token)


def test_a_clock_set_back_a_little_does_not_end_sessions(
    authority: TokenAuthority, clock: ManualClock
) -> None:
    token = authority.issue(SESSION, 2).access_token
    clock.advance(-600)
    authority.check_access(token)
    clock.advance(-1)
    with pytest.raises(InvalidAccessToken):
        authority.check_access(token)


def test_our_own_claims_are_believed(
    authority: TokenAuthority, key: Ed25519PrivateKey, clock: ManualClock
) -> None:
    assert authority.check_access(signed(key, good_claims(clock))).jti == "x"


@pytest.mark.parametrize(
    "changes",
    [
        *({name: None} for name in tokens.TokenClaims.__struct_fields__),
        {"iss": "other"},
        {"aud": "other"},
        {"aud": ["duet"]},
        {"sub": 5},
        {"exp": "9999999999"},
        {"exp": 1e999},
        {"ver": "2"},
        {"gen": 1.5},
    ],
    ids=str,
)
def test_absent_or_wrong_claims_are_refused(
    changes: dict[str, Any], authority: TokenAuthority, key: Ed25519PrivateKey, clock: ManualClock
) -> None:
    with pytest.raises(InvalidAccessToken):
        authority.check_access(signed(key, good_claims(clock, **changes)))


@pytest.mark.parametrize(
    "header", [{"typ": "JWT"}, {"typ": "rt+jwt"}, {"typ": None}, {"kid": "other"}], ids=str
)
def test_wrong_headers_are_refused(
    header: dict[str, Any], authority: TokenAuthority, key: Ed25519PrivateKey, clock: ManualClock
) -> None:
    with pytest.raises(InvalidAccessToken):
        authority.check_access(signed(key, good_claims(clock), **header))


def test_another_key_under_our_key_id_is_refused(
    authority: TokenAuthority, clock: ManualClock
) -> None:
    forger = Ed25519PrivateKey.generate()
    kid = authority.keys.signing_id
    with pytest.raises(InvalidAccessToken):
        authority.check_access(signed(forger, good_claims(clock), kid=kid))


def test_no_algorithm_but_ours_is_believed(authority: TokenAuthority, clock: ManualClock) -> None:
    header = {"typ": "at+jwt", "kid": authority.keys.signing_id}
    public = authority.keys.verifying[authority.keys.signing_id].public_bytes_raw()
    forged = [
        jwt.encode(good_claims(clock), "", "none", headers=header),
        jwt.encode(good_claims(clock), public, "HS256", headers=header),
    ]
    for token in forged:
        with pytest.raises(InvalidAccessToken):
            authority.check_access(token)


@pytest.mark.parametrize(
    "token",
    ["", ".", "..", "a.b.c", "é.é.é", "x" * 5000, "eyJhbGciOiJFZERTQSJ9.e30.", "\x00", "a" * 2048],
)
def test_garbage_is_refused(token: str, authority: TokenAuthority) -> None:
    with pytest.raises(InvalidAccessToken):
        authority.check_access(token)
    with pytest.raises(InvalidRefreshToken):
        authority.check_refresh(token)


def test_a_header_that_is_nested_to_death_is_refused(authority: TokenAuthority) -> None:
    deep = base64.urlsafe_b64encode(b"[" * 1500).decode().rstrip("=")
    with pytest.raises(InvalidAccessToken):
        authority.check_access(f"{deep}.e30.e30")


def test_a_changed_signature_is_refused(authority: TokenAuthority) -> None:
    token = authority.issue(SESSION, 2).access_token
    head, _, signature = token.rpartition(".")
    flipped = ("A" if signature[0] != "A" else "B") + signature[1:]
    with pytest.raises(InvalidAccessToken):
        authority.check_access(f"{head}.{flipped}")


def test_rotated_keys_verify_until_they_are_removed(
    authority: TokenAuthority, key: Ed25519PrivateKey
) -> None:
    token = authority.issue(SESSION, 2).access_token
    new = Ed25519PrivateKey.generate()
    authority.keys = KeyRing(new, authority.keys.verifying)
    assert authority.check_access(token).sub == "u_one"
    fresh = authority.issue(SESSION, 2).access_token
    assert jwt.get_unverified_header(fresh)["kid"] == authority.keys.signing_id
    authority.keys = KeyRing(new, {})
    authority.check_access(fresh)
    with pytest.raises(InvalidAccessToken):
        authority.check_access(token)


def test_memory_of_remembered_tokens_is_bounded(
    authority: TokenAuthority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens, "MAX_REMEMBERED_TOKENS", 4)
    first = authority.issue(SESSION, 2).access_token
    for _ in range(10):
        authority.issue(SESSION, 2)
    assert len(authority._remembered) == 4
    assert authority.check_access(first).sub == "u_one"


def test_claims_are_what_the_protocol_promises(
    authority: TokenAuthority, clock: ManualClock
) -> None:
    token = authority.issue(SESSION, 2).access_token
    payload = token.split(".")[1]
    claims = msgspec.json.decode(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    assert sorted(claims) == sorted(good_claims(clock))
