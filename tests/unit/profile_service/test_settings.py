"""Settings come from the environment, and all faults are told at once."""

import pytest

from profile_service.settings import Settings
from shared.settings import SettingsError


def test_defaults_are_safe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DUET_PROFILE_HOST", raising=False)
    settings = Settings.load()
    assert (settings.profile_host, settings.profile_port) == ("127.0.0.1", 8000)
    assert settings.profile_allowed_origins == settings.profile_trusted_proxies == ()
    assert settings.argon2_memory_kib == 47_104


def test_lists_are_separated_by_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DUET_PROFILE_TRUSTED_PROXIES", "127.0.0.1, 10.0.0.0/8,")
    monkeypatch.setenv("DUET_PROFILE_ALLOWED_ORIGINS", "https://a.example,http://localhost:5173")
    settings = Settings.load()
    assert settings.profile_trusted_proxies == ("127.0.0.1", "10.0.0.0/8")
    assert settings.profile_allowed_origins == ("https://a.example", "http://localhost:5173")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DUET_PROFILE_PORT", "70000"),
        ("DUET_REFRESH_TOKEN_LIFETIME_S", "600"),
        ("DUET_PROFILE_TRUSTED_PROXIES", "proxy.internal"),
        ("DUET_PROFILE_ALLOWED_ORIGINS", "chat.example"),
        ("DUET_LOGIN_ATTEMPTS_PER_ACCOUNT", "0"),
        ("DUET_ARGON2_MEMORY_KIB", "lots"),
        ("DUET_LOG_LEVEL", "loud"),
    ],
)
def test_unusable_values_name_their_variable(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    monkeypatch.setenv("DUET_HASH_THREADS", "none")
    with pytest.raises(SettingsError) as faults:
        Settings.load()
    assert f"{name}: " in str(faults.value)
    assert "DUET_HASH_THREADS: " in str(faults.value)
