# -*- test-case-name: tests.workers.test_attempt -*-
"""The reply of a request, made from what its handler returned or raised."""

from __future__ import annotations

from typing import Any

import attrs

from openhqm.errors import Reject, RetryLater
from openhqm.messages import Reply, Status
from openhqm.workers.handlers import Response, checked_headers, result_text

MOST_RESULT_BYTES = 10 * 1024 * 1024
MOST_ERROR_CHARACTERS = 2000


class UnusableAnswer(Exception):
    """A handler's answer that cannot be stored in a reply: no JSON, invalid header fields, or too large."""


def completed(reply: Reply, answer: Any, most: int = MOST_RESULT_BYTES) -> Reply:
    """``reply`` with ``answer``, a `Response` or a JSON value of at most ``most`` bytes. `UnusableAnswer`."""
    response = answer if isinstance(answer, Response) else Response(answer)
    try:
        headers = checked_headers(response.headers)
        text = None if response.body is not None else result_text(response.result)
    except ValueError as error:
        raise UnusableAnswer(str(error)) from None
    if response.body is not None and not isinstance(response.body, bytes):
        raise UnusableAnswer(f"the handler returned a body that is not bytes but {type(response.body).__name__}")
    if len(response.body or text or b"") > most:
        raise UnusableAnswer(f"the handler's answer is larger than {most} bytes")
    return attrs.evolve(reply, result=text, body=response.body, status_code=response.status_code, headers=headers)


def failed(reply: Reply, error: Reject | RetryLater, most: int = MOST_RESULT_BYTES) -> Reply:
    """``reply`` with the text of ``error``, and with the answer that ``error`` carries where it can be stored."""
    reply = attrs.evolve(reply, error=describe(error))
    if error.answer is None:
        return reply
    try:
        return completed(reply, error.answer, most)
    except UnusableAnswer as unusable:
        return attrs.evolve(reply, error=f"{reply.error} ({unusable})"[:MOST_ERROR_CHARACTERS])


def blank(correlation_id: str, status: Status, now: float, attempt: int, started: float) -> Reply:
    """A reply without a result: only the status of the attempt, and when it ended. Times in seconds since the epoch."""
    return Reply(
        correlation_id,
        status,
        now,
        status_code={Status.COMPLETED: 200, Status.TIMEOUT: 504}.get(status, 502),
        attempt=attempt,
        processing_time_ms=round((now - started) * 1000),
    )


def describe(error: BaseException) -> str:
    """The text of ``error`` for callers, at most `MOST_ERROR_CHARACTERS` long.

    It begins with the name of the class, except for errors whose texts were written to be read alone.
    """
    plain = isinstance(error, Reject | RetryLater | ValueError | UnusableAnswer)
    name = "" if plain else f"{type(error).__name__}: "
    try:
        text = f"{name}{error}"[:MOST_ERROR_CHARACTERS]
    except Exception:  # its __str__ is the handler's code, and may fail, too
        text = f"{type(error).__name__}, whose text cannot be read"
    return text.encode("utf-8", "backslashreplace").decode()  # UTF-8 has no lone surrogates, and stores keep UTF-8
