"""What RFC 6455 and `duet.v1` say about single connections, as a table.

The cases follow the sections of the Autobahn test suite (framing, pings, reserved bits, opcodes,
fragmentation, UTF-8, limits, closing), with the answers that a server of JSON frames gives where
Autobahn expects an echo; then come those of JSON. Each begins on a verified connection.
"""

import json
from collections.abc import Iterator

import msgspec
from websockets.frames import Frame, Opcode

__all__ = ["CASES", "Case"]

_ANSWER = b'"code":"invalid_frame"'
"""What an unknown type gets: the connection goes on."""


class Case(msgspec.Struct, frozen=True):
    """Bytes to send, all at once, and what must come of it.

    `close` is the code of the server's close frame; without one the connection must go on, which
    a last ping shows. `answers` are parts of the text frames that must come before, and `pongs` the
    pongs, each in this order; a pong may overtake an answer, and so may the close after a violation
    of the WebSocket protocol.
    """

    name: str
    data: bytes
    close: int | None
    answers: tuple[bytes, ...] = ()
    pongs: tuple[bytes, ...] = ()
    octetwise: bool = False


def _frame(opcode: int, data: bytes = b"", *, fin: bool = True, bits: int = 0) -> bytes:
    wire = bytearray(Frame(Opcode.TEXT, data, fin).serialize(mask=True))
    wire[0] = (wire[0] & 0x80) | bits | opcode
    return bytes(wire)


def _text(data: bytes | str, *, fin: bool = True) -> bytes:
    return _frame(1, data.encode() if isinstance(data, str) else data, fin=fin)


def _continued(data: bytes | str, *, fin: bool = True) -> bytes:
    return _frame(0, data.encode() if isinstance(data, str) else data, fin=fin)


def _request(padding: str = "") -> str:
    return json.dumps({"type": "no-such-type", "padding": padding}, ensure_ascii=False)


def _framing() -> Iterator[Case]:
    for length in (0, 1, 125, 126, 127, 128, 65_535 - 100, 65_535 - 41):
        padded = _text(_request("x" * length))
        yield Case(f"text of {length} characters", padded, None, (_ANSWER,))
        yield Case(f"text of {length} twice", padded * 2, None, (_ANSWER,) * 2)
    octets = _text(_request("x" * 200))
    yield Case("text octet by octet", octets, None, (_ANSWER,), octetwise=True)
    yield Case("empty text", _text(""), 1008, (b"malformed_json",))
    yield Case("empty binary", _frame(2), 1003)
    yield Case("binary", _frame(2, b"\x00\xff"), 1003)
    yield Case("fragmented binary", _frame(2, b"a", fin=False) + _continued("b"), 1003)
    yield Case("unmasked text", b"\x81\x02{}", 1002)
    yield Case("unmasked ping", b"\x89\x00", 1002)
    minimal = b"\x81\xfe\x00\x02\x00\x00\x00\x00{}"
    yield Case("length in more bytes than needed", minimal, None, (_ANSWER,))
    yield Case("length with its highest bit set", b"\x81\xff" + b"\xff" * 8 + b"\0" * 4, 1009)


def _pings() -> Iterator[Case]:
    for size in (0, 1, 125):
        payload = bytes(range(256))[:size]
        yield Case(f"ping of {size}", _frame(9, payload), None, pongs=(payload,))
    yield Case("ping of 126", _frame(9, b"x" * 126), 1002)
    yield Case(
        "ten pings",
        b"".join(_frame(9, b"%d" % n) for n in range(10)),
        None,
        pongs=tuple(b"%d" % n for n in range(10)),
    )
    yield Case("pong that nobody asked for", _frame(10, b"x"), None)
    yield Case("pong, then ping", _frame(10, b"x") + _frame(9, b"y"), None, pongs=(b"y",))
    yield Case("pong of 126", _frame(10, b"x" * 126), 1002)
    yield Case("fragmented ping", _frame(9, b"x", fin=False), 1002)
    yield Case("fragmented pong", _frame(10, b"x", fin=False), 1002)


