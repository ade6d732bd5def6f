"""The OpenAPI document of the route table: made from the types that decode and encode.

It is version 3.0, because that is what the bundled Swagger UI can show; msgspec writes the JSON
Schema of 3.1, so what 3.0 says in another way is rewritten.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from profile_service.http_api.operation import Auth, Operation
from profile_service.http_api.problems import PROBLEMS, Problem

__all__ = ["describe"]

PROBLEM_JSON = "application/problem+json"

_TAGS = {"/v1/users": "users", "/v1/sessions": "sessions", "/v1/token": "sessions"}
_RETRY_CODES = frozenset(
    {"too_many_attempts", "overloaded", "unavailable", "identity_provider_unavailable"}
)


def describe(operations: Sequence[Operation], version: str = "1") -> dict[str, object]:
    """Write the OpenAPI document of these operations."""
    types = list(_types(operations))
    schemas, components = msgspec.json.schema_components(
        types, ref_template="#/components/schemas/{name}"
    )
    schema_of = dict(zip(map(repr, types), map(_in_3_0, schemas), strict=True))
    paths: dict[str, dict[str, object]] = {}
    for operation in operations:
        methods = paths.setdefault(operation.path, {})
        methods[operation.method.lower()] = _operation(operation, schema_of)
    return {
        "openapi": "3.0.3",
        "info": {
            "title": "Duet profile service",
            "version": version,
            "description": "Users, sessions and tokens. Refusals are RFC 9457 problems; decide by "
            "their `code`.",
        },
        "paths": paths,
        "components": {
            "schemas": {name: _in_3_0(schema) for name, schema in components.items()},
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
                "service": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
            },
        },
    }


def problem_codes(operation: Operation) -> list[str]:
    """All codes that an operation may answer with."""
    codes = [*operation.problems, "internal_error"]
    if operation.auth is Auth.BEARER:
        codes += ["authentication_required", "invalid_token", "unavailable"]
    if operation.auth is Auth.SERVICE:
        codes += ["invalid_token", "unavailable"]
    if operation.body is not None:
        codes += ["malformed_json", "request_timeout", "content_too_large"]
        codes += ["unsupported_media_type", "validation_failed", "unavailable"]
    if operation.query is not None:
        codes += ["validation_failed"]
    return sorted(set(codes))


def _types(operations: Sequence[Operation]) -> Iterator[Any]:
    yield Problem
    for operation in operations:
        if operation.body is not None:
            yield operation.body
        if operation.query is not None:
            yield operation.query
        yield from (reply for reply in operation.replies.values() if reply is not None)


def _operation(operation: Operation, schema_of: Mapping[str, Any]) -> dict[str, object]:
    responses = {
        str(status): _reply(operation, reply, schema_of)
        for status, reply in operation.replies.items()
    }
    for code in problem_codes(operation):
        status, title = PROBLEMS[code]
        response = responses.setdefault(str(status), _problem(schema_of))
        described = f"`{code}`: {title}."
        response["description"] = " ".join(filter(None, [response["description"], described]))
        if code in _RETRY_CODES:
            response["headers"] = {
                "Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer"}}
            }
    document: dict[str, object] = {
        "summary": operation.summary,
        "operationId": operation.handler.__name__,
        "tags": [_tag(operation)],
        "responses": responses,
    }
    if parameters := list(_parameters(operation)):
        document["parameters"] = parameters
    if operation.body is not None:
        content = {"schema": schema_of[repr(operation.body)]}
        document["requestBody"] = {
            "required": True,
            "content": dict.fromkeys(operation.body_types, content),
        }
    if operation.auth is not Auth.NOBODY:
        document["security"] = [{operation.auth.value: []}]
    return document


def _reply(operation: Operation, reply: Any, schema_of: Mapping[str, Any]) -> dict[str, Any]:
    document: dict[str, Any] = {"description": "Done."}
    if reply is not None:
        document["content"] = {operation.reply_type: {"schema": schema_of[repr(reply)]}}
    if operation.reply_headers:
        document["headers"] = {
            name: {"description": description, "schema": {"type": "string"}}
            for name, description in operation.reply_headers.items()
        }
    return document


def _problem(schema_of: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "description": "",
        "content": {PROBLEM_JSON: {"schema": schema_of[repr(Problem)]}},
    }


def _parameters(operation: Operation) -> Iterator[dict[str, object]]:
    for name in re.findall(r"\{(\w+)\}", operation.path):
        yield {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
    if operation.query is not None:
        _, components = msgspec.json.schema_components([operation.query])
        (schema,) = components.values()
        for name, wanted in schema["properties"].items():
            required = name in schema.get("required", ())
            yield {"name": name, "in": "query", "required": required, "schema": _in_3_0(wanted)}
    for name, description in operation.request_headers.items():
        yield {
            "name": name,
            "in": "header",
            "required": False,
            "description": description,
            "schema": {"type": "string"},
        }


def _tag(operation: Operation) -> str:
    if operation.auth is Auth.SERVICE:
        return "internal"
    for prefix, tag in _TAGS.items():
        if operation.path.startswith(prefix):
            return tag
    return "operations"


def _in_3_0(schema: Any) -> Any:
    """Rewrite JSON Schema 2020-12 as the dialect of OpenAPI 3.0."""
    if isinstance(schema, list):
        return [_in_3_0(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    rewritten = {key: _in_3_0(value) for key, value in schema.items()}
    options = rewritten.get("anyOf")
    if isinstance(options, list) and {"type": "null"} in options:
        rest = [option for option in options if option != {"type": "null"}]
        del rewritten["anyOf"]
        rewritten |= rest[0] if len(rest) == 1 else {"anyOf": rest}
        rewritten["nullable"] = True
    if rewritten.get("required") == []:
        del rewritten["required"]
    if isinstance(rewritten.get("examples"), list):
        rewritten["example"] = rewritten.pop("examples")[0]
    return rewritten
