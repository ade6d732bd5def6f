"""The gateway's settings; docs/operations.md lists them with units and defaults."""

from typing import Annotated, Any
from urllib.parse import urlsplit

import pydantic
from pydantic_settings import NoDecode

from shared.client_address import Networks
from shared.settings import ServiceSettings, check_origin

__all__ = ["Settings"]


def _profile_urls(told: dict[str, Any]) -> tuple[str, ...]:
    """What the profile service is reached by on its own machine."""
    port = told["profile_port"]
    return f"http://127.0.0.1:{port}", f"http://localhost:{port}"


class Settings(ServiceSettings):
    """Each field is the environment variable `DUET_` + its name in capitals."""

    gateway_host: str = "127.0.0.1"
    profile_url: str = pydantic.Field(default_factory=lambda told: _profile_urls(told)[0])
    """Where the profile service answers. Default: on this machine."""
    allowed_origins: Annotated[tuple[str, ...], NoDecode] = pydantic.Field(
        default_factory=_profile_urls
    )
    """Origins whose pages may connect, by commas; clients that send no Origin always may. Default:
    the page that the profile service has on this machine."""
    max_connections: Annotated[int, pydantic.Field(ge=1)] = 20_000
    max_connections_per_address: Annotated[int, pydantic.Field(ge=1)] = 2_000
    """Of one address of the internet, or one /64 network of IPv6."""
    gateway_trusted_proxies: Annotated[tuple[str, ...], NoDecode] = ()
    """Addresses or networks whose X-Forwarded-For is believed, by commas."""
    max_connections_per_user: Annotated[int, pydantic.Field(ge=1)] = 10
    max_frame_bytes: Annotated[int, pydantic.Field(ge=1024)] = 65_536
    """The longest text takes 48,000 bytes when a client escapes every character of it."""
    connect_timeout_s: Annotated[float, pydantic.Field(gt=0)] = 5.0
    handshake_timeout_s: Annotated[float, pydantic.Field(gt=0)] = 10.0
    expiring_lead_s: Annotated[float, pydantic.Field(ge=0)] = 60.0
    expiry_grace_s: Annotated[float, pydantic.Field(ge=0)] = 25.0
    ping_interval_s: Annotated[float, pydantic.Field(gt=0)] = 20.0
    ping_timeout_s: Annotated[float, pydantic.Field(gt=0)] = 15.0
    close_timeout_s: Annotated[float, pydantic.Field(gt=0)] = 5.0
    bus_url: pydantic.SecretStr | None = None
    """NATS servers, by commas, for gateways that share a PostgreSQL database."""
    bus_check_interval_s: Annotated[float, pydantic.Field(gt=0)] = 30.0
    """How often to look for what the bus may have lost."""
    outbox_max_bytes: Annotated[int, pydantic.Field(ge=4096)] = 262_144
    outbox_grace_s: Annotated[float, pydantic.Field(gt=0)] = 5.0
    profile_timeout_s: Annotated[float, pydantic.Field(gt=0)] = 3.0
    revocation_poll_interval_s: Annotated[float, pydantic.Field(gt=0)] = 30.0
    recipient_cache_s: Annotated[float, pydantic.Field(ge=0)] = 300.0
    messages_per_s: Annotated[float, pydantic.Field(gt=0)] = 10.0
    """What a user may write in the long run, on all of their connections together."""
    message_burst: Annotated[int, pydantic.Field(ge=1)] = 50
    requests_per_s: Annotated[float, pydantic.Field(gt=0)] = 50.0
    """What one connection may ask in the long run, everything counted."""
    request_burst: Annotated[int, pydantic.Field(ge=1)] = 200
    offline_after_s: Annotated[float, pydantic.Field(ge=0)] = 15.0
    commit_max_batch: Annotated[int, pydantic.Field(ge=1, le=10_000)] = 512
    commit_max_waiting: Annotated[int, pydantic.Field(ge=1)] = 20_000
    database_busy_timeout_s: Annotated[float, pydantic.Field(gt=0)] = 2.0
    gateway_shutdown_timeout_s: Annotated[float, pydantic.Field(gt=0)] = 10.0
    """From SIGTERM to the moment the last connection is aborted."""

    @pydantic.field_validator("bus_url")
    @classmethod
    def _are_nats_servers(
        cls, value: pydantic.SecretStr | None, info: pydantic.ValidationInfo
    ) -> pydantic.SecretStr | None:
        if value is not None:
            for url in _servers(value):
                _check_nats_url(url)
            if not (info.data.get("database_url") or info.data.get("database_url_file")):
                raise ValueError("needs DUET_DATABASE_URL: a SQLite file belongs to one gateway")
        return value

    @pydantic.field_validator("gateway_trusted_proxies")
    @classmethod
    def _are_networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        Networks(value)
        return value

    @pydantic.field_validator("allowed_origins", "gateway_trusted_proxies", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @pydantic.field_validator("allowed_origins")
    @classmethod
    def _are_origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for origin in value:
            check_origin(origin)
        return value

    @pydantic.field_validator("profile_url")
    @classmethod
    def _is_http(cls, value: str) -> str:
        return str(pydantic.HttpUrl(value)).rstrip("/")

    def bus_servers(self) -> list[str]:
        """The NATS servers to use any of; none: this gateway is the only one."""
        return [] if self.bus_url is None else _servers(self.bus_url)


def _servers(urls: pydantic.SecretStr) -> list[str]:
    return [url.strip() for url in urls.get_secret_value().split(",") if url.strip()]


def _check_nats_url(url: str) -> None:
    """Raise a ValueError that repeats nothing of the URL: it may hold a password."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in {"nats", "tls"} and parts.hostname and parts.path in {"", "/"}
        _ = parts.port
    except ValueError:
        usable = False
    if not usable:
        raise ValueError("needs the form nats://HOST:PORT or tls://USER:PASSWORD@HOST:PORT")
