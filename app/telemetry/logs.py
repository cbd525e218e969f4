"""Log lines: one JSON object each, text with all facts, or short ones for a terminal. Never two
lines for one event.

Whatever a client can put into a log line (a request id, a method) comes out with its control
characters escaped, so it can neither forge a line nor drive a terminal.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Final, Literal

from app.environment import wants_colours
from app.telemetry.log_writer import LogWriter

_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {
    "message",
    "asctime",
    "color_message",
}


@dataclass(slots=True)
class _Request:
    """The request that is handled. Tasks and callbacks that outlive it still refer to it."""

    id: str
    ended: bool = False


_request_var: ContextVar[_Request | None] = ContextVar("request", default=None)


@contextmanager
def request_scope(request_id: str) -> Iterator[None]:
    """Log lines carry ``request_id`` until the end."""
    request = _Request(request_id)
    token = _request_var.set(request)
    try:
        yield
    finally:
        request.ended = True
        _request_var.reset(token)


class JsonFormatter(logging.Formatter):
    """One line of ASCII JSON: time, level, logger, message, request_id, then the event's facts."""

    def format(self, record: logging.LogRecord) -> str:
        return json.dumps(self._entry(record), default=str)

    def _entry(self, record: logging.LogRecord) -> dict[str, Any]:
        entry: dict[str, Any] = {
            "time": _utc(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        request = _request_var.get()
        if request is not None and not request.ended:
            entry["request_id"] = request.id
        entry.update({key: value for key, value in vars(record).items() if key not in _STANDARD})
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return entry


class TextFormatter(JsonFormatter):
    """The same facts as ``time LEVEL logger: message key=value``, with a traceback below."""

    def format(self, record: logging.LogRecord) -> str:
        entry = self._entry(record)
        traceback = entry.pop("traceback", None)
        head = f"{entry.pop('time')} {entry.pop('level').upper():8} {entry.pop('logger')}: "
        text = head + _escape(entry.pop("message"))
        facts = "".join(f" {key}={_escape(str(value))}" for key, value in entry.items())
        return text + facts if traceback is None else f"{text}{facts}\n{traceback}"


_RESET: Final = "\x1b[0m"
_DIM: Final = "\x1b[2m"
_COLOUR_CODE: Final = re.compile("\x1b\\[\\d*m")
_COLOURS: Final = {
    "DEBUG": _DIM,
    "WARNING": "\x1b[33m",
    "ERROR": "\x1b[31m",
    "CRITICAL": "\x1b[31m",
}


class ConsoleFormatter(TextFormatter):
    """The time of day, the message, and the facts in grey; warnings in yellow, errors in red.

    A record with ``plain`` is its message and nothing else: several lines for people.

    Args:
        colours: whether there are any.
    """

    def __init__(self, *, colours: bool = True) -> None:
        super().__init__()
        self._colours = colours

    def format(self, record: logging.LogRecord) -> str:
        if getattr(record, "plain", False):
            return record.getMessage()
        entry = self._entry(record)
        traceback = entry.pop("traceback", None)
        time_of_day = time.strftime("%H:%M:%S", time.localtime(record.created))
        for known in ("time", "level", "logger"):
            entry.pop(known)
        message = _escape(_for_people(entry))
        colour = _COLOURS.get(record.levelname, "")
        facts = "".join(f" {key}={_escape(str(value))}" for key, value in entry.items())
        line = f"{_DIM}{time_of_day}{_RESET} {colour}{message}{_RESET}{_DIM}{facts}{_RESET}"
        if not self._colours:
            line = _COLOUR_CODE.sub("", line)
        return line if traceback is None else f"{line}\n{traceback}"


def _for_people(entry: dict[str, Any]) -> str:
    """Take the message out of the facts; that of a request is what was asked and what came back."""
    message = str(entry.pop("message"))
    if message != "request" or "status" not in entry:
        return message
    method, route, status, ms = (
        entry.pop(name, None) for name in ("method", "route", "status", "duration_ms")
    )
    if isinstance(status, int) and status < 400:
        entry.pop("request_id", None)
    return f"{method} {route} {status} in {ms:.1f} ms"


LogFormat = Literal["auto", "json", "text", "console"]


def configure_logging(level: str, style: LogFormat, *, queued: bool = False) -> None:
    """Send every log line of this process to stderr, ours from ``level`` up.

    A server's are ``queued``: it must not wait for whoever reads them. Python's own exit writes
    what still waits; whoever calls ``os._exit`` calls ``logging.shutdown`` first.
    """
    handler = LogWriter(sys.stderr.fileno()) if queued else logging.StreamHandler(sys.stderr)
    handler.setFormatter(_formatter(chosen_format(style)))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.captureWarnings(True)
    for name in ("app", "model_runtime"):
        logging.getLogger(name).setLevel(level.upper())


def _formatter(style: LogFormat) -> logging.Formatter:
    if style == "console":
        return ConsoleFormatter(colours=wants_colours())
    return TextFormatter() if style == "text" else JsonFormatter()


def chosen_format(style: LogFormat) -> LogFormat:
    """The style itself; ``auto`` is ``console`` on a terminal and ``json`` elsewhere."""
    if style != "auto":
        return style
    return "console" if sys.stderr.isatty() else "json"


def dropped_lines() -> int:
    """Log lines of this process that were dropped, as nobody read them in time."""
    handlers = logging.getLogger().handlers
    return sum(handler.dropped for handler in handlers if isinstance(handler, LogWriter))


def _utc(seconds: float) -> str:
    whole, fraction = divmod(seconds, 1.0)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole)) + f".{int(fraction * 1000):03}Z"


def _escape(text: str) -> str:
    # JSON's own escapes, without its quotes.
    return text if text.isascii() and text.isprintable() else json.dumps(text)[1:-1]
