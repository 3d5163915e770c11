# -*- test-case-name: tests.test_errors -*-
"""Every way a request can fail, named by the promise that could not be kept.

Nothing in here knows HTTP: the door decides the status code, in one table.
"""

from __future__ import annotations

import attrs


class OpenHQMError(Exception):
    """The root of everything OpenHQM raises on purpose."""


@attrs.define(str=False)
class Complaint:
    """One thing wrong with a configuration: the key, and what is wrong with it."""

    key: str
    reason: str
    source: str = ""

    def __str__(self) -> str:
        where = f" ({self.source})" if self.source else ""
        return f"{self.key}: {self.reason}{where}"


class ConfigurationError(OpenHQMError):
    """The configuration cannot work. Carries every complaint, not only the first."""

    def __init__(self, complaints: list[Complaint]) -> None:
        super().__init__("; ".join(str(complaint) for complaint in complaints))
        self.complaints = complaints


class CannotStart(OpenHQMError):
    """The configuration is sound, and this machine cannot run it now: a taken port, a full disk."""


class FileInUse(CannotStart):
    """Another process holds the embedded database."""

    def __init__(self, path: str, holder: str) -> None:
        super().__init__(
            f"{path} is in use by process {holder or 'unknown'}: stop it, "
            "or give this one its own queue.connection.sqlite.path"
        )
        self.path = path
        self.holder = holder


class MalformedJSON(OpenHQMError):
    """The bytes are not JSON as RFC 8259 has it, or nest deeper than we follow."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class InvalidRequest(OpenHQMError):
    """The JSON is sound but does not describe a request. Names the field."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason


class DestinationRefused(OpenHQMError):
    """A place that a request chose, and that must not be called.

    It reads the same whatever the cause, so that nobody can feel out a network by what is refused. ``reason`` is for
    the operator's log.
    """

    def __init__(self, reason: str) -> None:
        super().__init__("the destination is not allowed")
        self.reason = reason


class IdempotencyConflict(OpenHQMError):
    """An idempotency key came back with another request under it."""

    def __init__(self, key: str) -> None:
        super().__init__(f"Idempotency-Key {key!r} was used for a different request")
        self.key = key


class NotDurable(OpenHQMError):
    """What was asked could not be made safe, so it was not done. Repeating is safe."""

    def __init__(self, reason: str, retry_after: int = 5) -> None:
        super().__init__(reason)
        self.reason = reason
        self.retry_after = retry_after


class UnknownRequest(OpenHQMError):
    """A correlation id that was never given out."""

    def __init__(self, correlation_id: str) -> None:
        super().__init__("no request has this correlation id")
        self.correlation_id = correlation_id


class ExpiredRequest(OpenHQMError):
    """A correlation id whose answer was kept for its time and is gone."""

    def __init__(self, correlation_id: str) -> None:
        super().__init__("the answer was kept for its time and has expired")
        self.correlation_id = correlation_id


class AlreadyEnded(OpenHQMError):
    """The request has its one ending; nothing can change it."""

    def __init__(self, correlation_id: str, status: str) -> None:
        super().__init__(f"the request has already ended: {status}")
        self.correlation_id = correlation_id
        self.status = status


class DeliveryClosed(OpenHQMError):
    """Nothing more can be settled on this delivery. `LeaseLost` and `AlreadySettled` say why."""

    def __init__(self, correlation_id: str, reason: str) -> None:
        super().__init__(f"{correlation_id}: {reason}")
        self.correlation_id = correlation_id
        self.reason = reason


class LeaseLost(DeliveryClosed):
    """The lease ran out, or a later attempt has begun: the request belongs to another delivery."""

    def __init__(self, correlation_id: str, reason: str = "the lease was lost") -> None:
        super().__init__(correlation_id, reason)


class AlreadySettled(DeliveryClosed):
    """The delivery was settled before; a delivery is settled once."""

    def __init__(self, correlation_id: str) -> None:
        super().__init__(correlation_id, "the delivery was settled before")


class UnreadableMessage(OpenHQMError):
    """Bytes in a queue that are not one of our envelopes, or of a version not known here."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Reject(OpenHQMError):
    """Raised by a handler: this request can never succeed. It fails at once, without retries.

    ``answer`` (what a handler may return) is kept with the failure.
    """

    def __init__(self, reason: object = "", answer: object = None) -> None:
        super().__init__(reason)
        self.answer = answer


class RetryLater(OpenHQMError):
    """Raised by a handler: try again after ``delay`` seconds; None: after the usual back-off, or ``at_least`` seconds.

    ``answer`` (what a handler may return) is kept with the failure, should this have been the last attempt.
    """

    def __init__(
        self,
        delay: float | None,
        reason: str = "the handler asked for a later attempt",
        answer: object = None,
        *,
        at_least: float = 0.0,
    ) -> None:
        super().__init__(reason)
        self.delay = delay
        self.answer = answer
        self.at_least = at_least


class TransformFailed(OpenHQMError):
    """The request does not have what its route needs. It never will: another attempt would be in vain."""

    def __init__(self, reason: str, route: str = "") -> None:
        super().__init__(f"route {route}: {reason}" if route else reason)
        self.reason = reason
        self.route = route
