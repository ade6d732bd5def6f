"""Signs people up through the REST API, as the product's users are."""

import secrets
from concurrent.futures import ThreadPoolExecutor

import httpx
import msgspec

__all__ = ["Person", "sign_up"]

_PARALLEL = 4


class Person(msgspec.Struct, frozen=True):
    """Someone who has signed up."""

    user_id: str
    access_token: str
    refresh_token: str


def sign_up(profile_url: str, count: int) -> list[Person]:
    """Sign `count` people up; each costs a password hash of 40 ms.

    Raises:
        httpx.HTTPError: the profile service refuses.
    """
    with (
        httpx.Client(base_url=profile_url, trust_env=False, timeout=30.0) as client,
        ThreadPoolExecutor(_PARALLEL) as executor,
    ):
        return list(executor.map(lambda _: _sign_up_one(client), range(count)))


def _sign_up_one(client: httpx.Client) -> Person:
    response = client.post(
        "/v1/users",
        json={
            "username": f"bench-{secrets.token_hex(8)}",
            "password": secrets.token_urlsafe(18),
        },
    )
    response.raise_for_status()
    body = response.json()
    return Person(body["user"]["id"], body["access_token"], body["refresh_token"])
