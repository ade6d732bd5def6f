"""Which tokens of an identity provider are good."""

import base64
import hmac
import json
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization

from profile_service.errors import InvalidExternalToken
from profile_service.external_people import ExternalIdentity
from profile_service.external_tokens import ClaimNames, ExternalTokens
from profile_service.key_sets import KeySet, PublicKey
from profile_service.users import Profile
from tests.support.identity_provider import AUDIENCE, ISSUER, IdentityProvider, SigningKey
from tests.support.profile_service import ManualClock

LEEWAY_S = 30


class KeysAtHand:
    """`ExternalKeys` that are there already."""

    def __init__(self, provider: IdentityProvider) -> None:
        self._provider = provider

    async def find(self, kid: str | None, algorithm: str) -> PublicKey | None:
        return KeySet.parse(self._provider.key_set()).find(kid, algorithm)


@pytest.fixture
def provider() -> IdentityProvider:
    return IdentityProvider()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def tokens(provider: IdentityProvider, clock: ManualClock) -> ExternalTokens:
    return new_tokens(provider, clock)


def new_tokens(
    provider: IdentityProvider,
    clock: ManualClock,
    *,
    algorithms: tuple[str, ...] = ("RS256", "ES256", "EdDSA"),
    claim_names: ClaimNames | None = None,
) -> ExternalTokens:
    return ExternalTokens(
        KeysAtHand(provider),
        issuer=ISSUER,
        audience=AUDIENCE,
        algorithms=algorithms,
        claim_names=claim_names or ClaimNames(),
        leeway_s=LEEWAY_S,
        now=clock,
    )


async def refusal(tokens: ExternalTokens, token: str) -> str:
    with pytest.raises(InvalidExternalToken) as refused:
        await tokens.check(token)
    return refused.value.reason


def forged(header: dict[str, Any], claims: dict[str, Any], signature: bytes = b"") -> str:
    parts = [json.dumps(header).encode(), json.dumps(claims).encode(), signature]
    return ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts)


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
async def test_a_good_token_tells_who_it_is_about(
    provider: IdentityProvider, tokens: ExternalTokens, algorithm: str
) -> None:
    provider.keys = [SigningKey("key", algorithm)]
    token = provider.token(
        "42", preferred_username="zoe", name="Zoë", picture="https://a.example/z", locale="de"
    )
    person = await tokens.check(token)
    assert person.identity == ExternalIdentity(ISSUER, "42")
    assert person.username == "zoe"
    assert person.profile == Profile(
        display_name="Zoë", avatar_url="https://a.example/z", locale="de"
    )
    assert tokens.age_s(person) == 0


async def test_names_of_claims_are_a_setting(
    provider: IdentityProvider, clock: ManualClock
) -> None:
    names = ClaimNames(subject="https://shop.example/id", username="nick", display_name="nick")
    tokens = new_tokens(provider, clock, claim_names=names)
    claims = {"https://shop.example/id": "7", "nick": "zoe"}
    person = await tokens.check(provider.token("42", **claims))
    assert (person.identity.subject, person.username) == ("7", "zoe")
    assert person.profile == Profile(display_name="zoe")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"iss": "https://other.example"}, "issuer"),
        ({"iss": ISSUER + "/"}, "issuer"),
        ({"iss": None}, "claims"),
        ({"aud": "shop"}, "audience"),
        ({"aud": ["shop", "bank"]}, "audience"),
        ({"aud": []}, "audience"),
        ({"aud": None}, "claims"),
        ({"aud": 7}, "claims"),
        ({"exp": None}, "claims"),
        ({"exp": "tomorrow"}, "claims"),
        ({"exp": True}, "claims"),
        ({"exp": 1_700_000_000 - LEEWAY_S}, "expired"),
        ({"nbf": 1_700_000_001 + LEEWAY_S}, "not_yet_valid"),
        ({"iat": 1_700_000_001 + LEEWAY_S}, "not_yet_valid"),
        ({"iat": "today"}, "claims"),
        ({"sub": None}, "claims"),
        ({"sub": ""}, "claims"),
        ({"sub": "x" * 256}, "claims"),
    ],
)
async def test_claims_that_are_missing_or_wrong_are_refused(
    provider: IdentityProvider, tokens: ExternalTokens, changes: dict[str, Any], reason: str
) -> None:
    assert await refusal(tokens, provider.token(**changes)) == reason


