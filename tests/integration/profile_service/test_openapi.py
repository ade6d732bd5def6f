"""The OpenAPI document is true: what it says is what the running service does."""

from collections.abc import Iterator
from typing import Any

import httpx
import hypothesis
import pytest
import schemathesis
from schemathesis.checks import CHECKS, load_all_checks
from schemathesis.core.result import Ok
from schemathesis.schemas import BaseSchema

from tests.support.profile_service import (
    PASSWORD,
    SpawnedService,
    bearer,
    spawned_service,
)

EXAMPLES_PER_OPERATION = 30

NOT_HTTP = "Invalid HTTP request received."
"""What the server itself says, for example to a query of more than 64 KiB."""

STREAM = "/internal/revocations"  # it does not end
ENDING_THE_CALLER = "/v1/sessions/current"


load_all_checks()
EXCLUDED_CHECKS: list[Any] = [
    CHECKS.get_one("positive_data_acceptance"),  # no schema says what a weak password is
    CHECKS.get_one("negative_data_rejection"),  # a query's number is its string, and its list
]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SpawnedService]:
    with spawned_service(tmp_path_factory.mktemp("profile")) as spawned:
        yield spawned


@pytest.fixture(scope="module")
def person(service: SpawnedService) -> dict[str, Any]:
    body = {"username": "schema-tester", "password": PASSWORD}
    answer = httpx.post(f"{service.url}/v1/users", json=body, trust_env=False)
    created: dict[str, Any] = answer.json()
    return created


KEYWORDS_OF_3_1 = {"$defs", "const", "contentEncoding", "examples", "prefixItems"}


def _schemas_in(schema: Any) -> Iterator[dict[str, Any]]:
    """The schema and all within it."""
    yield schema
    inner = [*schema.get("properties", {}).values(), *schema.get("anyOf", ())]
    for each in [*inner, schema.get("items"), schema.get("additionalProperties")]:
        if isinstance(each, dict):
            yield from _schemas_in(each)


def test_schemas_are_of_the_version_that_the_document_names(service: SpawnedService) -> None:
    described = httpx.get(f"{service.url}/openapi.json", trust_env=False).json()
    assert described["openapi"] == "3.0.3"
    for name, component in described["components"]["schemas"].items():
        for schema in _schemas_in(component):
            assert not schema.keys() & KEYWORDS_OF_3_1, name
            assert isinstance(schema.get("type", ""), str), name
            assert schema.get("required", ["any"]) != [], name


@pytest.fixture(scope="module")
def document(service: SpawnedService) -> BaseSchema:
    described = httpx.get(f"{service.url}/openapi.json", trust_env=False).json()
    schema = schemathesis.openapi.from_dict(described)
    schema.config.update(base_url=service.url)
    return (
        schema.exclude(path=STREAM)
        .exclude(path=ENDING_THE_CALLER)
        .exclude(path="/v1/sessions", method="DELETE")
    )


@pytest.mark.parametrize("mode", list(schemathesis.GenerationMode))
def test_the_service_does_what_its_document_says(
    mode: schemathesis.GenerationMode,
    document: BaseSchema,
    service: SpawnedService,
    person: dict[str, Any],
) -> None:
    checked = 0
    for found in document.get_all_operations():
        assert isinstance(found, Ok)
        operation = found.ok()
        if mode.is_negative and not (operation.body or operation.query):
            continue  # there is nothing to get wrong
        _check(operation.as_strategy(generation_mode=mode), service, person)
        checked += 1
    assert checked >= 10


def _check(cases: Any, service: SpawnedService, person: dict[str, Any]) -> None:
    @hypothesis.settings(
        max_examples=EXAMPLES_PER_OPERATION,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(case=cases)
    def check(case: schemathesis.Case[Any]) -> None:
        internal = case.path.startswith("/internal")
        authorization = service.credentials.authorization()
        headers = {"Authorization": authorization} if internal else bearer(person)
        response = case.call(headers=headers)
        hypothesis.assume(response.text != NOT_HTTP)
        case.validate_response(response, headers=headers, excluded_checks=EXCLUDED_CHECKS)

    check()
