"""What the load generator says: frames as wire bytes, and client ids.

Frames are built by hand because at 45,000 messages a second the generator has 22 us for each one,
both sockets included. They are masked with the key zero: valid on the wire, as much work for the
server as any other key, none for us.
"""

import secrets
import time
from typing import Literal

__all__ = [
    "TEXT_CHARACTERS",
    "ClientIds",
    "IdKind",
    "connect_frame",
    "masked_text",
    "message_text",
    "send_frame",
]

TEXT_CHARACTERS = 53
"""Length of a message's text: a typical chat message."""

IdKind = Literal["uuid7", "uuid4"]

_FILLER = b" was it the red door or the blue one, remind me?" * 84


def masked_text(payload: bytes) -> bytes:
    """Frame UTF-8 text as a client (RFC 6455 section 5.2)."""
    length = len(payload)
    if length < 126:
        return bytes((0x81, 0x80 | length)) + bytes(4) + payload
    return b"\x81\xfe" + length.to_bytes(2, "big") + bytes(4) + payload


def connect_frame(access_token: str, resume: str | None = None) -> bytes:
    """The first frame of a connection, as wire bytes; `resume` is the last cursor seen."""
    cursor = f',"resume":"{resume}"' if resume else ""
    return masked_text(f'{{"type":"connect","access_token":"{access_token}"{cursor}}}'.encode())


def message_text(number: int, characters: int = TEXT_CHARACTERS) -> bytes:
    """The text of a pair's message with this number: tells it from all others of the pair.

    It has 8 characters at least, and 4,000 at most.
    """
    return b"%08d" % number + _FILLER[: characters - 8]


def send_frame(client_id: bytes, recipient: bytes, text: bytes) -> bytes:
    """A message on its way to `recipient`, as wire bytes."""
    return masked_text(
        b'{"type":"send","id":"%b","to":"%b","text":"%b"}' % (client_id, recipient, text)
    )


class ClientIds:
    """Names messages as one client would: by UUIDv7 (RFC 9562), or UUIDv4 to see what that costs.

    Version 7 grows with time, so that the gateway's index of client ids is appended to.
    """

    def __init__(self, kind: IdKind) -> None:
        self._kind = kind
        self._tail = secrets.token_hex(6).encode()
        self._variant = b"%04x" % (0x8000 | secrets.randbits(14))
        self._counter = 0

    def next(self) -> bytes:
        """Make the next id: 36 characters."""
        if self._kind == "uuid4":
            h = secrets.token_hex(16)
            return f"{h[:8]}-{h[8:12]}-4{h[13:16]}-a{h[17:20]}-{h[20:]}".encode()
        self._counter = (self._counter + 1) & 0xFFF  # method 1 of section 6.2: never runs over here
        now_ms = time.time_ns() // 1_000_000
        return b"%08x-%04x-7%03x-%b-%b" % (
            now_ms >> 16,
            now_ms & 0xFFFF,
            self._counter,
            self._variant,
            self._tail,
        )
