# -*- test-case-name: tests.policy.test_transforms -*-
"""Programs for jq, compiled once: ``.`` is the payload, the rest of the request is in variables."""

from __future__ import annotations

import json
import math
import re
from typing import Any

from openhqm.errors import TransformFailed
from openhqm.policy.fields import Document, text_of

# One output, or words about it, whatever the program is: two are asked for, never all of them. The program has
# lines of its own, so that a comment at its end hides nothing.
_AROUND = """\
.metadata as $metadata | .headers as $headers | .correlation_id as $correlation_id | .payload | [limit(2; (
{program}
))] | if length == 1 then .[0]
elif length == 0 then error("the program has no output for this payload")
else error("the program has more than one output for this payload: gather them with [ ]") end
"""
# Only digits like these can be a number that jq, whose numbers are doubles, does not keep.
_SUSPICIOUS = re.compile(rb"\d{16}|\d[eE]\+?\d{3}")


class JqProgram:
    """A jq program; ``jq`` is the module of that name. `ValueError` says what is wrong with the program."""

    content_type = "application/json"

    def __init__(self, jq: Any, program: str) -> None:
        try:
            self._program = jq.compile(_AROUND.format(program=program))
        except ValueError as error:
            raise ValueError(_one_line(error)) from None

    def apply(self, document: Document) -> bytes:
        """The one output of the program. `TransformFailed`."""
        submission = document.submission
        beside = {
            "metadata": dict(submission.metadata),
            "headers": dict(submission.headers),
            "correlation_id": document.correlation_id,
        }
        text = b'{"payload":%b,%b' % (submission.payload, text_of(beside)[1:])
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
    """jq's first line, with the number of the line counted in the operator's program."""
    words = str(error).partition("\n")[0].removeprefix("jq: error: ").replace(" at <top-level>", "").rstrip(":")
    return re.sub(r"\bline (\d+)", lambda found: f"line {int(found[1]) - 1}", words)


def _refuse_big_numbers(text: bytes) -> None:
    """An id that comes out as another id is worse than none."""

    def check(digits: str) -> None:
        value = float(digits)
        if math.isinf(value) or (digits.lstrip("-").isdigit() and int(digits) != int(value)):
            raise TransformFailed(f"jq cannot keep the number {digits[:40]}: it calculates with 64-bit floats")

    try:
        json.loads(text, parse_int=check, parse_float=check)
    except ValueError as error:
        raise TransformFailed(f"the payload is not JSON: {error}") from None
