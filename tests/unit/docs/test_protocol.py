"""docs/protocol.md says what the code does: every frame, field, code, and each example is valid."""

import collections
import json
import re
from typing import Any

import jsonschema_rs
import msgspec
import pytest

from tests.support.documents import DOCS, Example, examples, sections, table
from ws_gateway.protocol import answers, asyncapi, codec, frames
from ws_gateway.protocol.errors import CLOSES, ERRORS
from ws_gateway.server import PATH, SUBPROTOCOL

PROTOCOL = (DOCS / "protocol.md").read_text()
SECTIONS = sections(PROTOCOL)
EXAMPLES = list(examples(PROTOCOL))
MESSAGES: dict[str, type[msgspec.Struct]] = {
    struct.__name__: struct for struct in (*asyncapi.REQUESTS, *asyncapi.SERVER_FRAMES)
}
PARTS: list[type[msgspec.Struct]] = [
    answers.ConversationItem,
    answers.MessageItem,
    answers.Peer,
    answers.SearchItem,
]
"""Objects within answers that have a section of their own."""


def title_of(struct: type[msgspec.Struct]) -> str:
    return str(struct.__struct_config__.tag or struct.__name__)


_TITLES = collections.Counter(map(title_of, [*MESSAGES.values(), *PARTS]))
ALONE = [struct for struct in [*MESSAGES.values(), *PARTS] if _TITLES[title_of(struct)] == 1]
"""Those that share their section with no other message of the same type."""


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return asyncapi.describe(PATH, SUBPROTOCOL)


@pytest.mark.parametrize("example", EXAMPLES, ids=[example.message for example in EXAMPLES])
def test_example_fits_the_schema_of_its_message(example: Example, document: dict[str, Any]) -> None:
    schema = {
        "$ref": f"#/components/schemas/{example.message}",
        "components": document["components"],
    }
    jsonschema_rs.validator_for(schema).validate(json.loads(example.text))


@pytest.mark.parametrize("example", EXAMPLES, ids=[example.message for example in EXAMPLES])
def test_example_is_what_the_code_reads_and_writes(example: Example) -> None:
    struct = MESSAGES[example.message]
    if struct in asyncapi.REQUESTS:
        assert type(codec.decode(example.text)) is struct
    else:
        frame: Any = msgspec.json.decode(example.text, type=struct, strict=True)
        assert json.loads(codec.encode(frame)) == json.loads(example.text)


@pytest.mark.parametrize("struct", asyncapi.REQUESTS, ids=lambda s: s.__name__)
def test_client_may_send_null_for_an_optional_field(struct: type[msgspec.Struct]) -> None:
    example = next(e for e in EXAMPLES if e.message == struct.__name__)
    for field in msgspec.structs.fields(struct):
        if not field.required:
            asked = {**json.loads(example.text), field.encode_name: None}
            assert type(codec.decode(json.dumps(asked))) is struct, field.encode_name


def test_every_message_has_an_example() -> None:
    assert {example.message for example in EXAMPLES} == set(MESSAGES)


@pytest.mark.parametrize("struct", [*MESSAGES.values(), *PARTS], ids=lambda s: s.__name__)
def test_every_field_is_explained(struct: type[msgspec.Struct]) -> None:
    rows = table(SECTIONS[title_of(struct)])
    explained = {name for row in rows for name in re.findall(r"`(\w+)`", row[0])}
    assert set(struct.__struct_encode_fields__) <= explained


@pytest.mark.parametrize("struct", ALONE, ids=lambda s: s.__name__)
def test_fields_that_may_be_absent_are_called_optional(struct: type[msgspec.Struct]) -> None:
    called = {
        name
        for row in table(SECTIONS[title_of(struct)])
        for name in re.findall(r"`(\w+)`", row[0])
        if "optional" in row[1]
    }
    fields = msgspec.structs.fields(struct)
    assert called == {field.encode_name for field in fields if not field.required}


def test_objects_within_connected_are_explained() -> None:
    section = SECTIONS["connected"]
    for struct in (frames.ConnectedUser, frames.Limits):
        for name in struct.__struct_encode_fields__:
            assert f"`{name}`" in section


def test_error_codes_are_those_of_the_code() -> None:
    assert table(SECTIONS["Error codes"]) == [
        [f"`{code.value}`", rule.message, "yes" if rule.retryable else "no"]
        for code, rule in ERRORS.items()
    ]


def test_close_codes_are_those_of_the_code() -> None:
    assert table(SECTIONS["Close codes"]) == [
        [str(code.value), rule.meaning, rule.reconnect] for code, rule in CLOSES.items()
    ]


def test_endpoint_and_subprotocol_are_those_of_the_server() -> None:
    assert f"The endpoint is `{PATH}`" in PROTOCOL
    assert f"A client SHOULD offer `{SUBPROTOCOL}`" in PROTOCOL
