"""WebSocket text frames as bytes (RFC 6455 section 5.2), for a server that does not compress.

A message for ten connections is framed once, and a batch's frames for one connection are joined for
one write; `websockets` frames and writes each message for each connection. ADR 4 has the numbers.
"""

__all__ = ["FINAL_TEXT", "text_frame"]

FINAL_TEXT = 0x81
"""The first byte of a text that is not in fragments."""


def text_frame(payload: bytes) -> bytes:
    """Frame UTF-8 text, unmasked as a server must (section 5.1)."""
    length = len(payload)
    return (_HEADERS[length] if length < _USUAL_BYTES else _header(length)) + payload


def _header(length: int) -> bytes:
    if length < 126:
        return bytes((FINAL_TEXT, length))
    if length < 65536:
        return bytes((FINAL_TEXT, 126)) + length.to_bytes(2)
    return bytes((FINAL_TEXT, 127)) + length.to_bytes(8)


_USUAL_BYTES = 1024
_HEADERS = tuple(map(_header, range(_USUAL_BYTES)))
"""Made once: most frames are no longer, and a lookup costs a third of making one."""
