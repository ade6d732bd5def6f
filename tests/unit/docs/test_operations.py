"""docs/operations.md lists the settings and metrics that there are, with defaults and bounds."""

import re
import subprocess
import typing
from pathlib import Path
from typing import Any

import annotated_types
import pytest

from profile_service.metrics import Metrics as ProfileMetrics
from profile_service.settings import Settings as ProfileSettings
from shared.settings import ServiceSettings, SettingsError
from tests.support.documents import DOCS, ROOT, sections, table
from tests.support.gateway import running_gateway
from tests.support.nats_server import NATS_SERVER_MISSING, nats_executable
from ws_gateway.settings import Settings as GatewaySettings

SECTIONS = sections((DOCS / "operations.md").read_text())
TABLES: dict[str, type[ServiceSettings]] = {
    "Both services": ServiceSettings,
    "Profile service": ProfileSettings,
    "Gateway": GatewaySettings,
}
OF_THE_MACHINE = {
    "hash_threads": "CPUs",
    "web_client_dir": "`clients/web`",
    "profile_url": "`http://127.0.0.1:` and its port",
    "allowed_origins": "that and `http://localhost:`",
}
"""Defaults that differ between machines, and what the document calls them."""
COMPOSE_FILES = {
    "docker-compose.yml": ("  profile-service:", "  ws-gateway:", "\nvolumes:"),
    "docker-compose.scale.yml": ("x-profile-service:", "x-ws-gateway:", "\nservices:"),
}
"""Where the part of each service begins, and where the second one ends."""
OF_THE_IMAGE = re.compile(r"data_dir|web_client_dir|.*_(file|host|port)")
"""Settings that name what is inside of a container."""


def shown_default(settings: type[ServiceSettings], name: str) -> str:
    default = settings.model_fields[name].default
    if name in OF_THE_MACHINE:
        return OF_THE_MACHINE[name]
    if default is None or default == ():
        return ""
    if isinstance(default, tuple):
        return f"`{','.join(default)}`"
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    if isinstance(default, float):
        return f"`{default:g}`"
    return f"`{default}`"


def allowed(settings: type[ServiceSettings], name: str) -> str:
    field = settings.model_fields[name]
    if typing.get_origin(field.annotation) is typing.Literal:
        return ", ".join(f"`{value}`" for value in typing.get_args(field.annotation))
    if field.annotation is bool:
        return "`true`, `false`"
    bounds = {type(bound): bound for bound in field.metadata}
    low = bounds.get(annotated_types.Ge)
    above = bounds.get(annotated_types.Gt)
    high = bounds.get(annotated_types.Le)
    if above is not None:
        return f"more than {above.gt}"
    if low is not None:
        return f"{low.ge} to {high.le}" if high is not None else f"{low.ge} or more"
    return ""


def variables(settings: type[ServiceSettings]) -> list[list[str]]:
    inherited = ServiceSettings.model_fields if settings is not ServiceSettings else {}
    return [
        [f"`DUET_{name.upper()}`", shown_default(settings, name), allowed(settings, name)]
        for name in settings.model_fields
        if name not in inherited
    ]


@pytest.mark.parametrize("title", TABLES)
def test_settings_are_those_of_the_code(title: str) -> None:
    rows = table(SECTIONS[title])
    assert [row[:3] for row in rows] == variables(TABLES[title])
    assert all(meaning for *_, meaning in rows)


@pytest.mark.parametrize("file", COMPOSE_FILES)
def test_containers_are_given_every_setting(file: str) -> None:
    text = (ROOT / file).read_text()
    profile, gateway, end = (text.index(mark) for mark in COMPOSE_FILES[file])
    for part, settings in (
        (text[profile:gateway], ProfileSettings),
        (text[gateway:end], GatewaySettings),
    ):
        given = set(re.findall(r"^ +DUET_(\w+):", part, re.MULTILINE))
        wanted = {name for name in settings.model_fields if not OF_THE_IMAGE.fullmatch(name)}
        assert {name.lower() for name in given} - {"profile_port", "gateway_port"} == wanted


