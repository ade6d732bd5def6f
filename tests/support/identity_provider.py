"""An embedder's identity provider: keys, tokens, and a key set behind real HTTP on loopback."""

import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

__all__ = ["AUDIENCE", "ISSUER", "IdentityProvider", "SigningKey", "serving_keys"]

ISSUER = "https://shop.example"
AUDIENCE = "chat"

_Private: TypeAlias = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


class SigningKey:
    """A key of the provider."""

    def __init__(self, kid: str, algorithm: str = "EdDSA", *, rsa_bits: int = 2048) -> None:
        self.kid = kid
        self.algorithm = algorithm
        self.private = _generate(algorithm, rsa_bits)

    def jwk(self, **changes: Any) -> dict[str, Any]:
        """The public half; a change to None leaves a member out."""
        public: Any = self.private.public_key()
        library = jwt.get_algorithm_by_name(self.algorithm)
        own = {"kid": self.kid, "alg": self.algorithm, "use": "sig"}
        members = {**library.to_jwk(public, as_dict=True), **own, **changes}
        return {name: value for name, value in members.items() if value is not None}

    def sign(self, claims: dict[str, Any], **header: Any) -> str:
        """Make a token; a header of None leaves it out."""
        headers = {name: value for name, value in {"kid": self.kid, **header}.items() if value}
        return jwt.encode(claims, self.private, self.algorithm, headers)


class IdentityProvider:
    """Makes tokens of `ISSUER` for `AUDIENCE`. `now` is the time that they are made at."""

    def __init__(self, now: float = 1_700_000_000.0) -> None:
        self.now = now
        self.keys = [SigningKey("first")]
        self.reads = 0
        """How often the key set was asked for."""
        self.body: bytes | None = None
        """What is served in place of the key set."""
        self.status = 200
        self.url = ""

    def claims(self, subject: str = "42", **changes: Any) -> dict[str, Any]:
        """Claims of a good token; a change to None leaves one out."""
        claims = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": subject,
            "iat": int(self.now),
            "exp": int(self.now) + 60,
            **changes,
        }
        return {name: value for name, value in claims.items() if value is not None}

    def token(self, subject: str = "42", **changes: Any) -> str:
        """Make a token, signed with the newest key."""
        return self.keys[-1].sign(self.claims(subject, **changes))

    def key_set(self) -> bytes:
        """What the URL answers."""
        return self.body or json.dumps({"keys": [key.jwk() for key in self.keys]}).encode()


@contextmanager
def serving_keys(provider: IdentityProvider, port: int = 0) -> Iterator[str]:
    """Serve the key set on loopback while the context lasts. Yields its URL."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            provider.reads += 1
            body = provider.key_set()
            self.send_response(provider.status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            return

    server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        provider.url = f"http://127.0.0.1:{server.server_port}/jwks.json"
        yield provider.url
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _generate(algorithm: str, rsa_bits: int) -> _Private:
    if algorithm == "EdDSA":
        return ed25519.Ed25519PrivateKey.generate()
    if algorithm.startswith("ES"):
        curves = {"ES256": ec.SECP256R1(), "ES384": ec.SECP384R1(), "ES512": ec.SECP521R1()}
        return ec.generate_private_key(curves[algorithm])
    return rsa.generate_private_key(65537, rsa_bits)
