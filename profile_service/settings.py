"""What the profile service is told by its environment."""

import ipaddress
import os
import re
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

import pydantic
import pydantic_settings

from profile_service.key_sets import KEY_TYPES
from shared.settings import ServiceSettings, check_origin

__all__ = ["Settings"]

CommaSeparated = Annotated[tuple[str, ...], pydantic_settings.NoDecode]
Positive = Annotated[int, pydantic.Field(gt=0)]
Claim = Annotated[str, pydantic.Field(min_length=1, max_length=200)]


class Settings(ServiceSettings):
    """Each field is the variable `DUET_` + its name in capitals; units are in the names."""

    profile_host: str = "127.0.0.1"
    issuer: Annotated[str, pydantic.Field(min_length=1, max_length=200)] = "duet"
    """`iss` of the tokens: whoever verifies them offline checks it."""
    audience: Annotated[str, pydantic.Field(min_length=1, max_length=200)] = "duet"
    """`aud` of the access tokens."""
    access_token_lifetime_s: Annotated[int, pydantic.Field(ge=30, le=86_400)] = 600
    refresh_token_lifetime_s: Annotated[int, pydantic.Field(ge=60, le=31_536_000)] = 2_592_000
    refresh_grace_s: Annotated[float, pydantic.Field(ge=0, le=300)] = 30.0
    """How long after a rotation the token before may still be presented."""
    refresh_burst: Positive = 100
    """Refreshes of one session beyond one in ten seconds of its life."""

    argon2_memory_kib: Annotated[int, pydantic.Field(ge=8, le=4_194_304)] = 47_104
    argon2_time_cost: Annotated[int, pydantic.Field(ge=1, le=100)] = 1
    hash_threads: Annotated[int, pydantic.Field(ge=1, le=64)] = min(os.cpu_count() or 1, 8)
    hash_max_waiting: Annotated[int, pydantic.Field(ge=0, le=10_000)] = 64
    """Passwords that may wait for a thread; beyond, requests are refused with 503."""

    login_attempts_per_account_and_address: Positive = 10
    login_attempts_per_account: Positive = 100
    login_attempts_per_address: Positive = 60
    login_window_s: Positive = 300
    """Wrong passwords allowed in this time; the allowance refills evenly."""
    sign_up: Literal["open", "closed"] = "open"
    """Whether people can make accounts with a password."""
    sign_ups_per_address: Positive = 20
    sign_up_window_s: Positive = 3600

    external_issuer: str | None = None
    """`iss` of an identity provider whose tokens are exchanged for sessions; without, none are."""
    external_audience: Annotated[str | None, pydantic.Field(validate_default=True)] = None
    """What must be in `aud` of its tokens."""
    external_jwks_url: str | None = None
    """Where its key set is; https, or http on this machine."""
    external_jwks_file: Annotated[Path | None, pydantic.Field(validate_default=True)] = None
    """Its key set as a file, in place of the URL."""
    external_algorithms: CommaSeparated = ("RS256", "ES256", "EdDSA")
    """Signature algorithms that are allowed; only asymmetric ones can be."""
    external_subject_claim: Claim = "sub"
    external_username_claim: Claim = "preferred_username"
    external_display_name_claim: Claim = "name"
    external_avatar_claim: Claim = "picture"
    external_locale_claim: Claim = "locale"
    external_leeway_s: Annotated[int, pydantic.Field(ge=0, le=300)] = 30
    """How far the clocks may be apart."""
    external_jwks_timeout_s: Annotated[float, pydantic.Field(gt=0)] = 5.0
    external_jwks_refetch_s: Annotated[float, pydantic.Field(ge=1, le=3600)] = 10.0
    """A key that is not known makes the key set be read again, at most this often."""
    external_jwks_max_age_s: Annotated[float, pydantic.Field(ge=1, le=86_400)] = 600.0
    """Older key sets are read again; they are used as long as that fails."""
    external_sessions_per_person: Positive = 30
    """Tokens of one person exchanged in `login_window_s`."""

    profile_allowed_origins: CommaSeparated = ()
    """Origins of web pages that may call from a browser, separated by commas; `*` for any."""
    profile_trusted_proxies: CommaSeparated = ()
    """Addresses or networks whose X-Forwarded-For is believed, separated by commas."""
    web_client: bool = True
    """Serve the web page at `/`."""
    web_client_dir: Path = Path(__file__).resolve().parent.parent / "clients" / "web"
    web_gateway_urls: CommaSeparated = ()
    """Where browsers reach the gateway, as `wss://chat.example.org/v1/ws`, separated by commas.
    Default: on this machine."""
    web_image_origins: CommaSeparated = ()
    """Origins whose pictures the page shows as avatars; they see who looks at them."""
    access_log: bool = False
    audit_retention_days: Positive = 90
    profile_shutdown_timeout_s: Annotated[int, pydantic.Field(ge=1, le=300)] = 5

    @pydantic.field_validator("refresh_token_lifetime_s")
    @classmethod
    def _outlives_access(cls, value: int, info: pydantic.ValidationInfo) -> int:
        if value <= info.data.get("access_token_lifetime_s", 0):
            raise ValueError("must be more than DUET_ACCESS_TOKEN_LIFETIME_S")
        return value

    @pydantic.field_validator("external_audience")
    @classmethod
    def _goes_with_issuer(cls, value: str | None, info: pydantic.ValidationInfo) -> str | None:
        issuer = info.data.get("external_issuer")
        if issuer and not value:
            raise ValueError("DUET_EXTERNAL_ISSUER needs it: what the provider writes into `aud`")
        if value and not issuer:
            raise ValueError("set DUET_EXTERNAL_ISSUER, too")
        return value

    @pydantic.field_validator("external_jwks_url")
    @classmethod
    def _is_protected(cls, value: str | None) -> str | None:
        url = urlsplit(value or "https://none")
        _ = url.port  # raises a ValueError of its own
        local = url.scheme == "http" and url.hostname is not None and _is_loopback(url.hostname)
        if not url.hostname or "@" in url.netloc or not (url.scheme == "https" or local):
            raise ValueError("must be an https URL without a password, or an http one of 127.0.0.1")
        return value

    @pydantic.field_validator("external_jwks_file")
    @classmethod
    def _is_one_of_two(cls, value: Path | None, info: pydantic.ValidationInfo) -> Path | None:
        if "external_issuer" not in info.data or "external_jwks_url" not in info.data:
            return value  # has a fault of its own
        issuer, url = info.data["external_issuer"], info.data["external_jwks_url"]
        if issuer and not url and not value:
            raise ValueError("DUET_EXTERNAL_ISSUER needs this or DUET_EXTERNAL_JWKS_URL")
        if url and value:
            raise ValueError("set this or DUET_EXTERNAL_JWKS_URL, not both")
        if (url or value) and not issuer:
            raise ValueError("a key set is of no use without DUET_EXTERNAL_ISSUER")
        return value

    @pydantic.field_validator("external_algorithms")
    @classmethod
    def _are_asymmetric(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value or not set(value) <= KEY_TYPES.keys():
            raise ValueError(f"choose from {', '.join(KEY_TYPES)}")
        return value

    @pydantic.field_validator("profile_trusted_proxies")
    @classmethod
    def _are_networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for network in value:
            ipaddress.ip_network(network, strict=False)
        return value

    @pydantic.field_validator("profile_allowed_origins")
    @classmethod
    def _are_origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for origin in value:
            if origin != "*":
                check_origin(origin)
        return value

    @pydantic.field_validator("web_image_origins")
    @classmethod
    def _are_image_origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for origin in value:
            if not re.fullmatch(r"https?://[A-Za-z0-9.:\[\]_-]+", origin):
                raise ValueError(
                    f"{origin!r} is not an origin such as https://pictures.example.org"
                )
        return value

    @pydantic.field_validator("web_gateway_urls")
    @classmethod
    def _are_gateways(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for url in value:
            if not re.fullmatch(r"wss?://[A-Za-z0-9.:\[\]_-]+(/[!-:<-~]*)?", url):
                raise ValueError(f"{url!r} is not a URL such as wss://chat.example.org/v1/ws")
        return value

    def gateway_urls(self) -> tuple[str, ...]:
        """Where the web page finds the gateway."""
        return self.web_gateway_urls or tuple(
            f"ws://{host}:{self.gateway_port}/v1/ws" for host in ("127.0.0.1", "localhost")
        )

    @pydantic.field_validator(
        "external_algorithms",
        "profile_allowed_origins",
        "profile_trusted_proxies",
        "web_gateway_urls",
        "web_image_origins",
        mode="before",
    )
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
