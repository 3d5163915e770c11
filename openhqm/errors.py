# -*- test-case-name: tests.test_errors -*-
"""All errors that OpenHQM raises on purpose. Each is named after the promise that could not be kept.

This module knows nothing of HTTP: `openhqm.ingress.answers` maps errors to status codes, in one table.
"""

from __future__ import annotations

import os
from datetime import datetime, timedelta
from decimal import Decimal

import attrs

Delay = float | timedelta | datetime | Decimal | str | bytes
"""What stands for a number of seconds: a datetime has a zone, a text is that of the field ``Retry-After``."""


def how_to_install(extra: str) -> str:
    """What brings the packages that ``extra`` of setup.py names: a command in a clone, because no index has OpenHQM.

    In an image, whose packages are fixed, it is another image: the Dockerfile says in ``IMAGE_VARIANT`` which this is.
    """
    if variant := os.environ.get("IMAGE_VARIANT"):
        return f"the image latest-all has it, and this one, latest-{variant}, has not"
    return f"pip install '.[{extra}]' in the clone of OpenHQM"


class OpenHQMError(Exception):
    """The base class of all errors that OpenHQM raises on purpose."""


@attrs.define(str=False)
class Complaint:
    """One error in a configuration: the key, what is wrong with its value, and the file or variable it is from."""

    key: str
    reason: str
    source: str = ""

    def __str__(self) -> str:
        where = f" ({self.source})" if self.source else ""
        return f"{self.key}: {self.reason}{where}"


class ConfigurationError(OpenHQMError):
    """The configuration is invalid. ``complaints`` has all errors in it, not only the first."""

    def __init__(self, complaints: list[Complaint]) -> None:
        super().__init__("; ".join(str(complaint) for complaint in complaints))
        self.complaints = complaints


class CannotStart(OpenHQMError):
    """The configuration is valid, but this machine cannot run it now: a port in use, for example, or a full disk."""


class FileInUse(CannotStart):
    """Another process has the embedded database open."""

    def __init__(self, path: str, holder: str) -> None:
        super().__init__(
            f"{path} is in use by process {holder or 'unknown'}: stop it, "
            "or give this one its own queue.connection.sqlite.path"
        )
        self.path = path
        self.holder = holder


class MalformedJSON(OpenHQMError):
    """Bytes are not JSON (RFC 8259), or exceed the limits of `openhqm.policy.json_text`."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class InvalidRequest(OpenHQMError):
    """A JSON document does not describe a valid request. ``field`` is the dotted name of what is wrong."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason


@attrs.frozen
class SchemaFault:
    """Where a payload is not as its schema has it: a JSON Pointer into it (RFC 6901), and what is wrong there."""

    pointer: str
    detail: str

    def __str__(self) -> str:
        return f"{self.pointer or 'the payload'}: {self.detail}"


class PayloadRefused(InvalidRequest):
    """The payload is not as the schema of ``subject`` (an endpoint, a route, an operation) has it."""

    def __init__(self, subject: str, faults: tuple[SchemaFault, ...]) -> None:
        more = f", and {len(faults) - 1} more" if len(faults) > 1 else ""
        super().__init__("payload", f"it is not as the schema of {subject} has it: {faults[0]}{more}")
        self.faults = faults


class NotPermitted(InvalidRequest):
    """The tenant on whose behalf a request is may not ask for that."""


class MessageTooLarge(OpenHQMError):
    """The message that a request makes is longer than the queue takes. Nothing of it was stored."""

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(
            f"the request, its headers and metadata make a message of {size} bytes; the queue takes at most {limit}"
        )
        self.size = size
        self.limit = limit


class DestinationRefused(OpenHQMError):
    """A destination that a request chose is not allowed.

    The text is the same for every cause, so that callers cannot explore a network by it. ``reason`` is for the
    operator's log.
    """

    def __init__(self, reason: str) -> None:
        super().__init__("the destination is not allowed")
        self.reason = reason


class IdempotencyConflict(OpenHQMError):
    """An idempotency key was used again, for a different request."""

    def __init__(self, key: str) -> None:
        super().__init__(f"Idempotency-Key {key!r} was used for a different request")
        self.key = key


