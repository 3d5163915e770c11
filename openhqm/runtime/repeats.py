# -*- test-case-name: tests.runtime.test_repeats -*-
"""A log observer in front of another one: a warning or an error that repeats is written once a minute, with a count.

A full disk breaks the settling of each request, many times a second. The log of it must not take the space that an
operator is making.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import Lock

import attrs
from twisted.logger import ILogObserver, LogEvent, LogLevel, formatEvent
from zope.interface import implementer

SECONDS = 60.0
MOST_TEXTS = 20
"""How many lines of one kind, with different ids or reasons in them, are written in a minute."""
MOST_KINDS = 1000

Kind = tuple[object, object, object]


@attrs.define
class _Minute:
    """What was written of one kind of line since ``began``, and how many lines were not."""

    began: float
    last: LogEvent
    texts: set[str] = attrs.Factory(set)
    count: int = 0


@implementer(ILogObserver)
class Repeats:
    """Lines of one kind come from the same place in the code. Each text is passed on to ``write`` once a minute.

    What is held back is counted, and the count is passed on after that minute, with the next event at the latest, or by
    `tell`. Events below a warning pass as they are: they say what happened, and each of them counts. So do critical
    ones: the log may be the only place that names the request.
    """

    def __init__(self, write: ILogObserver, seconds: Callable[[], float] = time.monotonic) -> None:
        self._write = write
        self._seconds = seconds
        self._minutes: dict[Kind, _Minute] = {}
        self._lock = Lock()  # handlers log from their threads

    def __call__(self, event: LogEvent) -> None:
        self.tell()
        level = event.get("log_level")
        if level is None or level < LogLevel.warn or level is LogLevel.critical or self._is_new(event):
            self._write(event)

    def tell(self, at_once: bool = False) -> None:
        """Pass on the counts of the minutes that are over; ``at_once``: of all."""
        if not self._minutes:
            return
        now = self._seconds()
        with self._lock:
            over = [kind for kind, minute in self._minutes.items() if at_once or now - minute.began >= SECONDS]
            minutes = [self._minutes.pop(kind) for kind in over]
        for minute in minutes:
            if minute.count:
                self._write(_counted(minute, now))

    def _is_new(self, event: LogEvent) -> bool:
        kind = (event.get("log_namespace"), event.get("log_format"), event.get("log_level"))
        text = f"{formatEvent(event)} {event.get('correlation_id', '')}"
        with self._lock:
            minute = self._minutes.get(kind)
            if minute is None:
                if len(self._minutes) >= MOST_KINDS:  # formats that a program made up: nothing is kept of them
                    return True
                minute = self._minutes[kind] = _Minute(self._seconds(), event)
            if text not in minute.texts and len(minute.texts) < MOST_TEXTS:
                minute.texts.add(text)
                return True
            minute.count += 1
            minute.last = event
            return False


def _counted(minute: _Minute, now: float) -> LogEvent:
    last = minute.last
    return {
        "log_level": last.get("log_level"),
        "log_namespace": last.get("log_namespace", ""),
        "log_time": last.get("log_time", 0.0),
        "log_format": "{count} more lines like this one in {seconds} s: {text}",
        "count": minute.count,
        "seconds": round(now - minute.began),
        "text": formatEvent(last),
    }
