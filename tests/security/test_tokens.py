"""Tokens that must not open anything, shown to every door of the running services."""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import jwt
import pydantic
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)

from shared.ids import UserId
from shared.introspection import TokenPair
from shared.service_auth import ServiceCredentials
from tests.support.client import Client
from tests.support.profile_service import (
    SERVICE_SECRET,
    RunningService,
    fast_settings,
    running_service,
)
from ws_gateway.app import serving
from ws_gateway.settings import Settings


class Forge:
    """Makes tokens with whatever an attacker may have, the real key included for wrong claims."""

    def __init__(self, granted: dict[str, Any], data_dir: Path) -> None:
        self.access, self.refresh = granted["access_token"], granted["refresh_token"]
        self.header = jwt.get_unverified_header(self.access)
        self.claims = jwt.decode(self.access, options={"verify_signature": False})
        (key_file,) = (data_dir / "keys").glob("*.pem")
        key = load_pem_private_key(key_file.read_bytes(), None)
        assert isinstance(key, Ed25519PrivateKey)
        self.key = key
        self.foreign_key = Ed25519PrivateKey.generate()

    def signed(self, key: Ed25519PrivateKey | None = None, **changes: Any) -> str:
        """Sign changed claims; `typ`, `kid` and other header fields change by `h_…`."""
        header = {k: v for k, v in self.header.items() if k != "alg"}
        header |= {name[2:]: value for name, value in changes.items() if name.startswith("h_")}
        claims = self.claims | {k: v for k, v in changes.items() if not k.startswith("h_")}
        claims = {name: value for name, value in claims.items() if value is not None}
        return jwt.encode(claims, key or self.key, "EdDSA", headers=header)

    def unsigned(self, algorithm: str) -> str:
        """No signature, and a header that says that none is needed."""
        return ".".join((_b64(self.header | {"alg": algorithm}), _b64(self.claims), ""))

    def confused(self, secret: bytes, algorithm: str = "HS256") -> str:
        """An HMAC under a key that everybody knows: the public one."""
        head = f"{_b64(self.header | {'alg': algorithm})}.{_b64(self.claims)}"
        mac = hmac.new(secret, head.encode(), hashlib.sha256).digest()
        return f"{head}.{base64.urlsafe_b64encode(mac).decode().rstrip('=')}"


