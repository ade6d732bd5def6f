"""Settings of a service: frozen, from the environment, all faults reported at once."""

import difflib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Self
from urllib.parse import urlsplit

import pydantic
import pydantic_settings

from shared.client_address import PRIVATE_NETWORKS, Networks
from shared.database import WrongEngine
from shared.logs import LogFormat, LogLevel
from shared.service_auth import MIN_SECRET_BYTES, load_or_create_secret

__all__ = ["ServiceSettings", "SettingsError", "check_origin"]


_MISSPELT = 0.93
"""How like a setting another name is from which on it is taken for a slip (`difflib`'s ratio). The
settings of the two services are less alike."""

Port = Annotated[int, pydantic.Field(ge=0, le=65535)]
"""A TCP port; 0 takes any free one, which the log then names."""


class SettingsError(Exception):
    """The environment holds unusable settings; the message lists every one, a line each."""


class ServiceSettings(pydantic_settings.BaseSettings):
    """What both services are told. Each field is the variable `DUET_` + its name in capitals."""

    model_config = pydantic_settings.SettingsConfigDict(
        env_prefix="DUET_", frozen=True, extra="ignore", env_ignore_empty=True
    )

    profile_port: Port = 8000
    """Where the profile service listens."""
    gateway_port: Port = 8765
    """Where the gateway listens."""
    data_dir: Path = Path("data")
    """Where this service keeps its state."""
    database_url: pydantic.SecretStr | None = None
    """A PostgreSQL database, in place of SQLite in the data directory. It holds a password."""
    database_url_file: Annotated[Path | None, pydantic.Field(validate_default=True)] = None
    """A file with that URL, in place of the URL."""
    service_secret: pydantic.SecretStr | None = None
    """Shared secret of the services, at least 32 bytes; without it, the file below is used."""
    service_secret_file: Path | None = None
    """Default: `service_secret` in the data directory; made at first start."""
    log_level: LogLevel = "info"
    log_format: LogFormat = "console"
    metrics_networks: Annotated[tuple[str, ...], pydantic_settings.NoDecode] = PRIVATE_NETWORKS
    """Networks from which `/metrics` is answered, by commas; never through a proxy."""

    @pydantic.field_validator("database_url")
    @classmethod
    def _is_postgresql_url(cls, value: pydantic.SecretStr | None) -> pydantic.SecretStr | None:
        if value is not None:
            _check_database_url(value.get_secret_value())
        return value

    @pydantic.field_validator("database_url_file")
    @classmethod
    def _has_no_url_beside_it(
        cls, value: Path | None, info: pydantic.ValidationInfo
    ) -> Path | None:
        if value is not None and info.data.get("database_url") is not None:
            raise ValueError("set this or DUET_DATABASE_URL, not both")
        return value

    @pydantic.field_validator("service_secret")
    @classmethod
    def _long_enough(cls, value: pydantic.SecretStr | None) -> pydantic.SecretStr | None:
        if value is not None and len(value.get_secret_value().encode()) < MIN_SECRET_BYTES:
            raise ValueError(f"needs at least {MIN_SECRET_BYTES} bytes")
        return value

    @pydantic.field_validator("metrics_networks", mode="before")
    @classmethod
    def _split_networks(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip() != "none")
        return value

    @pydantic.field_validator("metrics_networks")
    @classmethod
    def _are_known_networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        Networks(value)
        return value

    @classmethod
    def load(cls) -> Self:
        """Read the environment.

        Raises:
            SettingsError: at least one variable is unusable, or misspelt; the message names all of
                them.
        """
        faults = _misspelt(cls.model_fields)
        try:
            settings = cls()
        except pydantic.ValidationError as error:
            faults += [
                f"  DUET_{'_'.join(map(str, fault['loc'])).upper()}: {fault['msg']}"
                for fault in error.errors(include_input=False, include_url=False)
                if fault["type"] != "default_factory_not_called"  # another one's is the fault
            ]
        if faults:
            raise SettingsError("unusable settings:\n" + "\n".join(faults))
        return settings

    def postgresql_url(self) -> str | None:
        """Where PostgreSQL is; None: SQLite is used.

        Raises:
            ValueError: the file does not hold such a URL.
            OSError: it cannot be read.
        """
        if self.database_url is not None:
            return self.database_url.get_secret_value()
        if self.database_url_file is None:
            return None
        url = self.database_url_file.read_text().strip()
        try:
            _check_database_url(url)
        except ValueError as error:
            raise ValueError(f"{self.database_url_file}: {error}") from None
        return url

    def require_sqlite(self, instead: str) -> None:
        """Go on only where SQLite is used; `instead` is what PostgreSQL has for it.

        Raises:
            WrongEngine: PostgreSQL is.
            ValueError, OSError: the database's URL cannot be used.
        """
        if self.postgresql_url() is not None:
            raise WrongEngine(f"DUET_DATABASE_URL is set: use PostgreSQL's {instead}")

    def require_postgresql(self, hint: str) -> str:
        """Return where PostgreSQL is; `hint` is for those who use SQLite.

        Raises:
            WrongEngine: SQLite is used.
            ValueError, OSError: the database's URL cannot be used.
        """
        url = self.postgresql_url()
        if url is None:
            raise WrongEngine(f"DUET_DATABASE_URL is not set: {hint}")
        return url

    def shared_secret(self) -> bytes:
        """The secret the services share, made and stored at the first start.

        Raises:
            ValueError: the file holds too little.
            OSError: it cannot be read or made.
        """
        if self.service_secret is not None:
            return self.service_secret.get_secret_value().encode()
        return load_or_create_secret(self.service_secret_file or self.data_dir / "service_secret")


def _misspelt(fields: Iterable[str]) -> list[str]:
    """Find variables that nobody reads, by their likeness to one that somebody would."""
    known = {f"DUET_{name.upper()}" for name in fields}
    unknown = sorted(name for name, value in os.environ.items() if value and name not in known)
    return [
        f"  {name}: there is no such setting; {like[0]}?"
        for name in unknown
        if name.startswith("DUET_")
        if (like := difflib.get_close_matches(name, known, n=1, cutoff=_MISSPELT))
    ]


def check_origin(origin: str) -> None:
    """Refuse what no browser sends as the `Origin` of a page (RFC 6454, section 6.2).

    Raises:
        ValueError: it says what to write.
    """
    try:
        parts = urlsplit(str(pydantic.AnyUrl(origin)))
    except ValueError:
        raise ValueError(f"{origin!r} is not an origin, such as https://chat.example.org") from None
    sent = f"{parts.scheme}://{parts.netloc}"
    if origin != sent:
        raise ValueError(f"{origin!r} is not an origin: browsers send {sent!r}")


def _check_database_url(url: str) -> None:
    """Raise a ValueError that repeats nothing of the URL: it holds a password."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in {"postgresql", "postgres"} and parts.path.strip("/") != ""
        _ = parts.port
    except ValueError:
        usable = False
    if not usable:
        raise ValueError(
            "needs the form postgresql://USER:PASSWORD@HOST:PORT/DATABASE"
            " (percent-encode what is not a letter or digit in the password)"
        )