@pytest.mark.parametrize("settings", [ProfileSettings, GatewaySettings])
def test_setting_that_is_misspelt_is_named_with_what_may_be_meant(
    monkeypatch: pytest.MonkeyPatch, settings: type[ServiceSettings]
) -> None:
    monkeypatch.setenv("DUET_GATEWAY_PROT", "8766")
    monkeypatch.setenv("DUET_LOG_FROMAT", "json")
    monkeypatch.setenv("DUET_LOG_LEVEL", "loud")
    with pytest.raises(SettingsError) as error:
        settings.load()
    _, *faults = str(error.value).splitlines()
    assert faults[:2] == [
        "  DUET_GATEWAY_PROT: there is no such setting; DUET_GATEWAY_PORT?",
        "  DUET_LOG_FROMAT: there is no such setting; DUET_LOG_FORMAT?",
    ]
    assert [fault.split(":")[0] for fault in faults[2:]] == ["  DUET_LOG_LEVEL"]


def test_settings_of_one_service_are_no_slip_for_the_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    every = (ProfileSettings, GatewaySettings)
    for name in {name for settings in every for name in settings.model_fields}:
        monkeypatch.setenv(f"DUET_{name.upper()}", " ")
    for settings in every:
        with pytest.raises(SettingsError) as error:
            settings.load()
        assert "no such setting" not in str(error.value)


def test_what_is_called_the_machine_s_default_is_so() -> None:
    defaults: dict[str, Any] = {
        name: field.default for name, field in ProfileSettings.model_fields.items()
    }
    assert defaults["web_client_dir"] == ROOT / "clients" / "web"
    assert 1 <= defaults["hash_threads"] <= 8
    assert defaults["data_dir"] == Path("data")


def described(title: str) -> dict[str, set[str]]:
    return {
        row[0].strip("`"): set(re.findall(r"`(\w+)`", row[1])) for row in table(SECTIONS[title])
    }


def exposed(exposition: bytes) -> set[str]:
    """The names that an exposition declares, but for the times of creation."""
    found = re.findall(r"^# TYPE (\S+) \w+$", exposition.decode(), re.MULTILINE)
    return {name for name in found if not name.endswith("_created")}


def test_metrics_of_the_profile_service_are_those_of_the_code() -> None:
    metrics = ProfileMetrics()
    metrics.watch_hashing(lambda: 0)
    assert set(described("Metrics of the profile service")) == exposed(metrics.render())


async def test_metrics_of_the_gateway_are_those_of_the_code(tmp_path: Path) -> None:
    async with running_gateway(tmp_path) as gateway:
        shown = await gateway.get("/metrics")
    assert set(described("Metrics of the gateway")) == exposed(shown.content)


@pytest.mark.parametrize("file", COMPOSE_FILES)
def test_no_secret_is_an_argument_which_everybody_on_the_machine_can_read(file: str) -> None:
    lines = (ROOT / file).read_text().splitlines()
    arguments = [line for line in lines if re.match(r" +(command|entrypoint|test):", line)]
    assert arguments or file == "docker-compose.yml"
    assert not [line for line in arguments if re.search(r"PASSWORD|SECRET", line)]


@pytest.mark.skipif(nats_executable() is None, reason=NATS_SERVER_MISSING)
@pytest.mark.parametrize("password", ["12e3" * 16, "1" * 64, "5k"])
def test_nats_takes_passwords_that_look_like_numbers_from_the_environment(
    password: str,
) -> None:
    command = [str(nats_executable()), "--config", str(ROOT / "deploy" / "nats.conf"), "-t"]
    line = next(
        line
        for line in (ROOT / "docker-compose.scale.yml").read_text().splitlines()
        if line.strip().startswith("DUET_BUS_PASSWORD:")
    )
    value = line.partition(": '")[2].partition("'")[0].replace("${DUET_BUS_PASSWORD}", password)
    subprocess.run(command, env={"DUET_BUS_PASSWORD": value}, check=True, timeout=20)
