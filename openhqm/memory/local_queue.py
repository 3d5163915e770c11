# -*- test-case-name: tests.queue.test_contracts -*-
"""One queue in memory: what is ready or delayed, the callers of `receive`, and the deliveries that are out."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any

import attrs
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.interfaces import IReactorTime

from openhqm.memory.dead_letters import DeadLetters
from openhqm.memory.results import MemoryResults
from openhqm.messages import DeadLetter, Depth, Priority, Reply, Request, Waiting
from openhqm.policy.shares import Shares
from openhqm.queue.delivery import Delivery, nothing
from openhqm.queue.leases import Leases
from openhqm.queue.waiters import Fetched, Waiters
from openhqm.runtime.timer_queue import TimerQueue


@attrs.define(eq=False)
class Message:
    """A request that waits in a queue or is out.

    ``at`` is when it was accepted, ``since`` when it began to wait: a delay is not waiting.
    """

    key: int
    request: Request
    priority: Priority
    at: float
    since: float
    attempt: int = 0


class LocalQueue:
    """The queue ``name``. A lease lasts ``lease`` seconds. Each of its `Steps` is done when it returns.

    ``waits`` is called with the time since when a request waits for its first attempt.
    """

    def __init__(
        self,
        results: MemoryResults,
        letters: DeadLetters,
        clock: IReactorTime,
        timers: TimerQueue,
        name: str,
        lease: float,
        waits: Callable[[float], None],
    ) -> None:
        self.clock = clock
        self.lease = lease
        self._results = results
        self._letters = letters
        self._timers = timers
        self._waits = waits
        # Heaps by key: a request that comes back stands before those that were accepted after it.
        self._ready: dict[Priority, list[tuple[int, Message]]] = {priority: [] for priority in Priority}
        self._unbegun: dict[Priority, OrderedDict[int, Message]] = {  # by `Message.since`
            priority: OrderedDict() for priority in Priority
        }
        self._shares = Shares(len(Priority))
        self._delayed: set[int] = set()
        self._retrying: set[int] = set()
        self.waiters = Waiters(name, clock, self._fetch)
        self._leases = Leases(clock, lease, self._lease_lost)
        self.receive = self.waiters.receive

    def stop(self) -> Deferred[Any]:
        """Deliver nothing more; the callers of `receive` are cancelled."""
        self._leases.stop()
        return self.waiters.stop()

    def put(self, message: Message, due: float) -> None:
        """Deliver the request from ``due`` on, by our clock."""
        if due <= self.clock.seconds():
            self._make_ready(message)
        else:
            self._delayed.add(message.key)
            self._timers.at(due, lambda: self._make_ready(message))

    def ended(self, key: int, status: str) -> None:
        """The request has ended, from whatever cause: the work on it is in vain."""
        for unbegun in self._unbegun.values():
            unbegun.pop(key, None)
        delivery = self._leases.get(key)
        if delivery is not None:
            delivery.revoke(status)
        elif key in self._retrying:
            self.waiters.wake()  # what waited behind it may be delivered

    def oldest(self) -> tuple[float, int] | None:
        """Since when the request waits that has waited longest for its first attempt, and its key."""
        firsts = [next(iter(unbegun.values())) for unbegun in self._unbegun.values() if unbegun]
        return min(((first.since, first.key) for first in firsts), default=None)

    def waiting(self) -> dict[Priority, Waiting]:
        """See `IMessageQueue.waiting`."""
        return {
            priority: Waiting(len(unbegun), next(iter(unbegun.values())).since if unbegun else None)
            for priority, unbegun in self._unbegun.items()
        }

    def depth(self) -> Depth:
        """See `IMessageQueue.depth`. Requests cancelled while they waited count until a fetch passes over them."""
        ready = [message.at for heap in self._ready.values() for _, message in heap]
        return Depth(len(ready), len(self._delayed), len(self._leases), min(ready, default=None))

    def _make_ready(self, message: Message) -> None:
        self._delayed.discard(message.key)
        self._retrying.discard(message.key)
        if message.attempt == 0 and not self._results.has_ended(message.key):
            self._unbegun[message.priority][message.key] = message
            self._waits(message.since)
        heappush(self._ready[message.priority], (message.key, message))
        self.waiters.wake()

    def _fetch(self, most: int, in_order: bool) -> Deferred[Fetched]:
        if in_order:
            if self._leases or any(not self._results.has_ended(key) for key in self._retrying):
                return succeed(Fetched([], more=False))
            most = 1
        deliveries: list[Delivery] = []
        heaps = list(self._ready.values())
        for index, share in self._shares.divide([bool(heap) for heap in heaps], most):
            enough = min(most, len(deliveries) + share)
            while heaps[index] and len(deliveries) < enough:
                _, message = heappop(heaps[index])
                if not self._results.has_ended(message.key):
                    deliveries.append(self._delivery(message))
        return succeed(Fetched(deliveries, more=len(deliveries) == most))

    def _delivery(self, message: Message) -> Delivery:
        self._unbegun[message.priority].pop(message.key, None)
        message.attempt += 1
        self._results.note_event(message.key, "processing", {"attempt": message.attempt})
        delivery = Delivery(message.request, message.attempt, self, message, self.clock.seconds() + self.lease)
        self._leases.add(message.key, delivery)
        return delivery

    def _lease_lost(self, delivery: Delivery) -> None:
        self.put(delivery.handle, self.clock.seconds())

    # Steps

    def retry(self, delivery: Delivery, delay: float, reason: str) -> Deferred[None]:
        """See `Steps.retry`."""
        message: Message = delivery.handle
        if not self._results.has_ended(message.key):
            due = self.clock.seconds() + delay
            detail = {"attempt": delivery.attempt, "next_attempt_at": due, "error": reason}
            self._results.note_event(message.key, "retrying", detail)
            self._retrying.add(message.key)
            self.put(message, due)
        return nothing()

    def release(self, delivery: Delivery) -> Deferred[None]:
        """See `Steps.release`."""
        message: Message = delivery.handle
        message.attempt -= 1
        self.put(message, self.clock.seconds())
        unbegun = self._unbegun[message.priority]
        if message.key in unbegun:  # it has waited since before the others
            unbegun.move_to_end(message.key, last=False)
        return nothing()

    def end(self, delivery: Delivery, reply: Reply, letter: DeadLetter | None) -> Deferred[bool]:
        """See `Steps.end`."""
        first = self._results.note_ending(delivery.handle.key, reply)
        if first and letter is not None:
            self._letters.add(self._results.with_attempts(delivery.handle.key, letter))
        return succeed(first)

    def acknowledge(self, delivery: Delivery) -> Deferred[None]:
        """See `Steps.acknowledge`: in memory nothing is left of a request that is neither ready nor delayed."""
        return nothing()

    def progress(self, delivery: Delivery, detail: dict[str, Any]) -> Deferred[None]:
        """See `Steps.progress`."""
        key: int = delivery.handle.key
        if self._results.has_ended(key):
            return nothing()
        return maybeDeferred(self._results.note_event, key, "progress", detail)

    def extend(self, delivery: Delivery) -> None:
        """Leases are kept by the delivery alone."""

    def closed(self, delivery: Delivery) -> None:
        """See `Steps.closed`."""
        self._leases.discard(delivery.handle.key, delivery)
        if self.waiters.in_order:
            self.waiters.wake()  # what waited behind it may be delivered
