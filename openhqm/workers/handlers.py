# -*- test-case-name: tests.workers.test_handlers -*-
"""Handlers, the operator's Python functions: how they are loaded, what they are called with, what they may return."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from contextvars import copy_context
from functools import cached_property
from typing import Any

import attrs
import msgspec
from twisted.internet.defer import Deferred, fail, maybeDeferred
from twisted.internet.interfaces import IReactorTime

from openhqm.errors import Reject, RetryLater
from openhqm.messages import Request
from openhqm.policy.fields import Document
from openhqm.policy.json_numbers import parse_json
from openhqm.policy.step_payloads import with_payload
from openhqm.runtime.steady_time import ahead_of

Handler = Callable[["Work"], Any]
"""A function of one `Work`. It returns a JSON value or a `Response`, or a Deferred or coroutine of either."""

Report = Callable[[dict[str, Any]], None]


def _status_code(value: Any) -> int:
    """A whole number of any class (`http.HTTPStatus`) as an int."""
    code = -1 if isinstance(value, bool) or not hasattr(type(value), "__index__") else operator.index(value)
    if not 200 <= code < 600:
        raise ValueError(f"status_code must be a whole number from 200 to 599, not {value!r}")
    return code


def _headers(value: Any) -> Any:
    return {} if value is None else value


@attrs.frozen
class Response:
    """A handler's answer with a status and header fields of its own.

    ``result`` is a JSON value; ``body`` is bytes instead of it, which the route ``/body`` serves unchanged.
    ``status_code`` (200 to 599) and ``headers`` (a mapping, pairs, or None) are those of the answer of that route.
    """

    result: Any = None
    body: bytes | None = None
    status_code: int = attrs.field(default=200, converter=_status_code)
    headers: Any = attrs.field(default=None, converter=_headers)


class CheckedResponse(msgspec.Struct, frozen=True):
    """A target's answer. Its parts were checked, unlike a `Response`'s: ``text`` is JSON, ``headers`` are valid."""

    status_code: int
    headers: Mapping[str, str]
    text: bytes | None = None
    body: bytes | None = None


class FinishedLater(CheckedResponse, frozen=True):
    """A target's answer that says that the target ends the request later itself."""


TokenOf = Callable[[str], str | None]


def no_token(correlation_id: str) -> None:
    """No target can end a request later."""


class AttemptTimedOut(Exception):
    """The attempt reached its time limit. The text, where there is one, names the limit."""


class Unreachable(RetryLater):
    """There was no connection to the target, and nothing was sent. ``timed_out``: not within the limit of the attempt.

    Where a gate probes the target, the attempt does not count.
    """

    def __init__(self, text: str, *, timed_out: bool = False) -> None:
        super().__init__(None, text)
        self.timed_out = timed_out


class Work:
    """What a handler is called with: one attempt at one request.

    ``attempt`` counts from 1, up to ``max_attempts``. ``time_left`` is in seconds. ``report`` stores a progress event.
    ``replayed``: the request is of the backlog that goes at the rate of its bridge; see `Gate`.

    The payload of a step is made here; `Reject` where it cannot be.
    """

    def __init__(
        self,
        request: Request,
        attempt: int,
        time_left: float,
        clock: IReactorTime,
        report: Report,
        max_attempts: int = 1,
        replayed: bool = False,
    ) -> None:
        self.replayed = replayed
        self.request = request = with_payload(request)
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
        """The payload. Its numbers are as they came: see `openhqm.policy.json_numbers`."""
        return parse_json(self.payload_text)

    @property
    def operation(self) -> str | None:
        """``metadata.operation``, else ``payload.operation``; None where it is not a string."""
        # Nothing else of the payload is parsed here, in the reactor.
        return Document(self.request.submission).operation

    @property
    def submitted_at(self) -> float:
        """When the request was accepted, in seconds since the epoch."""
        return self.request.submitted_at + ahead_of(self._clock)()

    @property
    def deadline(self) -> float:
        """When this attempt times out, in seconds since the epoch."""
        return self._ends + ahead_of(self._clock)()

    @property
    def time_left(self) -> float:
        """How many seconds are left until this attempt times out."""
        return max(0.0, self._ends - self._clock.seconds())

    def header(self, name: str, default: str | None = None) -> str | None:
        """The value of the caller's header ``name``, whatever its case; ``default`` where there is none."""
        wanted = name.lower()
        return next((value for key, value in self.headers.items() if key.lower() == wanted), default)

    def progress(self, **detail: Any) -> None:
        """Store a progress event with ``detail``, which callers see in their event streams. Safe from any thread.

        An event that cannot be stored (too large, too many, not JSON) is logged, and the attempt goes on.
        """
        self._report(detail)


NO_HANDLER = "the request names no endpoint, and this worker has no handler for it"


def echo(work: Work) -> Any:
    """The handler named ``echo``: it returns the payload, byte for byte."""
    return msgspec.Raw(work.payload_text)


class Handlers:
    """Chooses the handler of a request and calls it. Where it runs is its own affair: see `workers.executors`.

    ``by_operation`` holds the handlers of ``worker.handlers``; ``default`` is called for every other operation. Without
    one, those are rejected.
    """

    def __init__(self, default: Handler | None, by_operation: Mapping[str, Handler]) -> None:
        self._default = default
        self._by_operation = by_operation
        self.keeps_time = not by_operation and bool(getattr(default, "keeps_time", False))
        """Whether each answer comes within `Work.time_left`, so that no other timer is needed."""
        # No code of the operator's: it returns a Deferred, and sets nothing in its context.
        self._forwards: Callable[[Work], Deferred[Any]] | None = default if self.keeps_time else None

    def run(self, work: Work) -> Deferred[Any]:
        """Fires with what the handler returned, or fails with what it raised."""
        try:
            if self._forwards is not None:
                return self._forwards(work)
            # What a handler sets in its context is not for the next one.
            return copy_context().run(maybeDeferred, self._start, work)
        except BaseException:  # an answer that breaks when Twisted asks for its class
            return fail()

    def _start(self, work: Work) -> Any:
        return self._choose(work)(work)

    def _choose(self, work: Work) -> Handler:
        operation = work.operation if self._by_operation else None
        if operation is not None and operation in self._by_operation:
            return self._by_operation[operation]
        if self._default is None:
            raise Reject(f"no handler for operation {operation!r}" if self._by_operation else NO_HANDLER)
        return self._default
