"""Settings come from the environment, and all faults are told at once."""

from pathlib import Path

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


def test_an_identity_provider_needs_issuer_audience_and_keys(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert Settings.load().external_issuer is None
    monkeypatch.setenv("DUET_EXTERNAL_ISSUER", "https://shop.example")
    with pytest.raises(SettingsError) as faults:
        Settings.load()
    assert "DUET_EXTERNAL_AUDIENCE: " in str(faults.value)
    assert "DUET_EXTERNAL_JWKS_FILE: " in str(faults.value)
    monkeypatch.setenv("DUET_EXTERNAL_AUDIENCE", "chat")
    monkeypatch.setenv("DUET_EXTERNAL_JWKS_FILE", "keys.json")
    monkeypatch.setenv("DUET_EXTERNAL_ALGORITHMS", "ES256, PS512")
    settings = Settings.load()
    assert str(settings.external_jwks_file) == "keys.json"
    assert settings.external_algorithms == ("ES256", "PS512")
    monkeypatch.setenv("DUET_EXTERNAL_JWKS_URL", "https://shop.example/jwks.json")
    with pytest.raises(SettingsError, match="not both"):
        Settings.load()


@pytest.mark.parametrize("name", ["AUDIENCE", "JWKS_URL", "JWKS_FILE"])
def test_parts_of_an_identity_provider_are_of_no_use_without_the_issuer(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(f"DUET_EXTERNAL_{name}", "https://shop.example/x")
    with pytest.raises(SettingsError, match="DUET_EXTERNAL_ISSUER"):
        Settings.load()


@pytest.mark.parametrize(
    "url", ["https://shop.example/k", "http://127.0.0.1:9/k", "http://[::1]/k", "http://localhost/"]
)
def test_keys_come_by_https_or_from_this_machine(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("DUET_EXTERNAL_ISSUER", "https://shop.example")
    monkeypatch.setenv("DUET_EXTERNAL_AUDIENCE", "chat")
    monkeypatch.setenv("DUET_EXTERNAL_JWKS_URL", url)
    assert Settings.load().external_jwks_url == url


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
        ("DUET_SIGN_UP", "maybe"),
        ("DUET_EXTERNAL_JWKS_URL", "http://shop.example/jwks.json"),
        ("DUET_EXTERNAL_JWKS_URL", "https://user:secret@shop.example/jwks.json"),
        ("DUET_EXTERNAL_JWKS_URL", "https://shop.example:port/"),
        ("DUET_EXTERNAL_JWKS_URL", "file:///etc/keys.json"),
        ("DUET_EXTERNAL_JWKS_URL", "jwks.json"),
        ("DUET_EXTERNAL_ALGORITHMS", "RS256,HS256"),
        ("DUET_EXTERNAL_ALGORITHMS", "none"),
        ("DUET_EXTERNAL_ALGORITHMS", ","),
        ("DUET_EXTERNAL_USERNAME_CLAIM", "x" * 201),
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


def test_the_database_is_named_by_a_url_or_a_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert Settings.load().postgresql_url() is None
    url = "postgresql://duet:s3cret@db.example:5432/duet"
    monkeypatch.setenv("DUET_DATABASE_URL", url)
    settings = Settings.load()
    assert settings.postgresql_url() == url
    assert "s3cret" not in repr(settings)

    monkeypatch.setenv("DUET_DATABASE_URL_FILE", str(tmp_path / "url"))
    with pytest.raises(SettingsError, match=r"DUET_DATABASE_URL_FILE: .*not both"):
        Settings.load()
    monkeypatch.delenv("DUET_DATABASE_URL")
    (tmp_path / "url").write_text(url + "\n")
    assert Settings.load().postgresql_url() == url
    (tmp_path / "url").write_text("s3cret")
    with pytest.raises(ValueError, match="url: needs the form postgresql://") as raised:
        Settings.load().postgresql_url()
    assert "s3cret" not in str(raised.value)


@pytest.mark.parametrize(
    "url", ["mysql://u:s3cret@h/d", "postgresql://u:s3cret@h", "postgresql://u:s3cret/x@h/d", "x"]
)
def test_an_unusable_database_url_is_refused_and_not_shown(
    monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("DUET_DATABASE_URL", url)
    with pytest.raises(SettingsError, match=r"DUET_DATABASE_URL: .*needs the form") as raised:
        Settings.load()
    assert "s3cret" not in str(raised.value)
