"""Errors, close codes, cursors and wire bytes."""

import pytest
from websockets.frames import Frame, Opcode

from ws_gateway.protocol.actions import error_frame
from ws_gateway.protocol.cursor import Cursors, ForeignCursor
from ws_gateway.protocol.errors import CLOSES, ERRORS, CloseCode, ErrorCode
from ws_gateway.protocol.wire import text_frame


@pytest.mark.parametrize("code", ErrorCode)
def test_every_error_code_says_what_to_do(code: ErrorCode) -> None:
    rule = ERRORS[code]
    assert rule.message.endswith(".")
    frame = error_frame(code, request_id="1", detail="why", retry_after_ms=5)
    assert (frame.code, frame.id, frame.retryable) == (code.value, "1", rule.retryable)
    assert frame.message == f"{rule.message} (why)"
    assert frame.retry_after_ms == 5


@pytest.mark.parametrize("code", CloseCode)
def test_every_close_code_says_whether_to_reconnect(code: CloseCode) -> None:
    assert CLOSES[code].meaning
    assert CLOSES[code].reconnect


def test_error_codes_fit_a_close_reason() -> None:
    assert all(len(code.value) <= 123 for code in ErrorCode)


@pytest.mark.parametrize("length", [0, 1, 125, 126, 127, 65_535, 65_536, 70_000])
def test_text_frame_is_what_the_library_would_write(length: int) -> None:
    payload = b"x" * length
    assert text_frame(payload) == Frame(Opcode.TEXT, payload).serialize(mask=False)


@pytest.mark.parametrize("position", [0, 1, 2**53])
def test_cursor_comes_back_as_the_position(position: int) -> None:
    cursors = Cursors("abc123")
    assert cursors.decode(cursors.encode(position)) == position


@pytest.mark.parametrize(
    "cursor",
    ["", ".", "abc123", "abc123.", "abc123.-1", "abc123.x", "other.5", ".5", "abc123.5.5",
     "abc123.\u0665", "abc123. 5", "ABC123.5"],
)  # fmt: skip
def test_foreign_cursor_is_refused(cursor: str) -> None:
    with pytest.raises(ForeignCursor):
        Cursors("abc123").decode(cursor)


@pytest.mark.parametrize("digits", [19, 128, 5000])
def test_position_that_no_log_reaches_is_foreign(digits: int) -> None:
    with pytest.raises(ForeignCursor):
        Cursors("e").decode("e." + "9" * digits)
