# -*- test-case-name: tests.runtime.test_logs -*-
"""Log observers that write each event as one line: JSON for machines, or text for people.

No value in an event can end its line or control a terminal.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from textwrap import indent
from types import SimpleNamespace
from typing import IO, Any, NoReturn

from twisted.logger import (
    FilteringLogObserver,
    ILogObserver,
    LogEvent,
    LogLevel,
    LogLevelFilterPredicate,
    formatEvent,
)
from twisted.python.failure import Failure
from zope.interface import implementer

from openhqm.runtime.log_writer import LogWriter
from openhqm.runtime.repeats import Repeats
from openhqm.runtime.tracebacks import own_traceback

_LEVELS = {"WARNING": "warn"}
_predicates: list[LogLevelFilterPredicate] = []
_repeats: list[Repeats] = []
_written = SimpleNamespace(debug=False)
_writers: list[LogWriter] = []
# The fields of our own events. An event's other fields (objects, perhaps secrets) are never written.
_FIELDS = (
    *("correlation_id", "attempt", "queue", "reason", "error", "path", "status", "method", "port", "signal"),
    *("bytes", "seconds"),
)
# ECMA-48, section 8.3.117 (SGR): faint, yellow, red
_COLOURS = {LogLevel.debug: "2", LogLevel.warn: "33", LogLevel.error: "31", LogLevel.critical: "31"}
_CONTROL = {code: f"\\x{code:02x}" for code in [*range(32), *range(127, 160), *range(0xD800, 0xE000)] if code != 10}


def observer(line: Callable[[LogEvent], str], level: str, stream: IO[str] | None = None) -> ILogObserver:
    """An observer that writes events of ``level`` (DEBUG .. CRITICAL) and above, formatted by ``line``.

    It writes to ``stream``, by default the process's own standard output.
    """
    out = stream if stream is not None else sys.__stdout__
    assert out is not None
    if line is text_line and _has_colours(out):
        line = _coloured_line
    predicate = LogLevelFilterPredicate(defaultLogLevel=_least(level))
    _predicates.append(predicate)
    _look_at_levels()
    repeats = Repeats(_Writer(out, line))
    _repeats.append(repeats)
    return FilteringLogObserver(repeats, [predicate])


def tell_repeats(at_once: bool = False) -> None:
    """Write how many lines were held back because they repeat, where their minute is over, or ``at_once``."""
    for repeats in _repeats:
        repeats.tell(at_once)


def decouple() -> None:
    """From now on, let nothing wait for what reads the log. Lines for which there is no room are dropped, counted."""
    for writer in _writers:
        writer.decouple()


def end_at_once(code: int) -> NoReturn:
    """End the process with ``code``, and wait for nothing but the log, for a second at most."""
    for writer in _writers:
        writer.flush()
    os._exit(code)


def warnings() -> list[str]:
    """What an operator should know who does not read the log."""
    dropped = sum(writer.dropped for writer in _writers)
    return [f"{dropped} lines of the log were dropped: it is not read, or cannot be written"] if dropped else []


def set_level(level: str) -> None:
    """Let every observer of this process write events of ``level`` and above from now on."""
    for predicate in _predicates:
        predicate.setLogLevelForNamespace("", _least(level))
    _look_at_levels()


def is_debug() -> bool:
    """Whether debug events are written: what would log one for each message asks this before it makes the event."""
    return bool(_written.debug)


def _look_at_levels() -> None:
    _written.debug = any(each.logLevelForNamespace("") is LogLevel.debug for each in _predicates)


def are_written_here() -> bool:
    """Whether there is such an observer. With options of twistd's own for the log, there is none."""
    return bool(_predicates)


def _least(level: str) -> Any:
    return LogLevel.levelWithName(_LEVELS.get(level, level.lower()))


def json_line(event: LogEvent) -> str:
    """An event as one line of JSON."""
    line: dict[str, Any] = {
        "time": _time(event),
        "level": event["log_level"].name if event.get("log_level") else "info",
        "pid": os.getpid(),
        "logger": event.get("log_namespace", ""),
        "message": formatEvent(event),
    }
    for field in _FIELDS:
        if field in event:
            value = event[field]
            line[field] = value if isinstance(value, int | float) else _text(value)
    if event.get("log_failure") is not None:
        line["traceback"] = _traceback(event["log_failure"])
    return json.dumps(line).replace("\x7f", "\\u007f")


def text_line(event: LogEvent) -> str:
    """An event as one line of text, with control characters escaped. A traceback follows, indented."""
    level = event["log_level"].name if event.get("log_level") else "info"
    message = formatEvent(event)
    if "correlation_id" in event:
        message += f" [{_text(event['correlation_id'])}]"
    line = f"{_time(event)} {os.getpid()} {level:<8} " + message.translate(_CONTROL).replace("\n", "\\n")
    if event.get("log_failure") is not None:
        # Indented, so that the text of an exception cannot look like a line of the log.
        line += "\n" + indent(_traceback(event["log_failure"]).translate(_CONTROL).rstrip(), "    ")
    return line


def usual_format() -> str:
    """The format for the process's own standard output: ``text`` where that is a terminal, else ``json``."""
    return "text" if sys.__stdout__ is not None and sys.__stdout__.isatty() else "json"


def _has_colours(stream: IO[str]) -> bool:
    """Whether ``stream`` is a terminal on which colours are wanted (no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _coloured_line(event: LogEvent) -> str:
    """As `text_line`. From the level warn on, the first line has a colour; debug is dim."""
    colour = _COLOURS.get(event.get("log_level"))
    if colour is None:
        return text_line(event)
    first, *more = text_line(event).split("\n", 1)
    return "\n".join([f"\x1b[{colour}m{first}\x1b[0m", *more])


def _traceback(failure: Failure) -> str:
    """At debug level all of it, else that of the operator's own code."""
    return str(failure.getTraceback()) if is_debug() else own_traceback(failure)


def _text(value: object) -> str:
    """A value as text, also where its ``repr`` fails."""
    return formatEvent({"log_format": "{value}", "value": value})


FACTORIES = SimpleNamespace(
    **{
        f"{name}_{level}": partial(observer, line, level)
        for name, line in (("json", json_line), ("text", text_line))
        for level in ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
    }
)
"""Factories of observers, by names that twistd's ``--logger`` can import: ``json_INFO``, ``text_DEBUG``."""

FACTORIES_NAME = f"{__name__}.FACTORIES"


def _time(event: LogEvent) -> str:
    moment = datetime.fromtimestamp(event.get("log_time", 0.0), UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


@implementer(ILogObserver)
class _Writer:
    def __init__(self, stream: IO[str], line: Callable[[LogEvent], str]) -> None:
        self._line = line
        self._out = LogWriter(stream, self._dropped)
        _writers.append(self._out)

    def __call__(self, event: LogEvent) -> None:
        level = event.get("log_level")
        self._out.write(self._line(event), level is not None and level >= LogLevel.warn)

    def _dropped(self, count: int) -> str:
        return self._line(
            {
                "log_level": LogLevel.warn,
                "log_namespace": __name__,
                "log_time": time.time(),
                "log_format": "{count} lines of the log were dropped here: it was not read, or could not be written",
                "count": count,
            }
        )
