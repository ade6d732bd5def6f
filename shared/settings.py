"""Settings of a service: frozen, from the environment, all faults reported at once."""

from pathlib import Path
from typing import Annotated, Self

import pydantic
import pydantic_settings

from shared.logs import LogFormat, LogLevel
from shared.service_auth import MIN_SECRET_BYTES, load_or_create_secret

__all__ = ["Port", "ServiceSettings", "SettingsError"]


class SettingsError(Exception):
    """The environment holds unusable settings; the message lists every one, a line each."""


class ServiceSettings(pydantic_settings.BaseSettings):
    """What both services are told. Each field is the variable `DUET_` + its name in capitals."""

    model_config = pydantic_settings.SettingsConfigDict(
        env_prefix="DUET_", frozen=True, extra="ignore", env_ignore_empty=True
    )

    data_dir: Path = Path("data")
    """Where this service keeps its state."""
    service_secret: pydantic.SecretStr | None = None
    """Shared secret of the services, at least 32 bytes; without it, the file below is used."""
    service_secret_file: Path | None = None
    """Default: `service_secret` in the data directory; made at first start."""
    log_level: LogLevel = "info"
    log_format: LogFormat = "console"

    @pydantic.field_validator("service_secret")
    @classmethod
    def _long_enough(cls, value: pydantic.SecretStr | None) -> pydantic.SecretStr | None:
        if value is not None and len(value.get_secret_value().encode()) < MIN_SECRET_BYTES:
            raise ValueError(f"needs at least {MIN_SECRET_BYTES} bytes")
        return value

    @classmethod
    def load(cls) -> Self:
        """Read the environment.

        Raises:
            SettingsError: at least one variable is unusable; the message names all of them.
        """
        try:
            return cls()
        except pydantic.ValidationError as error:
            faults = [
                f"  DUET_{'_'.join(map(str, fault['loc'])).upper()}: {fault['msg']}"
                for fault in error.errors(include_input=False, include_url=False)
            ]
            raise SettingsError("unusable settings:\n" + "\n".join(faults)) from None

    def shared_secret(self) -> bytes:
        """The secret the services share, made and stored at the first start.

        Raises:
            ValueError: the file holds too little.
            OSError: it cannot be read or made.
        """
        if self.service_secret is not None:
            return self.service_secret.get_secret_value().encode()
        return load_or_create_secret(self.service_secret_file or self.data_dir / "service_secret")


Port = Annotated[int, pydantic.Field(ge=0, le=65535)]
"""A TCP port; 0 takes any free one, which the log then names."""
