"""WebSocket text frames as bytes (RFC 6455 section 5.2), for a server that does not compress.

A message for ten connections is framed once, and a batch's frames for one connection are joined for
one write; `websockets` frames and writes each message for each connection. ADR 4 has the numbers.
"""

__all__ = ["text_frame"]

_FIN_TEXT = 0x81


def text_frame(payload: bytes) -> bytes:
    """Frame UTF-8 text, unmasked as a server must (section 5.1)."""
    length = len(payload)
    if length < 126:
        return bytes((_FIN_TEXT, length)) + payload
    if length < 65536:
        return b"\x81\x7e" + length.to_bytes(2) + payload
    return b"\x81\x7f" + length.to_bytes(8) + payload
