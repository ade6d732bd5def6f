"""JSON in and out: what is refused, how, and what comes through."""

import json
from typing import Any

import msgspec
import pytest

from ws_gateway.protocol import codec, frames, requests
from ws_gateway.protocol.errors import ErrorCode
from ws_gateway.protocol.timestamps import timestamp

SEND: dict[str, Any] = {"type": "send", "id": "1", "to": "u_bob", "text": "hi"}


def encoded(**changes: Any) -> bytes:
    return json.dumps({**SEND, **changes}).encode()


@pytest.mark.parametrize("convert", [bytes, bytearray, lambda raw: raw.decode()])
def test_send_is_read_from_bytes_and_text(convert: Any) -> None:
    assert codec.decode(convert(encoded())) == requests.Send(id="1", to="u_bob", text="hi")


def test_unknown_fields_are_ignored() -> None:
    assert codec.decode(encoded(extra={"deep": [1]})) == codec.decode(encoded())


def test_last_of_a_repeated_field_counts() -> None:
    assert codec.decode(encoded()[:-1] + b',"text":"last"}').text == "last"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b" ",
        b"hello",
        b"{",
        b'{"type":"send",}',
        encoded() + b"x",
        encoded() + encoded(),
        encoded()[:-1] + b',"n":NaN}',
        encoded()[:-1] + b',"n":Infinity}',
        encoded()[:-1] + b',"n":01}',
        encoded(text="\ud800"),
        encoded()[:-1] + rb',"n":"\udc00x"}',
        encoded()[:-1] + b',"n":"\x01"}',
        b"\xef\xbb\xbf" + encoded(),
        encoded()[:-1] + b',"n":' + b"[" * 20_000 + b"]" * 20_000 + b"}",
        encoded()[:-1] + b',"n":' + b'{"a":' * 20_000 + b"1" + b"}" * 20_000 + b"}",
    ],
)
def test_what_is_not_json_is_malformed(raw: bytes) -> None:
    with pytest.raises(codec.MalformedJson):
        codec.decode(raw)


@pytest.mark.parametrize(
    "raw",
    [
        b"\xff",
        encoded(text="X").replace(b"X", b"\xff"),
        encoded(text="X").replace(b"X", b"\xed\xa0\x80"),
        encoded(text="X").replace(b"X", b"\xc0\x80"),
        encoded(extra="X").replace(b"X", b"\xe2\x82"),
        encoded(to=5, extra="X").replace(b"X", b"\xff"),
        b'{"\xff":1,' + encoded()[1:],
    ],
)
def test_what_is_not_utf8_is_told_apart_wherever_it_stands(raw: bytes) -> None:
    with pytest.raises(codec.InvalidUtf8):
        codec.decode(raw)


def test_text_with_a_lone_surrogate_is_not_utf8() -> None:
    with pytest.raises(codec.InvalidUtf8):
        codec.decode('{"type":"send","text":"\ud800"}')


@pytest.mark.parametrize(
    ("raw", "request_id"),
    [
        (b"null", None),
        (b"[]", None),
        (b"5", None),
        (b'"x"', None),
        (b"{}", None),
        (b'{"type":null}', None),
        (b'{"type":5,"id":"1"}', "1"),
        (encoded(type="nope"), "1"),
        (encoded(type="SEND"), "1"),
        (encoded(text=5), "1"),
        (encoded(text=None), "1"),
        (encoded(text=""), "1"),
        (encoded(text="x" * 4001), "1"),
        (encoded(to=["u_bob"]), "1"),
        (encoded(to="x" * 65), "1"),
        (encoded(id=5), None),
        (encoded(id=""), ""),
        (encoded(id="x" * 65), None),
        (b'{"type":"send","id":"1"}', "1"),
        (b'{"type":"connect"}', None),
        (b'{"type":"connect","access_token":""}', None),
        (b'{"type":"connect","access_token":"a b"}', None),
        (b'{"type":"connect","access_token":"a\\"b"}', None),
        (b'{"type":"connect","access_token":"a\\\\b"}', None),
        (b'{"type":"connect","access_token":"' + b"x" * 2049 + b'"}', None),
        (b'{"type":"connect","access_token":"x","refresh_token":5}', None),
        (b"[" * 20_000, None),
    ],
)
def test_wrong_shape_names_the_request_it_answers(raw: bytes, request_id: str | None) -> None:
    with pytest.raises(codec.InvalidFrame) as invalid:
        codec.decode(raw)
    assert invalid.value.request_id == request_id
    assert str(invalid.value)


def test_longest_fields_are_taken() -> None:
    request = codec.decode(encoded(id="x" * 64, to="y" * 64, text="\U0010ffff" * 4000))
    assert isinstance(request, requests.Send)
    assert len(request.text) == 4000


def test_tokens_stay_out_of_what_is_shown() -> None:
    for raw in (
        b'{"type":"connect","access_token":"s3cret","refresh_token":"s3cret"}',
        b'{"type":"refresh","id":"1","access_token":"s3cret"}',
    ):
        assert "s3cret" not in repr(codec.decode(raw))


def test_absent_fields_are_not_written() -> None:
    error = frames.Error(code=ErrorCode.CONFLICT, message="m", retryable=False)
    assert json.loads(codec.encode(error)) == {
        "type": "error",
        "code": "conflict",
        "message": "m",
        "retryable": False,
    }


def test_every_request_names_its_type() -> None:
    tags = {kind.__struct_config__.tag for kind in requests.Request.__args__}
    assert {"connect", "send", "refresh"} <= tags
    assert all(isinstance(tag, str) and tag.islower() for tag in tags)


def test_every_server_frame_can_be_told_by_its_type() -> None:
    kinds: Any = frames.ServerFrame
    tags = [kind.__struct_config__.tag for kind in kinds.__args__]
    assert len(tags) == len(set(tags))
    assert all(issubclass(kind, msgspec.Struct) for kind in kinds.__args__)


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [
        (0, "1970-01-01T00:00:00.000Z"),
        (1, "1970-01-01T00:00:00.001Z"),
        (1_795_512_600_999, "2026-11-24T09:30:00.999Z"),
    ],
)
def test_timestamps_are_rfc_3339_in_utc_with_milliseconds(milliseconds: int, text: str) -> None:
    assert timestamp(milliseconds) == text
