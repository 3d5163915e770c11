# -*- test-case-name: tests.queue.test_waiters,tests.queue.test_contracts -*-
"""The callers of `receive` on one queue in this process, and when to fetch for them: one fetch at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import attrs
from twisted.internet.defer import CancelledError, Deferred, DeferredList, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from openhqm.errors import DeliveryClosed, NotDurable
from openhqm.interfaces import IDelivery

RETRY_SECONDS = 1.0
NEVER = float("inf")
Waiter = Deferred[Sequence[IDelivery]]


@attrs.frozen
class Fetched:
    """The deliveries of one fetch. ``more``: there may be more now. ``again``: when there will be, if that is known."""

    deliveries: Sequence[IDelivery]
    more: bool
    again: float = NEVER


class Waiters:
    """The waiters of the queue ``name``. ``shared`` are those of a shared queue that polls this one, if there is one.

    ``fetch`` is called with the most deliveries to take and whether in order. It fires with them and their attempts
    counted, or fails with `NotDurable` where that cannot be done now.
    """

    _log = Logger()

    def __init__(self, name: str, clock: IReactorTime, fetch: Callable[[int, bool], Deferred[Fetched]]) -> None:
        self._name = name
        self._clock = clock
        self._fetch = fetch
        self.shared: Waiters | None = None
        self._waiting: deque[tuple[int, bool, Waiter]] = deque()
        self._fetching = self._again = self._empty = self._stopped = False
        self._under_way: set[Deferred[Any]] = set()
        self._alarm: Any = None
        self._alarm_at = NEVER

    def __len__(self) -> int:
        return len(self._waiting) + (0 if self.shared is None else len(self.shared))

    @property
    def most(self) -> int:
        """How many deliveries all its own waiters together would take."""
        return sum(1 if in_order else most for most, in_order, _ in self._waiting)

    @property
    def in_order(self) -> bool:
        """Whether the next waiter wants one delivery after the other has ended."""
        return bool(self._waiting) and self._waiting[0][1]

    def receive(self, most: int, in_order: bool) -> Waiter:
        """See `IMessageQueue.receive`."""
        waiter: Waiter = Deferred(self._forget)
        self._waiting.append((most, in_order, waiter))
        if not self._empty:
            self._take()
        return waiter

    def wake(self) -> None:
        """There may be something to fetch. The caller has asked for the write that adds it before this call."""
        self._empty = False
        self._take()
        if self.shared is not None:
            self.shared.wake()

    @property
    def may_have_more(self) -> bool:
        """Whether a poll may bring something."""
        return not self._empty and not self._stopped

    def poll(self, most: int) -> Deferred[Sequence[IDelivery]]:
        """Fetch what there is now, for a caller that is not among the waiters: up to ``most``, or nothing.

        Where that is not possible now it brings nothing, and ``shared`` is woken when it is worth another try.
        """
        self._fetching, self._again = True, False
        fetched: Deferred[Any] = self._fetch(most, False)
        return fetched.addCallbacks(self._polled, self._could_not_poll)

    def _polled(self, found: Fetched) -> Sequence[IDelivery]:
        self._note(found)
        return found.deliveries

    def _could_not_poll(self, failure: Failure) -> Sequence[IDelivery]:
        self._could_not_fetch(failure)
        self._empty = True
        return ()

    def wake_at(self, due: float) -> None:
        """There will be something to fetch at ``due``, by our clock."""
        if due >= self._alarm_at or self._stopped:
            return
        if self._alarm is not None and self._alarm.active():
            self._alarm.cancel()
        self._alarm_at = due
        self._alarm = self._clock.callLater(max(0.0, due - self._clock.seconds()), self._ring)

    def stop(self) -> Deferred[Any]:
        """Fetch nothing more; each waiter is cancelled.

        Fires once every delivery that a fetch still brings is released, and does not fail. Until then ``fetch`` and
        `IDelivery.release` have to work.
        """
        self._stopped = True
        if self._alarm is not None and self._alarm.active():
            self._alarm.cancel()
        waiting, self._waiting = self._waiting, deque()
        for _, _, waiter in waiting:
            if not waiter.called:
                waiter.errback(CancelledError())
        return DeferredList(list(self._under_way))

    def _forget(self, waiter: Waiter) -> None:
        self._waiting = deque(entry for entry in self._waiting if entry[2] is not waiter)

    def _ring(self) -> None:
        self._alarm_at = NEVER
        self.wake()

    def _take(self) -> None:
        """Fetch for the waiter that has waited longest."""
        if self._fetching:
            self._again = True
        elif self._waiting and not self._stopped:
            self._fetching, self._again = True, False
            most, in_order, waiter = self._waiting[0]
            fetched = self._fetch(most, in_order).addCallback(self._fetched, waiter).addErrback(self._could_not_fetch)
            if not fetched.called or fetched.paused:
                self._under_way.add(fetched)
                fetched.addBoth(lambda _: self._under_way.remove(fetched))

    def _fetched(self, found: Fetched, waiter: Waiter) -> Deferred[Any]:
        """Fires once the deliveries are released whose waiter was cancelled in the meantime."""
        self._note(found)
        over: Deferred[Any] = succeed(None)
        if found.deliveries:
            if self._waiting and self._waiting[0][2] is waiter:
                self._waiting.popleft()
                waiter.callback(found.deliveries)
            else:  # their waiter was cancelled in the meantime, and never saw them
                over = DeferredList([each.release().addErrback(_not_released) for each in found.deliveries])
        if not self._empty:
            self._take()
        return over

    def _note(self, found: Fetched) -> None:
        self._fetching = False
        self._empty = not found.more and not self._again
        self.wake_at(found.again)

    def _could_not_fetch(self, failure: Failure) -> None:
        """Requests that were fetched nevertheless come back when their leases are over."""
        self._fetching = False
        if not failure.check(NotDurable):
            self._log.failure("fetching from {queue} failed", failure, queue=self._name)
        self.wake_at(self._clock.seconds() + RETRY_SECONDS)


def _not_released(failure: Failure) -> None:
    """The request comes back when its lease is over, or has come back already."""
    failure.trap(NotDurable, DeliveryClosed)
