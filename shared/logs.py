"""Logging for a service: structlog in front, the standard library's records joined in.

`console` is for people at a terminal, `json` for machines (one object a line). Whatever the format,
values under a key that names a credential are replaced, and nothing in a line can forge a second
one or command the terminal: JSON escapes it, and so does the console form, which indents
tracebacks.
"""

import logging
import re
import sys
import textwrap
from collections.abc import Mapping
from typing import Any, Literal, TextIO

import structlog

__all__ = ["LogFormat", "LogLevel", "configure_logging"]

LogFormat = Literal["console", "json"]
LogLevel = Literal["debug", "info", "warning", "error"]

_SECRET_KEYS = re.compile(r"token|password|secret|authorization|cookie", re.IGNORECASE)
_CREDENTIALS = re.compile(
    r"eyJ[A-Za-z0-9_-]{5,}\.[A-Za-z0-9_-]+\.?[A-Za-z0-9_-]*|(?<=Bearer )\S+", re.IGNORECASE
)
_REDACTED = "[redacted]"

_NOISY_AT_DEBUG = ("websockets", "httpx", "httpcore", "aiosqlite", "yoyo", "asyncio", "urllib3")
"""Libraries whose DEBUG records carry frames, headers or statements, and so people's messages."""


def configure_logging(
    service: str,
    *,
    level: LogLevel = "info",
    log_format: LogFormat = "console",
    stream: TextIO | None = None,
) -> None:
    """Set up logging for this process. Call it once, before anything is logged.

    Every line carries `service`. Records of libraries come out in the same form; those that would
    show message texts or headers are kept at WARNING even when `level` is `debug`.
    """
    output = stream or sys.stderr
    common: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        _name_service(service),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
        _redact,
    ]
    rendering: list[structlog.typing.Processor]
    if log_format == "json":
        rendering = [structlog.processors.JSONRenderer()]
    else:
        console = structlog.dev.ConsoleRenderer(colors=output.isatty(), pad_event_to=0)
        rendering = [_escape, console]
    structlog.configure(
        processors=[*common, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(output)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=common,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    for name in _NOISY_AT_DEBUG:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logging.getLogger(name).handlers = []
        logging.getLogger(name).propagate = True


def _name_service(service: str) -> structlog.typing.Processor:
    def add(_logger: Any, _method: str, event: structlog.typing.EventDict) -> Mapping[str, Any]:
        event["service"] = service
        return event

    return add


def _redact(_logger: Any, _method: str, event: structlog.typing.EventDict) -> Mapping[str, Any]:
    """Replace credentials by key and by look. This runs last, when every value is final."""
    for key, value in event.items():
        if key != "event" and _SECRET_KEYS.search(key) and not isinstance(value, int):
            event[key] = _REDACTED
        elif isinstance(value, str):
            event[key] = _CREDENTIALS.sub(_REDACTED, value)
    return event


def _escape(_logger: Any, _method: str, event: structlog.typing.EventDict) -> Mapping[str, Any]:
    """Leave nothing that a terminal obeys, and no line but the first at the margin."""
    for key, value in event.items():
        if key == "event":
            event[key] = _escaped(str(value))
        elif key in ("exception", "stack"):
            event[key] = textwrap.indent(_escaped(value, but="\n"), "    ")
        elif isinstance(value, str):
            event[key] = _escaped(value, but="\n\r\t")  # the renderer shows the repr of these
    return event


def _escaped(text: str, *, but: str = "") -> str:
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() or c in but else c.encode("unicode_escape").decode() for c in text
    )
