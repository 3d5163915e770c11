# -*- test-case-name: tests.queue.test_delivery,tests.queue.test_contracts -*-
"""The deliveries that are out, and one timer for all their leases."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from openhqm.queue.delivery import Delivery

LEAST_SECONDS = 1.0
"""How long to wait at least between two looks: a delivery that is being settled stays until that is stored."""


class Leases:
    """``seconds`` is how long a lease lasts. ``lost`` is called with each delivery whose lease ran out.

    A delivery is found by the number of its request, too.
    """

    _log = Logger()

    def __init__(self, clock: IReactorTime, seconds: float, lost: Callable[[Delivery], None]) -> None:
        self._clock = clock
        self._seconds = seconds
        self._lost = lost
        self._out: dict[int, Delivery] = {}
        self._timer: Any = None
        self._stopped = False

    def add(self, number: int, delivery: Delivery) -> None:
        """The delivery of request ``number`` is out. It replaces a former one of the same request."""
        self._out[number] = delivery
        if self._timer is None and not self._stopped:
            self._timer = self._clock.callLater(self._seconds, self._check)

    def discard(self, number: int, delivery: Delivery) -> None:
        """The delivery is over."""
        if self._out.get(number) is delivery:
            del self._out[number]

    def get(self, number: int) -> Delivery | None:
        """The delivery of that request, if it is out."""
        return self._out.get(number)

    def __iter__(self) -> Iterator[tuple[int, Delivery]]:
        return iter(list(self._out.items()))

    def __len__(self) -> int:
        return len(self._out)

    def stop(self) -> None:
        """Keep no more leases."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _check(self) -> None:
        self._timer = None
        now = self._clock.seconds()
        for _, delivery in self:
            if delivery.lease_end <= now and delivery.lose():
                id, attempt = delivery.request.correlation_id, delivery.attempt
                self._log.warn("the lease on {id} was lost in attempt {attempt}", id=id, attempt=attempt)
                self._lost(delivery)
        if self._out and not self._stopped:
            soonest = min(delivery.lease_end for delivery in self._out.values())
            self._timer = self._clock.callLater(max(LEAST_SECONDS, soonest - now), self._check)
