# -*- test-case-name: tests.queue.test_delivery,tests.queue.test_contracts -*-
"""The one `IDelivery`: a request that was received, and its lease. It is settled exactly once.

How it is settled is up to the backend, as `Steps`. That it happens once, and what a lost lease does, is decided here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from zope.interface import implementer

from openhqm.errors import AlreadySettled, DeliveryClosed, LeaseLost
from openhqm.interfaces import IDelivery
from openhqm.messages import DeadLetter, Reply, Request

T = TypeVar("T")


class Steps(Protocol):
    """What a backend does with a delivery of its own. The Deferred of each step fires once it is durable.

    A step fails with `NotDurable` where nothing of it was stored (the delivery stays open), and with `LeaseLost` where
    the request belongs to another delivery by now.
    """

    @property
    def clock(self) -> IReactorTime:
        """The clock that leases are kept by."""

    @property
    def lease(self) -> float:
        """How long a lease lasts, in seconds."""

    def retry(self, delivery: Delivery, delay: float, reason: str) -> Deferred[None]:
        """Deliver the request again, as the next attempt, after ``delay`` seconds."""

    def release(self, delivery: Delivery) -> Deferred[None]:
        """Deliver the request again at once; the attempt does not count."""

    def end(self, delivery: Delivery, reply: Reply, letter: DeadLetter | None) -> Deferred[bool]:
        """Record the ending, and the dead letter with it. False: the request had ended before."""

    def acknowledge(self, delivery: Delivery) -> Deferred[None]:
        """Nothing is left to do: the request has ended elsewhere."""

    def progress(self, delivery: Delivery, detail: dict[str, Any]) -> Deferred[None]:
        """Add a progress event to the request's history, unless it has ended. `ValueError` past a history's limits."""

    def extend(self, delivery: Delivery) -> None:
        """The lease was renewed; ``delivery.lease_end`` says until when."""

    def closed(self, delivery: Delivery) -> None:
        """The delivery is over: it was settled, or its lease was lost. It may be called twice."""


@implementer(IDelivery)
class Delivery:
    """``handle`` is what the backend knows the request by: a key, a token, a message of a broker.

    ``lease_end`` is by the backend's clock.
    """

    def __init__(self, request: Request, attempt: int, steps: Steps, handle: Any, lease_end: float) -> None:
        self.request = request
        self.attempt = attempt
        self.handle = handle
        self.lease_end = lease_end
        self.revoked: Deferred[str] = Deferred()
        self._steps = steps
        self._is_settled = False  # or it is being settled just now
        self._closed: DeliveryClosed | None = None

    @property
    def is_open(self) -> bool:
        """Whether it can be settled: it was not, and is not being settled just now."""
        return not self._is_settled and self._closed is None

    def extend(self) -> None:
        if self.is_open:
            self.lease_end = self._steps.clock.seconds() + self._steps.lease
            self._steps.extend(self)

    def progress(self, detail: dict[str, Any]) -> Deferred[None]:
        if isinstance(self._closed, LeaseLost):
            return fail(self._closed)
        return self._steps.progress(self, {**detail, "attempt": self.attempt})

    def ack(self) -> Deferred[None]:
        return self._settle(lambda: self._steps.acknowledge(self))

    def retry(self, delay: float, reason: str) -> Deferred[None]:
        return self._settle(lambda: self._steps.retry(self, delay, reason))

    def release(self) -> Deferred[None]:
        return self._settle(lambda: self._steps.release(self))

    def settle(self, reply: Reply) -> Deferred[bool]:
        return self._settle(lambda: self._steps.end(self, reply, None))

    def dead_letter(self, reason: str, reply: Reply) -> Deferred[bool]:
        letter = DeadLetter(self.request, reason, reply, reply.completed_at)
        return self._settle(lambda: self._steps.end(self, reply, letter))

    def _settle(self, step: Callable[[], Deferred[T]]) -> Deferred[T]:
        if not self.is_open:
            return fail(self._closed or AlreadySettled(self.request.correlation_id))
        self._is_settled = True
        try:
            settled = step()
        except Exception:
            settled = fail()
        return settled.addCallbacks(self._was_settled, self._was_not_settled)

    def _was_settled(self, result: T) -> T:
        self._steps.closed(self)
        return result

    def _was_not_settled(self, failure: Failure) -> Failure:
        if isinstance(failure.value, DeliveryClosed):
            self._closed = failure.value
            self._steps.closed(self)
        else:  # nothing of it was stored: it can be settled again
            self._is_settled = False
        return failure

    def revoke(self, reason: str) -> None:
        """The work is in vain; settling is still allowed, and takes the message away."""
        if not self.revoked.called and self.is_open:
            self.revoked.callback(reason)

    def lose(self, reason: str = "lease lost") -> bool:
        """The lease is over: another delivery may have the request. False: it is being settled, which decides."""
        if not self.is_open:
            return False
        self._closed = LeaseLost(self.request.correlation_id)
        self._steps.closed(self)
        if not self.revoked.called:
            self.revoked.callback(reason)
        return True


def nothing() -> Deferred[None]:
    """A step that has nothing to do."""
    return succeed(None)
