"""Which key of a key set verifies what."""

import base64
import json
from typing import Any

import pytest

from profile_service.key_sets import KeySet
from tests.support.identity_provider import SigningKey


def key_set(*keys: Any) -> KeySet:
    return KeySet.parse(json.dumps({"keys": keys}).encode())


@pytest.mark.parametrize("algorithm", ["RS256", "PS512", "ES256", "ES384", "ES512", "EdDSA"])
@pytest.mark.parametrize("names_itself", [True, False])
def test_a_key_is_found_by_name_for_its_algorithm(algorithm: str, names_itself: bool) -> None:
    key = SigningKey("one", algorithm)
    keys = key_set(key.jwk() if names_itself else key.jwk(alg=None, use=None))
    found = keys.find("one", algorithm)
    assert found == key.private.public_key()
    assert keys.find("other", algorithm) is None


def test_a_key_is_for_no_other_algorithm() -> None:
    keys = key_set(
        SigningKey("rsa", "RS256").jwk(),
        SigningKey("any-rsa", "RS256").jwk(alg=None),
        SigningKey("ec", "ES256").jwk(alg=None),
    )
    assert keys.find("rsa", "RS512") is None
    assert keys.find("any-rsa", "PS384") is not None
    assert keys.find("any-rsa", "ES256") is None
    assert keys.find("ec", "ES384") is None
    assert keys.find("ec", "EdDSA") is None
    for algorithm in ("none", "HS256", ""):
        assert keys.find("rsa", algorithm) is None


def test_without_a_name_the_only_fitting_key_is_taken() -> None:
    one, other = SigningKey("one"), SigningKey("other")
    lone = key_set(one.jwk(), SigningKey("rsa", "RS256").jwk())
    assert lone.find(None, "EdDSA") is not None
    assert key_set(one.jwk(), other.jwk()).find(None, "EdDSA") is None


def test_keys_of_no_use_are_skipped() -> None:
    secret = base64.urlsafe_b64encode(b"s" * 32).decode()
    good = SigningKey("good", "ES256")
    private = {**SigningKey("private").jwk(), "d": secret}
    keys = key_set(
        good.jwk(),
        {"kty": "oct", "kid": "symmetric", "alg": "HS256", "k": secret},
        SigningKey("encryption", "RS256").jwk(use="enc"),
        SigningKey("weak", "RS256", rsa_bits=1024).jwk(),
        private,
        {"kty": "EC", "crv": "P-256", "kid": "broken", "x": "AA", "y": "AA"},
        {"kty": "EC", "crv": "secp256k1", "kid": "curve", "x": "AA", "y": "AA"},
        {"kid": "nothing"},
        "no object",
        None,
    )
    assert len(keys) == 1
    assert keys.find("good", "ES256") is not None


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "not a JSON Web Key Set"),
        (b"<html>", "not a JSON Web Key Set"),
        (b"[]", "not a JSON Web Key Set"),
        (b"{}", "no list of keys"),
        (b'{"keys": {}}', "no list of keys"),
        (b'{"keys": []}', "none of the 0 keys"),
        (b'{"keys": [{"kty": "oct", "k": "AAAA"}]}', "none of the 1 keys"),
        (b'{"keys": ' + b"[" * 100_000, "not a JSON Web Key Set"),
        (b'{"keys": "\xff"}', "not a JSON Web Key Set"),
    ],
)
def test_what_is_no_key_set_says_so(raw: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        KeySet.parse(raw)