def _reserved() -> Iterator[Case]:
    for bits in range(1, 8):
        yield Case(f"reserved bits {bits:03b} on text", _frame(1, b"{}", bits=bits << 4), 1002)
    yield Case("reserved bit on ping", _frame(9, b"", bits=0x40), 1002)
    yield Case("reserved bit on close", _frame(8, b"", bits=0x20), 1002)
    yield Case("compressed frame without the extension", _frame(1, b"\xaa\x56", bits=0x40), 1002)
    for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15):
        yield Case(f"reserved opcode {opcode}", _frame(opcode), 1002)
        behind = _text(_request()) + _frame(opcode)
        yield Case(f"reserved opcode {opcode} behind a text", behind, 1002, (_ANSWER,))


def _fragments() -> Iterator[Case]:
    whole = _request("fragmented")
    head, tail = whole[:20], whole[20:]
    both = _text(head, fin=False) + _continued(tail)
    yield Case("two fragments", both, None, (_ANSWER,))
    yield Case("two fragments octet by octet", both, None, (_ANSWER,), octetwise=True)
    between = _text(head, fin=False) + _frame(9, b"between") + _continued(tail)
    yield Case("ping between fragments", between, None, (_ANSWER,), (b"between",))
    empty = _text("", fin=False) + _continued("", fin=False) + _continued(whole)
    yield Case("empty fragments first", empty, None, (_ANSWER,))
    each = [_continued(c, fin=False) for c in whole[1:-1]]
    each_alone = _text(whole[0], fin=False) + b"".join(each) + _continued(whole[-1])
    yield Case("each character a fragment", each_alone, None, (_ANSWER,))
    yield Case("continuation of nothing", _continued("x"), 1002)
    yield Case("unfinished continuation of nothing", _continued("x", fin=False), 1002)
    yield Case("text within fragments", _text(head, fin=False) + _text(tail), 1002)
    yield Case("binary within fragments", _text(head, fin=False) + _frame(2, b"x"), 1002)
    finished = both + _continued("x")
    yield Case("continuation after the end", finished, 1002)
    close_within = _text(head, fin=False) + _frame(8, (1000).to_bytes(2))
    yield Case("close within fragments", close_within, 1002)


_INVALID_UTF8 = {
    "lone continuation": b"\x80",
    "overlong slash": b"\xc0\xaf",
    "overlong null": b"\xc0\x80",
    "overlong in three": b"\xe0\x80\xaf",
    "overlong in four": b"\xf0\x80\x80\xaf",
    "surrogate": b"\xed\xa0\x80",
    "surrogate pair": b"\xed\xa0\x80\xed\xb0\x80",
    "beyond Unicode": b"\xf4\x90\x80\x80",
    "five bytes": b"\xf8\x88\x80\x80\x80",
    "six bytes": b"\xfc\x84\x80\x80\x80\x80",
    "impossible fe": b"\xfe",
    "impossible ff": b"\xff",
    "cut off in two": b"\xc3",
    "cut off in three": b"\xe2\x82",
    "cut off in four": b"\xf0\x9f\x98",
    "bad second byte": b"\xe2\x28\xa1",
}
_VALID_UTF8 = (
    "\u00e9",
    "\u20ac",
    "\U0001f600",
    "\ud7ff",
    "\ue000",
    "\ufffd",
    "\uffff",
    "\U0010ffff",
)


def _utf8() -> Iterator[Case]:
    for name, data in _INVALID_UTF8.items():
        inside = b'{"type":"no-such-type","padding":"' + data + b'"}'
        yield Case(f"UTF-8: {name}", _text(inside), 1007)
        cut = inside.index(data) + 1
        split = _text(inside[:cut], fin=False) + _continued(b"", fin=False)
        yield Case(f"UTF-8 split: {name}", split + _frame(0, inside[cut:]), 1007)
    for character in _VALID_UTF8:
        whole = _request(character).encode()
        yield Case(f"UTF-8: U+{ord(character):04X}", _text(whole), None, (_ANSWER,))
        cut = whole.index(character.encode()) + 1
        split = _text(whole[:cut], fin=False) + _frame(0, whole[cut:])
        yield Case(f"UTF-8 split: U+{ord(character):04X}", split, None, (_ANSWER,))


