"""Log events as lines: one line for each event, whatever its values contain."""

from __future__ import annotations

import io
import json
import os
import sys
import unicodedata
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.internet.defer import maybeDeferred
from twisted.logger import LogEvent, Logger, LogLevel
from twisted.python.failure import Failure
from twisted.python.reflect import namedAny
from twisted.trial.unittest import SynchronousTestCase

from openhqm.runtime.forks import in_this_process
from openhqm.runtime.logs import FACTORIES_NAME, json_line, observer, set_level, text_line, usual_format
from tests import hypothesis_profile  # noqa: F401

# Anything a string can hold in Python: controls, line separators, lone surrogates
ANY_TEXT = st.text(st.characters(), max_size=20)
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


class Terminal(io.StringIO):
    """A stream that is a terminal."""

    def isatty(self) -> bool:
        return True


class FormatTests(SynchronousTestCase):
    """The format for people, and the colours that a terminal gets"""

    def on_terminal(self, **environment: str) -> str:
        for name in ("NO_COLOR", "TERM"):
            self.patch(os, "environ", {key: value for key, value in os.environ.items() if key != name})
        os.environ.update(environment)
        stream = Terminal()
        log = Logger("openhqm.somewhere", observer=namedAny(f"{FACTORIES_NAME}.text_DEBUG")(stream=stream))
        log.info("well")
        log.warn("\x1b[31mnot well\n")
        log.error("broken")
        return stream.getvalue()

    def test_colours(self) -> None:
        """Warnings and errors have colours on a terminal; what they say cannot set any."""
        well, warning, broken = self.on_terminal(TERM="xterm").splitlines()
        self.assertNotIn("\x1b", well)
        self.assertRegex(warning, r"^\x1b\[33m.* warn .*\\x1b\[31mnot well.*\x1b\[0m$")
        self.assertRegex(broken, r"^\x1b\[31m.* error .*broken\x1b\[0m$")

    def test_no_colours(self) -> None:
        """NO_COLOR and a terminal without colours are respected; a file and JSON never have any."""
        for environment in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
            self.assertNotIn("\x1b", self.on_terminal(**environment))
        for name in ("text_INFO", "json_INFO"):
            self.assertNotIn("\x1b", logged(name, lambda log: log.error("broken")))

    def test_usual(self) -> None:
        """Text on a terminal, JSON elsewhere."""
        for stream, expected in ((Terminal(), "text"), (io.StringIO(), "json"), (None, "json")):
            self.patch(sys, "__stdout__", stream)
            self.assertEqual(usual_format(), expected)


class Unprintable:
    """An object without a text: its ``repr`` and ``str`` fail."""

    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


def event(message: str = "{value}", **fields: Any) -> LogEvent:
    return {
        "log_format": message,
        "log_level": LogLevel.warn,
        "log_namespace": "openhqm.somewhere",
        "log_time": 1770460200.25,
        **fields,
    }


def logged(name: str, log: Any) -> str:
    """The lines that the factory called ``name`` writes while ``log`` is called with a logger."""
    stream = io.StringIO()
    write = namedAny(f"{FACTORIES_NAME}.{name}")(stream=stream)
    log(Logger("openhqm.somewhere", observer=write))
    return stream.getvalue()


def raised_here() -> None:
    raise ValueError("of the handler")


def raised() -> Failure:
    try:
        raise KeyError("gone\x1b[2J")
    except KeyError:
        return Failure()


