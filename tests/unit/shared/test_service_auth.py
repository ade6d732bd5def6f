"""Tokens between services: accepted while fresh and ours, refused in every other case."""

import threading
from pathlib import Path
from typing import Any

import jwt
import pytest

from shared.service_auth import ServiceAuthError, ServiceCredentials, load_or_create_secret
from tests.support.manual_clock import ManualClock

SECRET = b"s" * 64


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def credentials(clock: ManualClock) -> ServiceCredentials:
    return ServiceCredentials(SECRET, "ws_gateway", now=clock)


def minted(now: float, *, secret: bytes = SECRET, algorithm: str = "HS256", **changes: Any) -> str:
    claims: dict[str, Any] = {
        "iss": "other",
        "aud": "duet-internal",
        "iat": int(now),
        "exp": int(now) + 60,
    }
    claims = {name: value for name, value in (claims | changes).items() if value is not None}
    headers = {"typ": changes.pop("typ", "service+jwt")}
    claims.pop("typ", None)
    return "Bearer " + jwt.encode(claims, secret, algorithm, headers=headers)


def test_own_token_names_its_service(credentials: ServiceCredentials) -> None:
    assert credentials.verify(credentials.authorization()) == "ws_gateway"


def test_token_is_presented_again_for_half_of_its_life(
    credentials: ServiceCredentials, clock: ManualClock
) -> None:
    first = credentials.authorization()
    clock.advance(29)
    assert credentials.authorization() == first
    clock.advance(1)
    assert credentials.authorization() != first


def test_clock_that_is_set_back_mints_anew(
    credentials: ServiceCredentials, clock: ManualClock
) -> None:
    first = credentials.authorization()
    clock.advance(-100)
    again = credentials.authorization()
    assert again != first
    assert credentials.verify(again) == "ws_gateway"


@pytest.mark.parametrize("seconds", [-300, 0, 359])
def test_token_is_good_for_its_life_and_the_skew_of_clocks(
    credentials: ServiceCredentials, clock: ManualClock, seconds: float
) -> None:
    token = credentials.authorization()
    clock.advance(seconds)
    assert credentials.verify(token) == "ws_gateway"


@pytest.mark.parametrize("seconds", [-301, 360, 10_000])
def test_token_outside_its_life_is_refused(
    credentials: ServiceCredentials, clock: ManualClock, seconds: float
) -> None:
    token = credentials.authorization()
    clock.advance(seconds)
    with pytest.raises(ServiceAuthError):
        credentials.verify(token)


def test_token_that_was_good_is_refused_once_it_is_too_old(
    credentials: ServiceCredentials, clock: ManualClock
) -> None:
    token = credentials.authorization()
    assert credentials.verify(token) == "ws_gateway"
    clock.advance(360)
    with pytest.raises(ServiceAuthError):
        credentials.verify(token)


@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer ", "Basic abc", "Bearer nonsense", "Bearer a.b.c"]
)
def test_malformed_header_is_refused(credentials: ServiceCredentials, header: str | None) -> None:
    with pytest.raises(ServiceAuthError):
        credentials.verify(header)


@pytest.mark.parametrize(
    "changes",
    [
        {"secret": b"x" * 64},
        {"algorithm": "HS512"},
        {"aud": "somebody-else"},
        {"typ": "at+jwt"},
        {"iss": None},
        {"aud": None},
        {"iat": None},
        {"exp": None},
        {"exp": 1.5},
        {"iat": "1"},
    ],
)
def test_other_tokens_are_refused(
    credentials: ServiceCredentials, clock: ManualClock, changes: dict[str, Any]
) -> None:
    assert credentials.verify(minted(clock())) == "other"
    with pytest.raises(ServiceAuthError):
        credentials.verify(minted(clock(), **changes))


def test_unsigned_token_is_refused(credentials: ServiceCredentials, clock: ManualClock) -> None:
    claims = {"iss": "x", "aud": "duet-internal", "iat": int(clock()), "exp": int(clock()) + 60}
    token = jwt.encode(claims, "", "none", headers={"typ": "service+jwt"})
    with pytest.raises(ServiceAuthError):
        credentials.verify(f"Bearer {token}")


def test_short_secret_is_refused() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        ServiceCredentials(b"short", "x")


def test_secret_is_made_once_and_only_its_owner_can_read_it(tmp_path: Path) -> None:
    path = tmp_path / "data" / "service_secret"
    secret = load_or_create_secret(path)
    assert len(secret) >= 32
    assert load_or_create_secret(path) == secret
    assert path.stat().st_mode & 0o077 == 0
    assert list(path.parent.iterdir()) == [path]


def test_services_that_start_at_once_agree_on_the_secret(tmp_path: Path) -> None:
    path = tmp_path / "service_secret"
    secrets: list[bytes] = []
    start = threading.Barrier(8)

    def begin() -> None:
        start.wait(5)
        secrets.append(load_or_create_secret(path))

    threads = [threading.Thread(target=begin) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(secrets) == 8
    assert len(set(secrets)) == 1


def test_file_with_too_little_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "service_secret"
    path.write_text("short\n")
    with pytest.raises(ValueError, match="delete it"):
        load_or_create_secret(path)