@pytest.mark.parametrize(
    "changes",
    [
        {"aud": ["bank", AUDIENCE]},
        {"exp": 1_700_000_001 - LEEWAY_S},
        {"exp": 1_700_000_000.5},
        {"nbf": 1_700_000_000 + LEEWAY_S},
        {"iat": 1_700_000_000 + LEEWAY_S},
        {"iat": None},
        {"preferred_username": 7, "name": ["x"], "picture": {}, "locale": False},
    ],
)
async def test_clocks_may_differ_and_other_claims_are_not_needed(
    provider: IdentityProvider, tokens: ExternalTokens, changes: dict[str, Any]
) -> None:
    person = await tokens.check(provider.token(**changes))
    assert person.identity == ExternalIdentity(ISSUER, "42")


async def test_a_token_without_a_signature_is_refused(
    provider: IdentityProvider, tokens: ExternalTokens
) -> None:
    for alg in ("none", "None", "NONE", ""):
        assert await refusal(tokens, forged({"alg": alg, "kid": "first"}, provider.claims())) == (
            "algorithm"
        )
    header = {"alg": "EdDSA", "kid": "first"}
    assert await refusal(tokens, forged(header, provider.claims())) == "signature"


async def test_a_public_key_is_no_shared_secret(
    provider: IdentityProvider, tokens: ExternalTokens
) -> None:
    provider.keys = [SigningKey("rsa", "RS256")]
    pem = (
        provider.keys[0]
        .private.public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    for alg, reason in (("HS256", "algorithm"), ("RS256", "signature")):
        unsigned = forged({"alg": alg, "kid": "rsa"}, provider.claims()).rstrip(".")
        signature = hmac.digest(pem, unsigned.encode(), "sha256")
        token = forged({"alg": alg, "kid": "rsa"}, provider.claims(), signature)
        assert await refusal(tokens, token) == reason


async def test_an_algorithm_that_is_not_in_the_list_is_refused(
    provider: IdentityProvider, clock: ManualClock
) -> None:
    tokens = new_tokens(provider, clock, algorithms=("RS256",))
    assert await refusal(tokens, provider.token()) == "algorithm"


async def test_a_key_of_another_type_is_not_tried(
    provider: IdentityProvider, tokens: ExternalTokens
) -> None:
    provider.keys = [SigningKey("first", "ES256")]
    assert await refusal(tokens, SigningKey("first").sign(provider.claims())) == "unknown_key"


async def test_a_key_of_that_name_and_another_value_is_a_wrong_signature(
    provider: IdentityProvider, tokens: ExternalTokens
) -> None:
    assert await refusal(tokens, SigningKey("first").sign(provider.claims())) == "signature"
    assert await refusal(tokens, SigningKey("other").sign(provider.claims())) == "unknown_key"


async def test_a_changed_token_is_refused(
    provider: IdentityProvider, tokens: ExternalTokens
) -> None:
    head, payload, signature = provider.token("42").split(".")
    _, other, _ = provider.token("43").split(".")
    assert await refusal(tokens, f"{head}.{other}.{signature}") == "signature"
    assert await refusal(tokens, f"{head}.{payload}.{signature[:-4]}AAAA") == "signature"


@pytest.mark.parametrize(
    "token",
    ["", ".", "..", "a.b.c", "é", "x" * 8193, "eyJhbGciOiJFZERTQSJ9", "e30.e30.e30", "W10.e30.AA"],
)
async def test_what_is_no_token_is_malformed(tokens: ExternalTokens, token: str) -> None:
    assert await refusal(tokens, token) == "malformed"


async def test_payloads_that_are_no_objects_are_malformed(
    provider: IdentityProvider, tokens: ExternalTokens
) -> None:
    key = provider.keys[0]
    for payload in (b"[]", b"null", b"{", b"\xff", b"[" * 3000, b'{"exp": NaN}', b'{"a":1e999}'):
        token = jwt.PyJWS().encode(payload, key.private, "EdDSA", {"kid": key.kid})
        assert await refusal(tokens, token) == "malformed"


async def test_an_extension_that_must_be_understood_is_refused(
    provider: IdentityProvider, tokens: ExternalTokens
) -> None:
    token = provider.keys[0].sign(provider.claims(), crit=["b64"], b64=True)
    assert await refusal(tokens, token) == "malformed"


async def test_without_a_key_id_the_only_key_is_taken(
    provider: IdentityProvider, tokens: ExternalTokens
) -> None:
    token = provider.keys[0].sign(provider.claims(), kid=None)
    assert (await tokens.check(token)).identity.subject == "42"
    provider.keys.append(SigningKey("second"))
    assert await refusal(tokens, token) == "unknown_key"
