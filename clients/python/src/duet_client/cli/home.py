"""Where the command line keeps things: whose account, the tokens, and the state of each client."""

import contextlib
import os
from pathlib import Path
from typing import Literal

import msgspec
import platformdirs

from duet_client.credentials import CredentialStore, FileCredentials, KeyringCredentials, Tokens
from duet_client.errors import LoginRequired

__all__ = ["Home", "Settings", "Store"]

Store = Literal["file", "keyring"]


class Settings(msgspec.Struct, frozen=True):
    """The account in use, and how to reach its services. No secret is in it."""

    username: str
    profile_url: str
    gateway_url: str
    store: Store


class Home:
    """A folder of one account. `DUET_HOME` moves it; two accounts at once need two."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder or Path(
            os.environ.get("DUET_HOME") or platformdirs.user_data_dir("duet", appauthor=False)
        )

    def settings(self) -> Settings:
        """Return the account in use.

        Raises:
            LoginRequired: there is none.
        """
        try:
            return msgspec.json.decode((self._folder / "account.json").read_bytes(), type=Settings)
        except (FileNotFoundError, msgspec.DecodeError):
            raise LoginRequired("nobody is logged in here; `duet login NAME` does that") from None

    def log_in(self, tokens: Tokens, profile_url: str, gateway_url: str, store: Store) -> None:
        """Keep a new login in place of the one before."""
        settings = Settings(tokens.username, profile_url, gateway_url, store)
        self.credentials(settings).save(tokens)
        path = self._folder / "account.json"
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.write_bytes(msgspec.json.encode(settings))

    def log_out(self) -> None:
        """Forget the login. What is still queued stays, for the same person's next one."""
        with contextlib.suppress(LoginRequired):
            self.credentials(self.settings()).clear()
        (self._folder / "account.json").unlink(missing_ok=True)

    def credentials(self, settings: Settings) -> CredentialStore:
        """Return where the tokens are."""
        if settings.store == "keyring":
            name = f"{settings.username} at {settings.profile_url}"
            return KeyringCredentials(name, self._folder / "tokens.lock")
        return FileCredentials(self._folder / "tokens.json")

    def state(self, settings: Settings, purpose: str) -> Path:
        """Return the state file of one kind of client: each kind may run beside the others."""
        return self._folder / "state" / settings.username.lower() / f"{purpose}.db"
