"""docs/examples/kubernetes says the same as the code and as the other documents."""

from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from profile_service.settings import Settings as ProfileSettings
from shared.settings import ServiceSettings
from tests.support.documents import DOCS
from ws_gateway.settings import Settings as GatewaySettings

EXAMPLES = DOCS / "examples" / "kubernetes"
SETTINGS: dict[str, type[ServiceSettings]] = {
    "ws-gateway": GatewaySettings,
    "profile-service": ProfileSettings,
}


def documents(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(path.read_text()))


def of_kind(kind: str) -> dict[str, Any]:
    """Every resource of that kind, by its name."""
    (kustomization,) = documents(EXAMPLES / "kustomization.yaml")
    resources = [one for name in kustomization["resources"] for one in documents(EXAMPLES / name)]
    return {one["metadata"]["name"]: one for one in resources if one["kind"] == kind}


def container(name: str) -> dict[str, Any]:
    found: dict[str, Any]
    (found,) = of_kind("Deployment")[name]["spec"]["template"]["spec"]["containers"]
    return found


def test_every_file_is_listed() -> None:
    (kustomization,) = documents(EXAMPLES / "kustomization.yaml")
    files = {path.name for path in EXAMPLES.glob("*.yaml")}
    assert {*kustomization["resources"], "kustomization.yaml"} == files
    assert {image["name"] for image in kustomization["images"]} == {
        container(name)["image"] for name in SETTINGS
    }


@pytest.mark.parametrize("name", SETTINGS)
def test_variables_are_settings_of_the_service(name: str) -> None:
    known = {f"DUET_{field.upper()}" for field in SETTINGS[name].model_fields}
    given = {variable["name"] for variable in container(name)["env"]}
    assert given <= known
    assert {"DUET_DATABASE_URL", "DUET_SERVICE_SECRET"} <= given


@pytest.mark.parametrize("name", SETTINGS)
def test_service_budget_and_scaler_are_of_the_deployment(name: str) -> None:
    deployment = of_kind("Deployment")[name]["spec"]
    labels = deployment["template"]["metadata"]["labels"]
    assert deployment["selector"]["matchLabels"].items() <= labels.items()
    service = of_kind("Service")[name]["spec"]
    assert service["selector"].items() <= labels.items()
    assert [port["targetPort"] for port in service["ports"]] == [
        port["name"] for port in container(name)["ports"]
    ]
    budget = of_kind("PodDisruptionBudget")[name]["spec"]
    assert budget["selector"]["matchLabels"].items() <= labels.items()
    assert of_kind("HorizontalPodAutoscaler")[name]["spec"]["scaleTargetRef"]["name"] == name


def test_gateway_has_time_to_leave_and_to_drain() -> None:
    gateway = container("ws-gateway")
    (_, leave_s) = gateway["lifecycle"]["preStop"]["exec"]["command"]
    grace_s = of_kind("Deployment")["ws-gateway"]["spec"]["template"]["spec"][
        "terminationGracePeriodSeconds"
    ]
    drain_s = GatewaySettings.model_fields["gateway_shutdown_timeout_s"].default
    assert grace_s > int(leave_s) + drain_s + 1
    probe = gateway["readinessProbe"]
    assert int(leave_s) > probe["periodSeconds"] * probe["failureThreshold"]


def test_ingress_leads_to_services_and_to_nothing_internal() -> None:
    (rule,) = of_kind("Ingress")["duet"]["spec"]["rules"]
    paths = {path["path"]: path for path in rule["http"]["paths"]}
    assert paths["/v1/ws"]["backend"]["service"]["name"] == "ws-gateway"
    for path, entry in paths.items():
        service = of_kind("Service")[entry["backend"]["service"]["name"]]["spec"]
        port = entry["backend"]["service"]["port"]["name"]
        assert port in {one["name"] for one in service["ports"]}
        assert not "/internal/".startswith(path)
        assert not "/metrics".startswith(path)
