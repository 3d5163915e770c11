# -*- test-case-name: tests.workers.test_attempt -*-
"""From what a handler answered, or raised, to the reply that ends its request."""

from __future__ import annotations

from typing import Any

import attrs

from openhqm.errors import Reject, RetryLater
from openhqm.messages import Reply, Status
from openhqm.workers.handlers import Response, checked_headers, result_text

MOST_RESULT_BYTES = 10 * 1024 * 1024
MOST_ERROR_CHARACTERS = 2000


class UnusableAnswer(Exception):
    """A handler's answer that no reply can hold."""


def completed(reply: Reply, answer: Any, most: int = MOST_RESULT_BYTES) -> Reply:
    """``reply`` with ``answer`` (a `Response`, or what JSON can carry) in it. `UnusableAnswer`."""
    response = answer if isinstance(answer, Response) else Response(answer)
    try:
        headers = checked_headers(response.headers)
        text = None if response.body is not None else result_text(response.result)
    except ValueError as error:
        raise UnusableAnswer(str(error)) from None
    if response.body is not None and not isinstance(response.body, bytes):
        raise UnusableAnswer(f"the handler returned a body that is not bytes but {type(response.body).__name__}")
    if len(response.body or text or b"") > most:
        raise UnusableAnswer(f"the answer is larger than {most} bytes")
    return attrs.evolve(reply, result=text, body=response.body, status_code=response.status_code, headers=headers)


def failed(reply: Reply, error: Reject | RetryLater, most: int = MOST_RESULT_BYTES) -> Reply:
    """``reply`` with what is wrong, and with the answer that came with it, if there was one that can be kept."""
    reply = attrs.evolve(reply, error=words(error))
    if error.answer is None:
        return reply
    try:
        return completed(reply, error.answer, most)
    except UnusableAnswer as unusable:
        return attrs.evolve(reply, error=f"{reply.error} ({unusable})"[:MOST_ERROR_CHARACTERS])


def blank(correlation_id: str, status: Status, now: float, attempt: int, started: float) -> Reply:
    """A reply that says nothing yet but how, and when, an attempt ended."""
    return Reply(
        correlation_id,
        status,
        now,
        status_code={Status.COMPLETED: 200, Status.TIMEOUT: 504}.get(status, 502),
        attempt=attempt,
        processing_time_ms=round((now - started) * 1000),
    )


def words(error: BaseException) -> str:
    """An exception in words, within bounds: the kind is left out where the words were chosen to stand alone."""
    plain = isinstance(error, Reject | RetryLater | ValueError | UnusableAnswer)
    name = "" if plain else f"{type(error).__name__}: "
    try:
        text = f"{name}{error}"[:MOST_ERROR_CHARACTERS]
    except Exception:  # its own words are the handler's code, too
        text = f"{type(error).__name__}, which cannot say what it is"
    return text.encode("utf-8", "backslashreplace").decode()  # a lone surrogate cannot be kept anywhere
