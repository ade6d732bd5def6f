"""A product that has users already and lets them chat: the stand-in for yours in docs/embed.md.

Run it with Duet's environment: `SHOP_KEY=data/shop.pem .venv/bin/python docs/examples/product.py`.
"""

import json
import os
import time
from pathlib import Path

import jwt
import uvicorn
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route

ISSUER = os.environ.get("SHOP_URL", "https://shop.example.org")
KEY = load_pem_private_key(Path(os.environ["SHOP_KEY"]).read_bytes(), password=None)
if not isinstance(KEY, Ed25519PrivateKey):
    raise SystemExit("SHOP_KEY must name an Ed25519 key")
KEY_ID = "2026"  # another key, another name
USERS = {"ann": (1, "Ann Lee"), "bob": (2, "Bob Ray")}  # your user table


def chat_token(login: str) -> str:
    """Say to Duet who this is, for the next minute."""
    number, name = USERS[login]
    now = int(time.time())
    claims = {"iss": ISSUER, "aud": "duet", "iat": now, "exp": now + 60}
    who = {"sub": str(number), "preferred_username": login, "name": name}
    return jwt.encode({**claims, **who}, KEY, "EdDSA", {"kid": KEY_ID})


async def show_token(request: Request) -> Response:
    login = request.cookies.get("login", "")  # your session; a bare cookie is no security
    if login not in USERS:
        return JSONResponse({"error": "not signed in"}, 401)
    answer = {"token": chat_token(login), "login": login}
    return JSONResponse(answer, headers={"Cache-Control": "no-store"})


async def show_keys(_: Request) -> Response:
    public = json.loads(jwt.get_algorithm_by_name("EdDSA").to_jwk(KEY.public_key()))
    return JSONResponse({"keys": [{**public, "kid": KEY_ID, "alg": "EdDSA", "use": "sig"}]})


async def sign_in(request: Request) -> Response:
    answer = RedirectResponse("/", 303)
    login = request.path_params["login"]
    answer.set_cookie("login", login, secure=True, httponly=True, samesite="lax")
    return answer


async def show_page(_: Request) -> Response:
    return FileResponse(Path(__file__).with_name("product.html"))


app = Starlette(
    routes=[
        Route("/", show_page),
        Route("/login/{login}", sign_in),
        Route("/chat-token", show_token),
        Route("/jwks.json", show_keys),
    ]
)

if __name__ == "__main__":
    uvicorn.run(app, port=int(os.environ.get("SHOP_PORT", "9000")))