def _closing() -> Iterator[Case]:
    yield Case("close without a code", _frame(8), 1005)
    for code in (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999):
        yield Case(f"close {code}", _frame(8, code.to_bytes(2)), code)
    for code in (0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999, 5000, 65_535):
        yield Case(f"close {code}, which nobody may send", _frame(8, code.to_bytes(2)), 1002)
    yield Case("close with a reason", _frame(8, b"\x03\xe8" + b"bye"), 1000)
    yield Case("close with the longest reason", _frame(8, b"\x03\xe8" + b"x" * 123), 1000)
    yield Case("close with too long a reason", _frame(8, b"\x03\xe8" + b"x" * 124), 1002)
    yield Case("close with a bad reason", _frame(8, b"\x03\xe8\xff"), 1007)
    yield Case("close with half a code", _frame(8, b"\x03"), 1002)
    yield Case("two closes", _frame(8, b"\x03\xe8") * 2, 1000)
    yield Case("ping behind a close", _frame(8, b"\x03\xe8") + _frame(9, b"x"), 1000)
    yield Case("text behind a close", _frame(8, b"\x03\xe8") + _text(_request()), 1000)
    yield Case("fragmented close", _frame(8, b"\x03\xe8", fin=False), 1002)


def _limits() -> Iterator[Case]:
    yield Case("largest frame", _text(_request().ljust(65_536)), None, (_ANSWER,))
    yield Case("one byte more", _text(_request().ljust(65_537)), 1009)
    yield Case("16 MiB announced", b"\x81\xff" + (2**24).to_bytes(8) + b"\0" * 4, 1009)
    thirds = _text(" " * 30_000, fin=False) + _continued(" " * 30_000, fin=False) * 2
    yield Case("fragments over the limit", thirds, 1009)
    many = _text("", fin=False) + _continued("", fin=False) * 10_000
    yield Case("10,000 empty fragments", many, 1009)


def _json() -> Iterator[Case]:
    send = '{"type":"send","id":"1","to":"x","text":"y"'
    for name, text in {
        "a word": "hello",
        "cut off": send,
        "NaN": send + ',"n":NaN}',
        "Infinity": send + ',"n":-Infinity}',
        "lone surrogate": send + ',"n":"\\ud800"}',
        "20,000 deep": send + ',"n":' + "[" * 20_000 + "]" * 20_000 + "}",
        "two values": send + "} {}",
        "byte order mark": "\ufeff{}",
        "single quotes": "{'type':'send'}",
        "comment": send + "}//",
        "control character": '{"type":"\x01"}',
    }.items():
        yield Case(f"JSON: {name}", _text(text), 1008, (b'"code":"malformed_json"',))
    for name, text in {
        "an array": "[]",
        "a number too large": '{"type":"read","conversation":"c","seq":1e999}',
        "a string": '"connect"',
        "null": "null",
        "no type": "{}",
        "number for a string": '{"type":"send","id":1,"to":"x","text":"y"}',
        "string for a number": '{"type":"read","conversation":"c","seq":"1"}',
        "boolean for a number": '{"type":"read","conversation":"c","seq":true}',
        "negative seq": '{"type":"read","conversation":"c","seq":-1}',
        "seq beyond 2^53": '{"type":"read","conversation":"c","seq":9007199254740992}',
        "empty id": '{"type":"blocks","id":""}',
        "id of 65": '{"type":"blocks","id":"' + "x" * 65 + '"}',
        "U+0000 in a text": send[:-2] + '\\u0000"}',
        "text of 4,001": '{"type":"send","id":"1","to":"x","text":"' + "x" * 4001 + '"}',
    }.items():
        yield Case(f"JSON: {name}", _text(text), None, (b'"code":"invalid_frame"',))


CASES: tuple[Case, ...] = tuple(
    case
    for cases in (_framing, _pings, _reserved, _fragments, _utf8, _closing, _limits, _json)
    for case in cases()
)