class LinesTests(SynchronousTestCase):
    """`json_line` and `text_line`"""

    def controls(self, line: str) -> list[str]:
        return [character for character in line if unicodedata.category(character) in ("Cc", "Cs")]

    def test_json(self) -> None:
        """A JSON line has time, level, process, logger and message, and the fields that an operator searches for."""
        line = json_line(event("{reason} at {value}", value=1, reason="late", correlation_id="7f9c", attempt=2))
        self.assertEqual(
            json.loads(line),
            {
                "time": "2026-02-07T10:30:00.250Z",
                "level": "warn",
                "pid": os.getpid(),
                "logger": "openhqm.somewhere",
                "message": "late at 1",
                "correlation_id": "7f9c",
                "attempt": 2,
                "reason": "late",
            },
        )

    def test_text(self) -> None:
        """A text line has time, process, level and message, and the correlation id."""
        line = text_line(event("{value} is late", value="it", correlation_id="7f9c"))
        self.assertEqual(
            line.split(), ["2026-02-07T10:30:00.250Z", str(os.getpid()), "warn", "it", "is", "late", "[7f9c]"]
        )

    @given(ANY_TEXT)
    @example("one\ntwo\r\nthree")
    @example("\x1b[31m\x07\x00\x7f")
    @example("\x85\x9b2J")
    @example("\ud800")
    def test_json_is_one_line(self, value: str) -> None:
        """No value can end the line, move a terminal's cursor, or prevent the line from being written."""
        line = json_line(event(value=value, correlation_id=value, reason=value, error=value))
        self.assertEqual(self.controls(line), [])
        line.encode()
        self.assertEqual(
            set(json.loads(line)), {"time", "level", "pid", "logger", "message", "correlation_id", "reason", "error"}
        )

    @given(ANY_TEXT)
    @example("one\ntwo\r\nthree")
    @example("\x1b[31m\x07\x00\x7f")
    @example("\x85\x9b2J")
    @example("\ud800")
    def test_text_is_one_line(self, value: str) -> None:
        """So it is with a text line, where control characters are escaped."""
        line = text_line(event(value=value, correlation_id=value))
        self.assertEqual(self.controls(line), [])
        line.encode()

    def test_visible(self) -> None:
        """An escaped control character can be recognised."""
        for line in (text_line(event(value="a\x1bb")), json.loads(json_line(event(value="a\x1bb")))["message"]):
            self.assertTrue("\\x1b" in line or "\x1b" in line, line)

    def test_only_known_fields(self) -> None:
        """Other fields of an event, such as requests and secrets, are not written."""
        secret = {"request": {"token": "s3cr3t"}, "log_source": "s3cr3t", "password": "s3cr3t", "log_trace": "s3cr3t"}
        for write in (json_line, text_line):
            self.assertNotIn("s3cr3t", write(event(value=1, **secret)))

    def test_traceback(self) -> None:
        """A failure's traceback is part of the JSON line, or follows the text line with its controls escaped."""
        failure = raised()
        line = json_line(event("it broke", log_failure=failure))
        self.assertEqual(line.count("\n"), 0)
        self.assertIn("KeyError", json.loads(line)["traceback"])
        first, *below = text_line(event("it broke", log_failure=failure)).split("\n")
        self.assertTrue(first.endswith("it broke"))
        self.assertIn("KeyError", below[-1])
        self.assertEqual(self.controls("".join(below)), [])

    def test_odd_events(self) -> None:
        """Events that lack fields, have odd ones, or cannot be formatted make one line each."""
        for odd in (
            {},
            {"log_format": None},
            {"log_format": "{nothing", "log_time": 1.0},
            {"log_format": "{missing}", "log_level": None},
            {"log_format": b"\xff", "log_namespace": "x"},
            event(value=Unprintable()),
            event(value=1, attempt=2**70, status=float("nan"), port=None, path=b"\xff\n"),
        ):
            self.assertEqual(self.controls(json_line(odd)), [], odd.keys())
            json.loads(json_line(odd))
            self.assertEqual(self.controls(text_line(odd)), [], odd.keys())

    def test_unprintable_field(self) -> None:
        """A field that has no text does not prevent the line from being written."""
        self.assertEqual(json.loads(json_line(event("what happened", error=Unprintable())))["message"], "what happened")


class ObserverTests(SynchronousTestCase):
    """`observer`, by the names that twistd imports"""

    def test_levels(self) -> None:
        """Each level writes its own events and those above it, in both formats."""

        def all_of_them(log: Logger) -> None:
            for say in (log.debug, log.info, log.warn, log.error, log.critical):
                say("something")

        for position, level in enumerate(LEVELS):
            for form in ("json", "text"):
                self.assertEqual(logged(f"{form}_{level}", all_of_them).count("\n"), len(LEVELS) - position, level)

    def test_encoding(self) -> None:
        """What a stream's encoding cannot express is escaped, and no line is lost."""
        for encoding, expected in (
            ("ascii", r"caf\xe9 \u2713"),
            ("latin-1", "caf\xe9 \\u2713"),
            ("utf-8", "caf\xe9 \u2713"),
        ):
            written = io.BytesIO()
            stream = io.TextIOWrapper(written, encoding=encoding)
            observer(text_line, "INFO", stream)(event("caf\xe9 \u2713"))
            self.assertTrue(written.getvalue().decode(encoding).endswith(f"{expected}\n"), written.getvalue())

    def test_set_level(self) -> None:
        """The level can be changed while the process runs, in both directions."""

        def change(log: Logger) -> None:
            log.info("not written")
            set_level("DEBUG")
            log.debug("written")
            set_level("CRITICAL")
            log.error("not written")

        self.assertEqual(logged("text_ERROR", change).count("written"), 1)

    def test_logger(self) -> None:
        """A `Logger`'s event is one line, with the traceback of a failure."""

        def break_down(log: Logger) -> None:
            log.failure("attempt {attempt} broke\n", raised(), attempt=3, correlation_id="7f9c")

        written = logged("json_INFO", break_down)
        self.assertEqual((written.count("\n"), written[-1]), (1, "\n"))
        line = json.loads(written)
        self.assertEqual((line["level"], line["attempt"], line["correlation_id"]), ("critical", 3, "7f9c"))
        self.assertIn("KeyError", line["traceback"])

    def test_own_frames(self) -> None:
        """A traceback begins in the operator's code; at debug level it is whole."""

        def break_down(log: Logger) -> None:
            found: list[Failure] = []
            maybeDeferred(in_this_process, raised_here).addErrback(found.append)
            set_level("INFO")
            log.failure("short", found[0])
            set_level("DEBUG")
            log.failure("whole", found[0])
            set_level("INFO")

        short, whole = (json.loads(line)["traceback"] for line in logged("json_INFO", break_down).splitlines())
        for text, theirs in ((short, False), (whole, True)):
            self.assertIn("raised_here", text)
            self.assertIn("ValueError: of the handler", text)
            self.assertEqual("forks.py" in text, theirs, text)

    def test_standard_output(self) -> None:
        """Without a stream, lines go to the process's own standard output."""
        observer(json_line, "INFO")
