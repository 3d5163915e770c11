# -*- test-case-name: tests.workers.test_handlers -*-
"""The caller's Python: how it is found, what it is called with, and what it may return."""

from __future__ import annotations

import importlib
import inspect
import json
import re
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import attrs
import msgspec
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IReactorTime

from openhqm.errors import Reject
from openhqm.messages import Request

Handler = Callable[["Work"], Any]
"""A function of one `Work`: it returns what JSON can carry, or a `Response`, or a Deferred or coroutine of them."""

_ANY = msgspec.json.Decoder(msgspec.Raw)

RunBlocking = Callable[[Callable[[], Any]], Deferred[Any]]
Report = Callable[[dict[str, Any]], None]


# RFC 9110, section 5.6.2 and 5.5: what a header field may be called, and may say
_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+\Z")
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\uffff]*\Z")


def _status_code(instance: object, attribute: object, value: Any) -> None:
    if type(value) is not int or not 200 <= value < 600:
        raise ValueError(f"status_code must be a whole number from 200 to 599, not {value!r}")


@attrs.frozen
class Response:
    """A handler's answer with more to say than a JSON value.

    Either ``result`` (what JSON can carry) or ``body`` (bytes, served as they are by ``/body``), with the
    status and headers that ``/body`` answers with.
    """

    result: Any = None
    body: bytes | None = None
    status_code: int = attrs.field(default=200, validator=_status_code)
    headers: Mapping[str, str] = attrs.field(factory=dict)


class TimeIsUp(Exception):
    """The attempt reached its limit."""


class Work:
    """What a handler is called with: one attempt at one request. ``max_attempts`` are made in all."""

    def __init__(
        self,
        request: Request,
        attempt: int,
        time_left: float,
        clock: IReactorTime,
        report: Report,
        max_attempts: int = 1,
    ) -> None:
        self.request = request
        self.correlation_id = request.correlation_id
        self.attempt = attempt
        self.max_attempts = max_attempts
        self.headers = request.submission.headers
        self.metadata = request.submission.metadata
        self.payload_text = request.submission.payload
        self._ends = clock.seconds() + time_left
        self._clock = clock
        self._report = report

    @cached_property
    def payload(self) -> Any:
        """The payload, parsed; numbers as Python has them."""
        return json.loads(self.payload_text)

    @property
    def operation(self) -> str | None:
        """``metadata.operation``, or else ``payload.operation``, if it is a string."""
        operation = self.metadata.get("operation")
        if operation is None and self.payload_text.lstrip()[:1] == b"{":
            operation = self.payload.get("operation")
        return operation if isinstance(operation, str) else None

    @property
    def deadline(self) -> float:
        """When this attempt is over, in seconds since the epoch."""
        return self._ends

    @property
    def time_left(self) -> float:
        """How many seconds this attempt has left."""
        return max(0.0, self._ends - self._clock.seconds())

    def header(self, name: str, default: str | None = None) -> str | None:
        """The value of a header, without regard to case."""
        wanted = name.lower()
        return next((value for key, value in self.headers.items() if key.lower() == wanted), default)

    def progress(self, **detail: Any) -> None:
        """Tell whoever listens how far the work is. Works from any thread; what cannot be kept is logged."""
        self._report(detail)


def echo(work: Work) -> Any:
    """The handler that is there when none is configured: the payload comes back, byte for byte."""
    return msgspec.Raw(work.payload_text)


def load_handler(path: str) -> Handler:
    """The callable at ``package.module:callable``. `ValueError` with words for the operator."""
    module_name, _, name = path.partition(":")
    try:
        found: Any = importlib.import_module(module_name)
    except Exception as error:  # whatever the operator's module raises while it is imported
        raise ValueError(f"cannot import {module_name}: {type(error).__name__}: {error}") from error
    for part in name.split("."):
        found = getattr(found, part, None)
    if not callable(found):
        raise ValueError(f"{module_name} has no callable named {name}")
    handler: Handler = found
    return handler


class Handlers:
    """Chooses the handler of a request and runs it: in the reactor, or (``run_blocking``) in a thread."""

    def __init__(self, default: Handler | None, by_operation: Mapping[str, Handler], run_blocking: RunBlocking | None):
        self._default = default
        self._by_operation = by_operation
        self._run_blocking = run_blocking

    def run(self, work: Work) -> Deferred[Any]:
        """Fires with what the handler answered, or fails with what it raised."""
        return maybeDeferred(self._start, work)

    def _start(self, work: Work) -> Any:
        handler = self._choose(work)
        if self._run_blocking is None or inspect.iscoroutinefunction(handler):
            return handler(work)
        return self._run_blocking(lambda: handler(work)).addCallback(_awaited)

    def _choose(self, work: Work) -> Handler:
        if self._by_operation:
            operation = work.operation
            if operation is not None and operation in self._by_operation:
                return self._by_operation[operation]
            if self._default is None:
                raise Reject(f"no handler for operation {operation!r}")
        return self._default or echo


def _awaited(answer: Any) -> Any:
    """What a function in a thread returned may be something to wait for, which the reactor does."""
    return Deferred.fromCoroutine(answer) if inspect.iscoroutine(answer) else answer


def checked_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """A handler's header fields. `ValueError` for what cannot be one: it is refused, never repaired."""
    for name, value in headers.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise ValueError("the handler returned a header that is not text")
        beyond_bytes = "".join(character for character in value if character > "\xff")
        if not _NAME.match(name) or not _VALUE.match(value) or not beyond_bytes.isprintable():
            raise ValueError(f"the handler returned a header that cannot be one: {name[:64]!r}")
    return dict(headers)


def result_text(value: Any) -> bytes:
    """A handler's result as JSON text. `ValueError` where JSON cannot carry it."""
    try:
        text = msgspec.json.encode(value)
        _ANY.decode(text.decode("utf-8"))  # a handler may have given text of its own, and be wrong
        if b"null" in text and not isinstance(value, msgspec.Raw):
            json.dumps(msgspec.to_builtins(value), allow_nan=False)  # msgspec writes NaN as null
        return text
    except OverflowError:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError, msgspec.MsgspecError) as error:
        raise ValueError(f"the handler returned something that is not JSON: {error}") from None
