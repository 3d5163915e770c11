# -*- test-case-name: tests.workers.test_attempt -*-
"""The reply of a request, made from what its handler returned or raised."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from numbers import Integral
from typing import Any

from msgspec.structs import replace
from twisted.python.failure import Failure

from openhqm.errors import Reject, RetryLater
from openhqm.messages import Reply, Status
from openhqm.workers.delays import delay_seconds
from openhqm.workers.handlers import CheckedResponse, Response
from openhqm.workers.results import result_text

MOST_RESULT_BYTES = 10 * 1024 * 1024
MOST_ERROR_CHARACTERS = 2000

# The name and the value of a header field: RFC 9110, sections 5.6.2 and 5.5.
_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+\Z")
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\uffff]*\Z")
_STATUS_CODES = {Status.COMPLETED: 200, Status.TIMEOUT: 504}


class UnusableAnswer(Exception):
    """A handler's answer that cannot be stored in a reply: no JSON, invalid header fields, or too large."""


class HandlerFailed(Exception):
    """The handler failed in a process of its own. The text is for callers, ``traceback`` for the log."""

    def __init__(self, text: str, traceback: str = "") -> None:
        super().__init__(text)
        if traceback:
            self.__cause__ = _There(traceback)


class _There(Exception):
    """Carries a traceback as text to where tracebacks are written."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


def result_of(answer: Any, most: int = MOST_RESULT_BYTES, keeps_result: bool = True) -> dict[str, Any]:
    """What the reply to ``answer``, a `Response` or a JSON value of at most ``most`` bytes, has besides a blank one.
    `UnusableAnswer`.

    Where not ``keeps_result``, ``answer`` is checked the same, and that is only its status code.
    """
    try:
        return _result_of(answer, most, keeps_result)
    except (UnusableAnswer, MemoryError):
        raise
    except ValueError as error:
        raise UnusableAnswer(str(error)) from None
    except BaseException as error:  # of the handler's code, which runs where its answer is looked at
        raise UnusableAnswer(f"the handler's answer breaks when it is read: {describe(error)}") from error


def _result_of(answer: Any, most: int, keeps_result: bool) -> dict[str, Any]:
    if isinstance(answer, CheckedResponse):
        status_code, headers, text, body = answer.status_code, answer.headers, answer.text, answer.body
    else:
        response = answer if isinstance(answer, Response) else Response(answer)
        status_code, headers = response.status_code, _fields(response.headers)
        body = text = None
        if response.body is None:
            text = result_text(response.result)
        elif isinstance(response.body, bytes | bytearray | memoryview):
            body = bytes(response.body)
        else:
            raise UnusableAnswer(f"the handler returned a body that is not bytes but {type(response.body).__name__}")
    if len(body or text or b"") > most:
        raise UnusableAnswer(f"the handler's answer is larger than {most} bytes")
    if not keeps_result:
        return {"status_code": status_code}
    return {"result": text, "body": body, "status_code": status_code, "headers": headers}


def _fields(headers: Mapping[Any, Any] | Iterable[tuple[Any, Any]]) -> dict[str, str]:
    """A handler's header fields. `ValueError` for a name or a value that RFC 9110 does not allow: none is repaired."""
    found: dict[str, str] = {}
    for name, value in headers.items() if isinstance(headers, Mapping) else headers:
        name, value = _field_text(name), _field_text(value)
        beyond_bytes = "".join(character for character in value if character > "\xff")
        if not _NAME.match(name) or not _VALUE.match(value) or not beyond_bytes.isprintable():
            raise ValueError(f"the handler returned a header with an invalid name or value: {name[:64]!r}")
        found[name] = value
    return found


def _field_text(value: Any) -> str:
    """The text of a name or a value: bytes have a character each, and a whole number has its digits."""
    if isinstance(value, str):
        return str.__str__(value)  # the text alone: an enum's own __str__ has the name of its class in front
    if isinstance(value, bytes):
        return value.decode("latin-1")
    if isinstance(value, Integral) and not isinstance(value, bool):
        return str(int(value))
    raise ValueError(f"the handler returned a header whose name or value is not a text but {type(value).__name__}")


def asked_delays(reply: Reply, error: RetryLater, now: float) -> tuple[Reply, float | None, float]:
    """For how many seconds ``error`` asks: exactly (None: for the usual back-off) and at least.

    ``reply`` is returned with a remark in its error where that cannot be read.
    """
    delay, at_least = None, 0.0
    try:
        at_least = 0.0 if error.at_least is None else delay_seconds(error.at_least, now)
        delay = None if error.delay is None else delay_seconds(error.delay, now)
    except BaseException as problem:  # the values are the handler's: they may break when they are read
        remark = f"{reply.error} (the usual back-off applies, for its delay cannot be read: {describe(problem)[:200]})"
        reply = replace(reply, error=remark[:MOST_ERROR_CHARACTERS])
    return reply, delay, at_least


def failed(reply: Reply, error: Reject | RetryLater, most: int = MOST_RESULT_BYTES) -> Reply:
    """``reply`` with the text of ``error``, and with the answer that ``error`` carries where it can be stored."""
    reply = replace(reply, error=describe(error))
    try:
        answer = error.answer
        return reply if answer is None else replace(reply, **result_of(answer, most))
    except Exception as unusable:  # `UnusableAnswer`, or what the property of a subclass raises
        return replace(reply, error=f"{reply.error} ({describe(unusable)})"[:MOST_ERROR_CHARACTERS])


def blank(
    correlation_id: str, status: Status, now: float, attempt: int, started: float, error: str | None = None
) -> Reply:
    """A reply without a result: only the status of the attempt, and when it ended. Times in seconds since the epoch."""
    status_code = _STATUS_CODES.get(status, 502)
    return with_result(correlation_id, status, now, attempt, started, status_code=status_code, error=error)


def with_result(correlation_id: str, status: Status, now: float, attempt: int, started: float, **result: Any) -> Reply:
    """Such a reply with a `result_of`, or other attributes."""
    milliseconds = round((now - started) * 1000)
    return Reply(correlation_id, status, now, attempt=attempt, processing_time_ms=milliseconds, **result)


def describe(error: BaseException) -> str:
    """The text of ``error`` for callers, at most `MOST_ERROR_CHARACTERS` long.

    It begins with the name of the class, except for errors whose texts were written to be read alone.
    """
    plain = isinstance(error, Reject | RetryLater | ValueError | UnusableAnswer | HandlerFailed)
    name = "" if plain else f"{type(error).__name__}: "
    try:
        text = f"{name}{error}"[:MOST_ERROR_CHARACTERS]
    except BaseException:  # its __str__ is the handler's code, and may raise anything
        text = f"{type(error).__name__}, whose text cannot be read"
    return text.encode("utf-8", "backslashreplace").decode()  # UTF-8 has no lone surrogates, and stores keep UTF-8


def as_failure(failure: Failure) -> Failure:
    """Turn into a RuntimeError what would end more than this attempt (KeyboardInterrupt, asyncio's CancelledError).

    So with a StopIteration: where it is raised into a coroutine that awaits, it reads as an answer.
    """
    error = failure.value
    if error is None or (isinstance(error, Exception | SystemExit) and not isinstance(error, StopIteration)):
        return failure
    raise RuntimeError(describe(error)) from error
