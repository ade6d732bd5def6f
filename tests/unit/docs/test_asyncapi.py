"""docs/asyncapi.json is current, is AsyncAPI 3.0, and leaves no message out."""

import json
import re
from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import pytest

from tests.support.documents import DOCS
from ws_gateway.__main__ import main
from ws_gateway.protocol import asyncapi
from ws_gateway.protocol.errors import CLOSES, ERRORS

DOCUMENT: dict[str, Any] = json.loads((DOCS / "asyncapi.json").read_text())

REFERENCE = {
    "type": "object",
    "required": ["$ref"],
    "properties": {"$ref": {"type": "string", "pattern": "^#/"}},
    "additionalProperties": False,
}
NAME = "^[A-Za-z0-9_.-]+$"
MESSAGE = {
    "type": "object",
    "required": ["name", "title", "summary", "payload"],
    "properties": {
        "name": {"type": "string"},
        "title": {"type": "string"},
        "summary": {"type": "string"},
        "payload": REFERENCE,
        "correlationId": {
            "type": "object",
            "required": ["location"],
            "properties": {"location": {"pattern": r"^\$message\.(header|payload)#/"}},
            "additionalProperties": False,
        },
    },
    "additionalProperties": False,
}
OPERATION = {
    "type": "object",
    "required": ["action", "channel", "messages"],
    "properties": {
        "action": {"enum": ["send", "receive"]},
        "channel": REFERENCE,
        "summary": {"type": "string"},
        "messages": {"type": "array", "items": REFERENCE, "minItems": 1},
        "reply": {
            "type": "object",
            "required": ["channel", "messages"],
            "properties": {
                "channel": REFERENCE,
                "messages": {"type": "array", "items": REFERENCE, "minItems": 1},
            },
            "additionalProperties": False,
        },
    },
    "additionalProperties": False,
}
CHANNEL = {
    "type": "object",
    "required": ["address", "messages"],
    "properties": {
        "address": {"type": "string"},
        "description": {"type": "string"},
        "messages": {"propertyNames": {"pattern": NAME}, "additionalProperties": REFERENCE},
        "bindings": {
            "type": "object",
            "properties": {
                "ws": {
                    "type": "object",
                    "properties": {
                        "method": {"enum": ["GET", "POST"]},
                        "headers": {"type": "object", "required": ["type", "properties"]},
                    },
                    "additionalProperties": False,
                }
            },
            "additionalProperties": False,
        },
    },
    "additionalProperties": False,
}
STRUCTURE = {
    "type": "object",
    "required": ["asyncapi", "info", "channels", "operations", "components"],
    "properties": {
        "asyncapi": {"const": "3.0.0"},
        "info": {"type": "object", "required": ["title", "version"]},
        "defaultContentType": {"type": "string"},
        "servers": {
            "propertyNames": {"pattern": NAME},
            "additionalProperties": {"type": "object", "required": ["host", "protocol"]},
        },
        "channels": {"propertyNames": {"pattern": NAME}, "additionalProperties": CHANNEL},
        "operations": {"propertyNames": {"pattern": NAME}, "additionalProperties": OPERATION},
        "components": {
            "type": "object",
            "properties": {
                "messages": {"propertyNames": {"pattern": NAME}, "additionalProperties": MESSAGE},
                "schemas": {"propertyNames": {"pattern": NAME}},
            },
            "additionalProperties": False,
        },
    },
    "patternProperties": {"^x-": {}},
    "additionalProperties": False,
}
"""What of AsyncAPI 3.0 the document uses, as its specification wants it."""


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from references(item)


def resolve(reference: str) -> Any:
    found: Any = DOCUMENT
    for step in reference.removeprefix("#/").split("/"):
        found = found[step]
    return found


def test_checked_in_document_is_what_the_code_says(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["asyncapi"]) == 0
    assert capsys.readouterr().out == (DOCS / "asyncapi.json").read_text(), (
        "docs/asyncapi.json is out of date: python -m ws_gateway asyncapi > docs/asyncapi.json"
    )


def test_document_has_the_structure_of_asyncapi_3() -> None:
    jsonschema_rs.validator_for(STRUCTURE).validate(DOCUMENT)


def test_every_reference_leads_somewhere() -> None:
    for reference in references(DOCUMENT):
        assert resolve(reference), reference


def test_operations_use_messages_of_their_channel() -> None:
    for operation in DOCUMENT["operations"].values():
        for side in (operation, operation.get("reply")):
            if side is not None:
                of_channel = side["channel"]["$ref"] + "/messages/"
                assert all(m["$ref"].startswith(of_channel) for m in side["messages"])


@pytest.mark.parametrize("name", DOCUMENT["components"]["schemas"])
def test_schema_is_json_schema_whichever_draft_a_reader_assumes(name: str) -> None:
    schema = {"$ref": f"#/components/schemas/{name}", "components": DOCUMENT["components"]}
    jsonschema_rs.Draft7Validator(schema)
    jsonschema_rs.Draft202012Validator(schema)


def test_every_request_and_frame_is_a_message() -> None:
    structs = [*asyncapi.REQUESTS, *asyncapi.SERVER_FRAMES]
    assert set(DOCUMENT["components"]["messages"]) == {struct.__name__ for struct in structs}
    assert len({struct.__name__ for struct in structs}) == len(structs)


def test_every_request_names_what_answers_it_and_every_frame_has_a_purpose() -> None:
    assert set(asyncapi.ANSWERS) == set(asyncapi.REQUESTS)
    sent = {frame for answers in asyncapi.ANSWERS.values() for frame in answers}
    assert sent | set(asyncapi.NEWS) == set(asyncapi.SERVER_FRAMES)


def test_answers_of_a_request_with_an_id_repeat_it() -> None:
    for request, answers in asyncapi.ANSWERS.items():
        if "id" in request.__struct_fields__:
            assert all("id" in answer.__struct_fields__ for answer in answers)


def test_codes_are_those_of_the_code() -> None:
    assert set(DOCUMENT["x-error-codes"]) == {code.value for code in ERRORS}
    assert set(DOCUMENT["x-close-codes"]) == {str(code.value) for code in CLOSES}


def test_no_message_refuses_what_a_newer_side_adds() -> None:
    assert not re.search('"additionalProperties": ?false', json.dumps(DOCUMENT))