class NotDurable(OpenHQMError):
    """A step could not be stored. Repeating it is safe, after ``retry_after`` seconds.

    ``maybe_done``: the store took the step and did not answer, so it may have been done.
    """

    def __init__(self, reason: str, retry_after: int = 5, *, maybe_done: bool = False) -> None:
        super().__init__(reason)
        self.maybe_done = maybe_done
        self.reason = reason
        self.retry_after = retry_after


class QueueFull(NotDurable):
    """`queue.limits` takes no further request before others have ended."""


class TooMuchQueued(QueueFull):
    """As many requests of the tenant wait as ``limit`` allows."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"tenants: {limit} requests of a tenant wait for their first attempt, and no more may")
        self.limit = limit


class TooManyOpen(OpenHQMError):
    """A tenant has as many of ``what`` as ``limit`` allows."""

    def __init__(self, what: str, limit: int) -> None:
        super().__init__(f"this tenant has {limit} {what}, and may have no more")
        self.limit = limit


class DeadlineUnmet(QueueFull):
    """What waits in the queue has waited for longer than this request has until its deadline."""

    def __init__(self, queue: str, waited: float, timeout: float) -> None:
        super().__init__(f"queue.limits.shed_seconds: requests wait in {queue} for longer than some have time")
        self.waited = waited
        self.timeout = timeout


class UnknownRequest(OpenHQMError):
    """A correlation id that was never given out."""

    def __init__(self, correlation_id: str) -> None:
        super().__init__("no request has this correlation id")
        self.correlation_id = correlation_id


class ExpiredRequest(OpenHQMError):
    """A correlation id whose reply was kept for its time and then deleted."""

    def __init__(self, correlation_id: str) -> None:
        super().__init__("the reply to this request has expired, and was deleted")
        self.correlation_id = correlation_id


class AlreadyEnded(OpenHQMError):
    """The request has ended, with ``status``, which does not change any more."""

    def __init__(self, correlation_id: str, status: str) -> None:
        super().__init__(f"the request has already ended: {status}")
        self.correlation_id = correlation_id
        self.status = status


class DeliveryClosed(OpenHQMError):
    """The delivery cannot be settled any more. `LeaseLost` and `AlreadySettled` say why."""

    def __init__(self, correlation_id: str, reason: str) -> None:
        super().__init__(f"{correlation_id}: {reason}")
        self.correlation_id = correlation_id
        self.reason = reason


class LeaseLost(DeliveryClosed):
    """The lease has expired, or a later attempt has begun: the request belongs to another delivery."""

    def __init__(self, correlation_id: str, reason: str = "the lease was lost") -> None:
        super().__init__(correlation_id, reason)


class AlreadySettled(DeliveryClosed):
    """The delivery was settled before. A delivery is settled exactly once."""

    def __init__(self, correlation_id: str) -> None:
        super().__init__(correlation_id, "the delivery was settled before")


class UnreadableMessage(OpenHQMError):
    """A message is not an OpenHQM envelope, or is one of an unknown version."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Reject(OpenHQMError):
    """Raised by a handler: the request can never succeed. It fails at once, without retries.

    ``answer`` (anything that a handler may return) becomes the result of the failed request.
    """

    answer: object = None  # what a subclass has whose constructor does not call this one

    def __init__(self, reason: object = "", answer: object = None) -> None:
        super().__init__(reason)
        self.answer = answer


class RetryLater(OpenHQMError):
    """Raised by a handler: retry after ``delay`` seconds; None: after the usual back-off, or ``at_least`` seconds.

    What stands for no number of seconds is replaced by the back-off, and the error says so. ``answer`` (anything that a
    handler may return) becomes the result if this was the last attempt.
    """

    delay: object = None  # what a subclass has whose constructor does not call this one
    answer: object = None
    at_least: object = None

    def __init__(
        self,
        delay: Delay | None,
        reason: str = "the handler asked for a later attempt",
        answer: object = None,
        *,
        at_least: Delay | None = None,
    ) -> None:
        super().__init__(reason)
        self.delay = delay
        self.answer = answer
        self.at_least = at_least


class TransformFailed(OpenHQMError):
    """The request lacks what its route's transform needs. It always will, so it is not retried."""

    def __init__(self, reason: str, route: str = "") -> None:
        super().__init__(f"route {route}: {reason}" if route else reason)
        self.reason = reason
        self.route = route
