"""Text frames read past the library's parser, where all there is to them is a header and a mask.

Nearly every frame that a client sends is one whole text. `websockets` takes each through three
generators and some thirty calls, an eighth of what a message costs in all (ADR 21). Whatever is
anything else, or wrong in any way, is the library's to read and to refuse.
"""

from types import GeneratorType
from typing import cast

from websockets.frames import apply_mask  # type: ignore[attr-defined]  # in C where there is one
from websockets.server import ServerProtocol
from websockets.streams import StreamReader

from ws_gateway.protocol.wire import FINAL_TEXT

__all__ = ["awaits_frame", "whole_texts"]

_MASKED = 0x80
_SHORT_HEADER_BYTES = 6
_LONG_HEADER_BYTES = 8
_LONG = 126
"""In place of a length: the next two bytes are it."""


def whole_texts(data: bytes, max_bytes: int) -> tuple[list[bytes], int]:
    """Read the texts at the beginning of `data` and return them, and where they end.

    A text is one final frame, masked, without extensions, of at most `max_bytes` (RFC 6455 section
    5.2). It may not be UTF-8. `data` begins where a frame does; what is left is for the library.
    """
    texts: list[bytes] = []
    at, size = 0, len(data)
    while size - at >= _SHORT_HEADER_BYTES and data[at] == FINAL_TEXT:
        length = data[at + 1] - _MASKED
        begin = at + _SHORT_HEADER_BYTES
        if length == _LONG:
            length = data[at + 2] << 8 | data[at + 3]
            begin = at + _LONG_HEADER_BYTES
        elif not 0 <= length < _LONG:
            break
        end = begin + length
        if end > size or length > max_bytes:
            break
        texts.append(apply_mask(data[begin:end], data[begin - 4 : begin]))
        at = end
    return texts, at


def awaits_frame(protocol: ServerProtocol) -> bool:
    """Tell whether the next byte begins a frame, and no message is under way in fragments.

    The parser keeps a header that it has read to itself, so that what it is waiting in is all that
    tells.
    """
    waiting = cast("GeneratorType[None, None, None]", protocol.parser)
    while isinstance(waiting.gi_yieldfrom, GeneratorType):
        waiting = waiting.gi_yieldfrom
    return protocol.current_size is None and waiting.gi_code is StreamReader.at_eof.__code__
