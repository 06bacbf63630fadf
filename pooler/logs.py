"""Logging: structlog, to standard error, one line for each message.

Users and attackers choose the names that a pooler logs. So every character that could begin a line
or command a terminal is escaped, a value that contains blanks is quoted, and long values are cut:
whatever a client calls itself, it cannot forge a message.
"""

import contextlib
import json
import logging
import os
import re
import sys
from collections.abc import Mapping
from typing import Any, Literal

import structlog
from structlog.typing import EventDict, Processor

LONGEST_VALUE = 1000  # characters of one value
SECRET_KEYS = frozenset({"passwd", "password", "secret"})

_LEVELS = ("debug", "info", "warning", "warn", "error", "exception", "critical", "log")
_BARE = re.compile(r"[^\s\"'=\\]+")

_RESET, _BOLD, _DIM = "\x1b[0m", "\x1b[1m", "\x1b[2m"
_COLOURS = {
    "debug": _DIM,
    "info": "\x1b[32m",
    "warning": "\x1b[33m",
    "error": "\x1b[31m",
    "critical": "\x1b[31m",
}

# Loggers are kept by the modules that use them, with this class and this list inside. Both are
# changed in place, so that a new level or format reaches loggers that were made long ago.
_Logger: type[Any] = type("_Logger", (structlog.make_filtering_bound_logger(logging.NOTSET),), {})
_processors: list[Processor] = []


def configure(level: str = "info", format: Literal["auto", "text", "json"] = "auto") -> None:
    """Sets up all logging of the process; may be called again, for another level or format.

    *level*: ``debug``, ``info``, ``warning`` or ``error``; what is below it costs one empty call.
    *format*: ``text`` is a line of ``key=value`` for each message, ``json`` an object, and ``auto``
    is text with colours if standard error is a terminal that wants them (https://no-color.org).
    """
    filtering = structlog.make_filtering_bound_logger(level)
    for name in (*_LEVELS, "is_enabled_for", "get_effective_level"):
        setattr(_Logger, name, getattr(filtering, name))
    _processors[:] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        drop_secrets,
        structlog.processors.format_exc_info,
        _render_json if format == "json" else _Text(format == "auto" and _wants_colours()),
    ]
    structlog.configure(
        processors=_processors,
        wrapper_class=_Logger,
        logger_factory=_StandardError,
        cache_logger_on_first_use=True,
    )


def drop_secrets(_logger: object, _method: str, event: EventDict) -> EventDict:
    """A processor that removes every ``password``, ``passwd`` and ``secret``, in tables as well.

    Nobody means to log one; this is for the day when somebody does.
    """
    return _without_secrets(event)


def _without_secrets(table: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: _without_secrets(value) if isinstance(value, Mapping) else value
        for key, value in table.items()
        if str(key).lower() not in SECRET_KEYS
    }


def _wants_colours() -> bool:
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    return sys.stderr is not None and sys.stderr.isatty()


class _StandardError:
    """The logger below structlog's: one write for each message.

    A log that cannot be written (its reader is gone, the disk is full) must not end the pooler.
    """

    def __init__(self, *_names: object) -> None:
        """structlog hands over the arguments of get_logger(); they are of no use here."""

    def msg(self, line: str) -> None:
        # ValueError: the stream is closed; AttributeError: there is none, sys.stderr is None.
        with contextlib.suppress(OSError, ValueError, AttributeError):
            sys.stderr.write(line + "\n")
            sys.stderr.flush()

    debug = info = warning = warn = error = critical = exception = fatal = msg


def _render_json(_logger: object, _method: str, event: EventDict) -> str:
    first = {key: event.pop(key) for key in ("timestamp", "level", "event")}
    last = {key: event.pop(key) for key in ("exception",) if key in event}
    values = {key: _cut(value) for key, value in event.items()}
    # Non-ASCII is escaped: what ends a line, or commands a terminal, differs between readers.
    return json.dumps({**first, **values, **last}, default=str)


def _cut(value: object) -> object:
    if isinstance(value, str) and len(value) > LONGEST_VALUE:
        return value[:LONGEST_VALUE] + "…"
    return value


class _Text:
    """``TIME level message key=value …``, and below it a traceback, if there is one, indented."""

    def __init__(self, colours: bool) -> None:
        self._colours = colours

    def __call__(self, _logger: object, _method: str, event: EventDict) -> str:
        time, level = str(event.pop("timestamp")), str(event.pop("level"))
        message = _escaped(str(event.pop("event")))
        traceback = event.pop("exception", None)
        words = [
            self._paint(_DIM, time),
            self._paint(_COLOURS.get(level, ""), f"{level:<7}"),
            self._paint(_BOLD, message),
        ]
        words += [
            self._paint(_DIM, f"{_escaped(str(key))}=") + _quoted(value)
            for key, value in event.items()
        ]
        # Indented, so that a line of an exception's text cannot be taken for a message.
        below = [f"    {_escaped(line)}" for line in str(traceback or "").splitlines()]
        return "\n".join([" ".join(words), *below])

    def _paint(self, colour: str, text: str) -> str:
        return f"{colour}{text}{_RESET}" if self._colours and colour else text


def _quoted(value: object) -> str:
    text = str(_cut(value if isinstance(value, str) else str(value)))
    if _BARE.fullmatch(text):
        return _escaped(text)
    return '"' + _escaped(text.replace("\\", "\\\\").replace('"', '\\"')) + '"'


def _escaped(text: str) -> str:
    """*text* with every character that is not printable (Unicode's word) written as an escape."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
