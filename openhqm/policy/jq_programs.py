# -*- test-case-name: tests.policy.test_transforms -*-
"""jq programs, compiled once: ``.`` is the payload, and variables hold the other parts of the request."""

from __future__ import annotations

import json
import math
import re
from typing import Any

from openhqm.errors import TransformFailed
from openhqm.policy.fields import Document, to_json

# Wraps the program, so that it has one output or an error. Two outputs are asked for, never all of them. The program
# stands on lines of its own, so that a comment at its end hides nothing of the wrapper.
_WRAPPER = """\
.metadata as $metadata | .headers as $headers | .correlation_id as $correlation_id | .payload | [limit(2; (
{program}
))] | if length == 1 then .[0]
elif length == 0 then error("the program has no output for this payload")
else error("the program has more than one output for this payload: gather them with [ ]") end
"""
# Only such digits can be a number that jq, which calculates with doubles, would change.
_SUSPICIOUS = re.compile(rb"\d{16}|\d[eE]\+?\d{3}")


class JqProgram:
    """A compiled jq program. ``jq`` is the module of that name. Raises `ValueError` for an invalid program."""

    content_type = "application/json"

    def __init__(self, jq: Any, program: str) -> None:
        try:
            self._program = jq.compile(_WRAPPER.format(program=program))
        except ValueError as error:
            raise ValueError(_one_line(error)) from None

    def apply(self, document: Document) -> bytes:
        """The one output of the program. Raises `TransformFailed`."""
        submission = document.submission
        beside = {
            "metadata": dict(submission.metadata),
            "headers": dict(submission.headers),
            "correlation_id": document.correlation_id,
        }
        text = b'{"payload":%b,%b' % (submission.payload, to_json(beside)[1:])
        if _SUSPICIOUS.search(text):
            _refuse_big_numbers(text)
        try:
            output: str = self._program.input_text(text.decode()).text()
        except ValueError as error:
            raise TransformFailed(f"jq: {_one_line(error)}") from None
        if not output:
            raise TransformFailed("jq: the program stopped without an output")
        return output.encode()


def _one_line(error: ValueError) -> str:
    """The first line of jq's error, with line numbers as in the operator's program."""
    text = str(error).partition("\n")[0].removeprefix("jq: error: ").replace(" at <top-level>", "").rstrip(":")
    return re.sub(r"\bline (\d+)", lambda found: f"line {int(found[1]) - 1}", text)


def _refuse_big_numbers(text: bytes) -> None:
    """Raise `TransformFailed` for a number that jq would change: an id must not become another id."""

    def check(digits: str) -> None:
        value = float(digits)
        if math.isinf(value) or (digits.lstrip("-").isdigit() and int(digits) != int(value)):
            raise TransformFailed(f"jq cannot keep the number {digits[:40]}: it calculates with 64-bit floats")

    try:
        json.loads(text, parse_int=check, parse_float=check)
    except ValueError as error:
        raise TransformFailed(f"the payload is not JSON: {error}") from None
