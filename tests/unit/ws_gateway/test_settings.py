"""Settings from the environment: defaults, and every fault at once."""

from pathlib import Path

import pytest

from shared.settings import SettingsError
from ws_gateway.settings import Settings


def test_defaults_are_safe() -> None:
    settings = Settings.load()
    assert (settings.gateway_host, settings.gateway_port) == ("127.0.0.1", 8765)
    assert settings.data_dir == Path("data")
    assert settings.max_connections_per_user == 10


def test_profile_service_is_looked_for_on_its_port(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings.load().profile_url == "http://127.0.0.1:8000"
    monkeypatch.setenv("DUET_PROFILE_PORT", "8001")
    settings = Settings.load()
    assert settings.profile_url == "http://127.0.0.1:8001"
    assert settings.allowed_origins == ("http://127.0.0.1:8001", "http://localhost:8001")


def test_default_that_depends_on_an_unusable_setting_is_no_fault_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DUET_PROFILE_PORT", "http")
    with pytest.raises(SettingsError) as error:
        Settings.load()
    assert str(error.value).count("DUET_") == 1


def test_origins_are_separated_by_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DUET_ALLOWED_ORIGINS", "https://a.example, http://localhost:5173,")
    assert Settings.load().allowed_origins == ("https://a.example", "http://localhost:5173")


def test_empty_variable_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DUET_GATEWAY_PORT", "")
    assert Settings.load().gateway_port == 8765


def test_url_loses_its_last_slash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DUET_PROFILE_URL", "https://profile.example/base/")
    assert Settings.load().profile_url == "https://profile.example/base"


def test_bus_needs_a_database_that_gateways_share(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DUET_BUS_URL", "nats://duet:hunter2@a:4222, tls://b,")
    with pytest.raises(SettingsError, match=r"DUET_BUS_URL: .*needs DUET_DATABASE_URL"):
        Settings.load()
    monkeypatch.setenv("DUET_DATABASE_URL", "postgresql://duet:hunter2@localhost/duet")
    settings = Settings.load()
    assert settings.bus_servers() == ["nats://duet:hunter2@a:4222", "tls://b"]
    assert "hunter2" not in repr(settings)


@pytest.mark.parametrize(
    "url",
    ["http://u:hunter2@a", "nats://u:hunter2@", "nats://a:x", "a:4222", "nats://u:hunter2@a/b"],
)
def test_bus_url_that_is_none_is_refused_and_not_shown(
    monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("DUET_DATABASE_URL", "postgresql://localhost/duet")
    monkeypatch.setenv("DUET_BUS_URL", url)
    with pytest.raises(SettingsError, match=r"DUET_BUS_URL: .*nats://HOST:PORT") as error:
        Settings.load()
    assert "hunter2" not in str(error.value)


def test_every_fault_is_named_and_no_value_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    faults = {
        "DUET_GATEWAY_PORT": "65536",
        "DUET_PROFILE_URL": "ftp://x",
        "DUET_ALLOWED_ORIGINS": "https://a.example/path",
        "DUET_MAX_FRAME_BYTES": "10",
        "DUET_CONNECT_TIMEOUT_S": "0",
        "DUET_SERVICE_SECRET": "tooshort-secret",
        "DUET_LOG_LEVEL": "loud",
        "DUET_COMMIT_MAX_BATCH": "0",
    }
    for name, value in faults.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as error:
        Settings.load()
    assert all(f"  {name}: " in str(error.value) for name in faults)
    assert "tooshort" not in str(error.value)


@pytest.mark.parametrize(
    ("origin", "sent"),
    [
        ("https://a.example/", "https://a.example"),
        ("https://A.example:443", "https://a.example"),
        ("http://a.example:80", "http://a.example"),
        ("https://bücher.example", "https://xn--bcher-kva.example"),
    ],
)
def test_origin_that_browsers_write_in_another_way_is_refused(
    monkeypatch: pytest.MonkeyPatch, origin: str, sent: str
) -> None:
    monkeypatch.setenv("DUET_ALLOWED_ORIGINS", origin)
    with pytest.raises(SettingsError, match=f"DUET_ALLOWED_ORIGINS: .*browsers send '{sent}'"):
        Settings.load()


@pytest.mark.parametrize(
    "origin", ["https://a.example:8443", "http://[::1]:8000", "capacitor://localhost"]
)
def test_origin_is_taken_as_browsers_send_it(monkeypatch: pytest.MonkeyPatch, origin: str) -> None:
    monkeypatch.setenv("DUET_ALLOWED_ORIGINS", origin)
    assert Settings.load().allowed_origins == (origin,)


@pytest.mark.parametrize("origin", ["chat.example", "*", "https://"])
def test_what_is_no_origin_is_refused(monkeypatch: pytest.MonkeyPatch, origin: str) -> None:
    monkeypatch.setenv("DUET_ALLOWED_ORIGINS", origin)
    with pytest.raises(SettingsError, match="DUET_ALLOWED_ORIGINS"):
        Settings.load()


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Settings().gateway_port = 1
