"""Logs: one line an event, in two forms, without credentials."""

import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from shared.logs import LogFormat, LogLevel, configure_logging

JWT = "eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiJ1XzEifQ.c2lnbmF0dXJl"


@pytest.fixture(autouse=True)
def _restore() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers, root.level = handlers, level


def configured(log_format: LogFormat = "json", level: LogLevel = "info") -> io.StringIO:
    stream = io.StringIO()
    configure_logging("test", level=level, log_format=log_format, stream=stream)
    return stream


def test_json_is_one_object_a_line() -> None:
    stream = configured()
    structlog.get_logger("x").info("hello", user="u_1", count=3)
    record = json.loads(stream.getvalue())
    assert (record["event"], record["user"], record["count"]) == ("hello", "u_1", 3)
    assert (record["service"], record["level"]) == ("test", "info")
    assert record["time"].endswith("Z")


def test_records_of_libraries_come_out_in_the_same_form() -> None:
    stream = configured()
    logging.getLogger("some.library").warning("careful: %s", "x")
    record = json.loads(stream.getvalue())
    assert (record["event"], record["level"]) == ("careful: x", "warning")


@pytest.mark.parametrize("log_format", ["json", "console"])
@pytest.mark.parametrize(
    "key", ["access_token", "refreshToken", "password", "Authorization", "service_secret", "COOKIE"]
)
def test_values_under_telling_keys_are_hidden(log_format: LogFormat, key: str) -> None:
    stream = configured(log_format)
    structlog.get_logger("x").info("hello", **{key: "s3cret"})
    assert "s3cret" not in stream.getvalue()
    assert "[redacted]" in stream.getvalue()


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_credentials_are_hidden_by_their_look(log_format: LogFormat) -> None:
    stream = configured(log_format)
    log = structlog.get_logger("x")
    log.info("hello", url=f"http://x/?a={JWT}", header="Bearer abc.def")
    log.info(f"failed for {JWT}")
    logging.getLogger("library").warning("sent %s", f"Authorization: Bearer {JWT}")
    assert "eyJ" not in stream.getvalue()
    assert "abc.def" not in stream.getvalue()


def test_credentials_in_a_traceback_are_hidden() -> None:
    stream = configured()
    try:
        raise ValueError(f"bad token {JWT}")
    except ValueError:
        structlog.get_logger("x").exception("failed")
    record = json.loads(stream.getvalue())
    assert "ValueError" in record["exception"]
    assert JWT not in stream.getvalue()


def test_counts_under_telling_keys_are_shown() -> None:
    stream = configured()
    structlog.get_logger("x").info("hello", tokens=3)
    assert json.loads(stream.getvalue())["tokens"] == 3


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_value_cannot_forge_a_second_line(log_format: LogFormat) -> None:
    stream = configured(log_format)
    structlog.get_logger("x").info("hello", name='eve\n{"event": "forged"}')
    assert stream.getvalue().count("\n") == 1


@pytest.mark.parametrize(
    "hostile", ["\x1b[2J", "\x9b2J", "\x07", "\x7f", "\x85", "\u2028", "\u202e", "\ud800", "a\r\nb"]
)
def test_text_of_a_client_commands_no_terminal(hostile: str) -> None:
    stream = configured("console")
    log = structlog.get_logger("x")
    log.info(f"hello {hostile}", bare=hostile, spaced=f"a {hostile}", listed=[hostile])
    logging.getLogger("library").warning("bad request: %s", hostile)
    try:
        raise ValueError(hostile)
    except ValueError:
        log.exception("failed", stack_info=True)
    assert stream.getvalue().replace("\n", "").isprintable()


def test_traceback_cannot_forge_a_second_line() -> None:
    stream = configured("console")
    try:
        raise ValueError("x\n[info     ] forged")
    except ValueError:
        structlog.get_logger("x").exception("failed", stack_info=True)
    first, *others = stream.getvalue().splitlines()
    assert first.startswith("[error    ] failed")
    assert "    [info     ] forged" in others
    assert not [line for line in others if line and not line.startswith((" ", "==="))]


def test_several_lines_in_a_value_are_shown_in_one() -> None:
    stream = configured("console")
    structlog.get_logger("x").info("hello", reason="first\nsecond line")
    assert r"reason='first\nsecond line'" in stream.getvalue()


def test_level_is_kept() -> None:
    stream = configured(level="warning")
    structlog.get_logger("x").info("quiet")
    logging.getLogger("library").info("quiet")
    assert stream.getvalue() == ""


@pytest.mark.parametrize("name", ["websockets", "httpx", "aiosqlite"])
def test_libraries_that_would_show_messages_stay_at_info(name: str) -> None:
    stream = configured(level="debug")
    logging.getLogger(name).debug("> TEXT 'private'")
    structlog.get_logger("x").debug("shown")
    assert "private" not in stream.getvalue()
    assert "shown" in stream.getvalue()