def _b64(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


def _public(forge: Forge, encoding: Encoding, form: PublicFormat) -> bytes:
    return forge.key.public_key().public_bytes(encoding, form)


_PEM = (Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
_RAW = (Encoding.Raw, PublicFormat.Raw)
_DER = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

FORGERIES: dict[str, Callable[[Forge], str]] = {
    "signed by another key": lambda f: f.signed(f.foreign_key),
    "another key that brings itself along": lambda f: f.signed(
        f.foreign_key,
        h_jwk={
            "kty": "OKP",
            "crv": "Ed25519",
            "x": base64.urlsafe_b64encode(f.foreign_key.public_key().public_bytes(*_RAW))
            .decode()
            .rstrip("="),
        },
    ),
    "another key to be fetched": lambda f: f.signed(f.foreign_key, h_jku="http://127.0.0.1:9/k"),
    "foreign kid": lambda f: f.signed(f.foreign_key, h_kid="somebody-elses"),
    "kid that is a path": lambda f: f.signed(f.foreign_key, h_kid="../../../../dev/null"),
    "kid that is SQL": lambda f: f.signed(f.foreign_key, h_kid="' OR 1=1 --"),
    "no kid": lambda f: f.signed(h_kid=""),
    "alg none": lambda f: f.unsigned("none"),
    "alg None": lambda f: f.unsigned("None"),
    "alg EdDSA without a signature": lambda f: f.unsigned("EdDSA"),
    "HMAC with the public key as PEM": lambda f: f.confused(_public(f, *_PEM)),
    "HMAC with the public key raw": lambda f: f.confused(_public(f, *_RAW)),
    "HMAC with the public key as DER": lambda f: f.confused(_public(f, *_DER)),
    "HMAC that claims EdDSA": lambda f: f.confused(_public(f, *_RAW), "EdDSA"),
    "expired": lambda f: f.signed(exp=int(time.time()) - 1),
    "never expires": lambda f: f.signed(exp=None),
    "expires in text": lambda f: f.signed(exp="9999999999"),
    "issued in the future": lambda f: f.signed(iat=int(time.time()) + 3600),
    "wrong audience": lambda f: f.signed(aud="somebody-else"),
    "two audiences": lambda f: f.signed(aud=["duet", "somebody-else"]),
    "no audience": lambda f: f.signed(aud=None),
    "wrong issuer": lambda f: f.signed(iss="somebody-else"),
    "wrong typ": lambda f: f.signed(h_typ="JWT"),
    "typ of a refresh token": lambda f: f.signed(h_typ="rt+jwt"),
    "refresh token": lambda f: f.refresh,
    "no session": lambda f: f.signed(sid=None),
    "unknown session": lambda f: f.signed(sid="s_unknown"),
    "older token version": lambda f: f.signed(ver=0),
    "another person": lambda f: f.signed(sub="u_somebodyelse"),
    "claims changed": lambda f: ".".join(
        (f.access.split(".")[0], _b64(f.claims | {"ver": 2}), f.access.split(".")[2])
    ),
    "signature cut": lambda f: f.access[:-4],
    "signature doubled": lambda f: f.access + f.access.split(".")[2],
    "four parts": lambda f: f.access + ".e30",
    "encrypted": lambda f: "e30.e30.e30.e30.e30",
}


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[RunningService]:
    async with running_service(fast_settings(tmp_path)) as service:
        yield service


@pytest.fixture
async def forge(service: RunningService, tmp_path: Path) -> Forge:
    return Forge(await service.sign_up("alice"), tmp_path)


async def test_no_forgery_is_an_access_token(service: RunningService, forge: Forge) -> None:
    accepted = []
    for name, make in FORGERIES.items():
        token = make(forge)
        headers = {"Authorization": f"Bearer {token}"}
        answer = await service.client.get("/v1/users/me", headers=headers)
        (verdict,) = await service.introspect({"access_token": token})
        if answer.status_code != 401 or verdict != {"active": False}:
            accepted.append(name)
        assert answer.json()["code"] == "invalid_token"
    assert accepted == []
    genuine = {"Authorization": f"Bearer {forge.access}"}
    assert (await service.client.get("/v1/users/me", headers=genuine)).status_code == 200


async def test_no_forgery_is_a_refresh_token(service: RunningService, forge: Forge) -> None:
    accepted = []
    for name, make in FORGERIES.items():
        if name == "refresh token":
            continue
        answer = await service.client.post("/v1/token", json={"refresh_token": make(forge)})
        if answer.status_code != 400 or answer.json()["code"] != "invalid_grant":
            accepted.append(name)
    assert accepted == []
    answer = await service.client.post("/v1/token", json={"refresh_token": forge.access})
    assert answer.json()["code"] == "invalid_grant"
    answer = await service.client.post("/v1/token", json={"refresh_token": forge.refresh})
    assert answer.status_code == 200


async def test_no_forgery_opens_a_connection(
    service: RunningService, forge: Forge, tmp_path: Path
) -> None:
    settings = Settings(
        data_dir=tmp_path / "gateway",
        gateway_port=0,
        profile_url=f"http://127.0.0.1:{service.port}",
        service_secret=pydantic.SecretStr(SERVICE_SECRET),
    )
    opened = []
    async with serving(settings) as gateway:
        for name, make in FORGERIES.items():
            async with Client.open(gateway.url) as client:
                await client.send(type="connect", access_token=make(forge))
                first = json.loads(await client.socket.recv())
                if first["type"] != "error" or (await client.closed())[0] != 3000:
                    opened.append(name)
        assert gateway.connections.of_user(UserId(forge.claims["sub"])) == ()
        async with Client.talking(gateway.url, forge.access):  # while the genuine one does
            pass
    assert opened == []


_OTHER_SECRET = b"another secret of at least 32 bytes, for services"


def _service_tokens(service: RunningService, forge: Forge) -> dict[str, str | None]:
    now, secret = int(time.time()), SERVICE_SECRET.encode()
    claims = {"iss": "gateway", "aud": "duet-internal", "iat": now, "exp": now + 60}
    typ = {"typ": "service+jwt"}

    def hs(key: bytes = secret, header: dict[str, str] | None = None, **changes: Any) -> str:
        changed = {name: v for name, v in (claims | changes).items() if v is not None}
        return "Bearer " + jwt.encode(changed, key, "HS256", headers=header or typ)

    old = ServiceCredentials(secret, "gateway", now=lambda: time.time() - 400).authorization()
    return {
        "absent": None,
        "empty": "Bearer",
        "the secret itself": f"Bearer {SERVICE_SECRET}",
        "replayed after its end": old,
        "another secret": hs(_OTHER_SECRET),
        "wrong audience": hs(aud="duet"),
        "wrong type": hs(header={"typ": "JWT"}),
        "never ends": hs(exp=None),
        "from the future": hs(iat=now + 600, exp=now + 660),
        "alg none": "Bearer " + jwt.encode(claims, "", "none", headers=typ),
        "signed with a user's key": "Bearer " + jwt.encode(claims, forge.key, "EdDSA", headers=typ),
        "a user's access token": f"Bearer {forge.access}",
        "other scheme": hs().replace("Bearer", "Basic"),
    }


async def test_internal_routes_open_to_no_other_service_token(
    service: RunningService, forge: Forge
) -> None:
    pair = TokenPair(forge.access)
    opened = []
    for name, authorization in _service_tokens(service, forge).items():
        headers = {} if authorization is None else {"Authorization": authorization}
        for method, path, body in (
            ("POST", "/internal/introspect", {"access_token": pair.access_token}),
            ("POST", "/internal/sessions/status", {"sessions": []}),
            ("GET", "/internal/users?id=u_x", None),
            ("GET", "/internal/users/u_x", None),
            ("GET", "/internal/revocations", None),
        ):
            answer = await service.client.request(method, path, json=body, headers=headers)
            if answer.status_code != 401:
                opened.append(f"{name}: {path} {answer.status_code}")
    assert opened == []


async def test_service_token_opens_no_route_of_people(service: RunningService) -> None:
    for path in ("/v1/users/me", "/v1/sessions", "/v1/users?prefix=a"):
        answer = await service.client.get(path, headers=service.as_service)
        assert answer.status_code == 401
