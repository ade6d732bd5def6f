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
    if length < 126:
        return bytes((FINAL_TEXT, length)) + payload
    if length < 65536:
        return b"\x81\x7e" + length.to_bytes(2) + payload
    return b"\x81\x7f" + length.to_bytes(8) + payload
