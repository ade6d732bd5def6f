"""JSON text to requests, frames to JSON text.

`decode` refuses what a careless parser lets through: NaN, lone surrogates, numbers as strings, and
nesting deep enough to exhaust the stack.
"""

from collections.abc import Callable

import msgspec

from ws_gateway.protocol.frames import ServerFrame
from ws_gateway.protocol.requests import Request

__all__ = ["InvalidFrame", "InvalidUtf8", "MalformedJson", "decode", "encode"]

_decoder = msgspec.json.Decoder(Request)

encode: Callable[[ServerFrame], bytes] = msgspec.json.Encoder().encode
"""Writes one server frame as UTF-8 JSON."""


_MAX_REASON_CHARACTERS = 200
"""msgspec repeats an unknown `type`, however long it is."""


class MalformedJson(ValueError):
    """The text is not JSON; nothing after it can be trusted, so close."""


class InvalidUtf8(ValueError):
    """The text is not UTF-8; RFC 6455 section 8.1 wants the connection failed."""


class InvalidFrame(ValueError):
    """The JSON does not have a frame's shape. `request_id` is the request to answer."""

    def __init__(self, reason: str, request_id: str | None) -> None:
        super().__init__(reason)
        self.request_id = request_id


class _Envelope(msgspec.Struct):
    id: str | None = None


_envelope_decoder = msgspec.json.Decoder(_Envelope)


def decode(raw: bytes | bytearray | str) -> Request:
    """Read one request.

    Raises:
        MalformedJson, InvalidUtf8: close the connection.
        InvalidFrame: answer with an error; the connection is fine.
    """
    try:
        # msgspec does not look into what it skips, and RFC 6455 wants all of the text to be UTF-8.
        text = raw if isinstance(raw, str) else raw.decode()
        request: Request = _decoder.decode(text)
        return request
    except UnicodeError:
        raise InvalidUtf8("not UTF-8") from None
    except msgspec.ValidationError as error:
        raise InvalidFrame(_shortened(str(error)), _request_id(raw)) from None
    except msgspec.DecodeError as error:
        raise MalformedJson(str(error)) from None
    except RecursionError:
        raise MalformedJson("nested too deeply") from None


def _shortened(reason: str) -> str:
    """Cut the value out of a reason that repeats too much of it: the end says where it was."""
    if len(reason) <= _MAX_REASON_CHARACTERS:
        return reason
    return f"{reason[: _MAX_REASON_CHARACTERS // 2]}…{reason[-_MAX_REASON_CHARACTERS // 2 :]}"


def _request_id(raw: bytes | bytearray | str) -> str | None:
    try:
        request_id = _envelope_decoder.decode(raw).id
    except (msgspec.DecodeError, RecursionError):
        return None
    return request_id if request_id is not None and len(request_id) <= 64 else None
