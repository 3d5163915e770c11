# -*- test-case-name: tests.queue.test_contracts -*-
"""The queue in memory: the same semantics as every other, and gone with the process."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

import attrs
from twisted.internet.defer import CancelledError, Deferred, fail, maybeDeferred, succeed
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from openhqm.errors import DeliveryClosed, IdempotencyConflict, NotDurable, UnknownRequest
from openhqm.interfaces import IDelivery, IMessageQueue, QueueTraits
from openhqm.memory.ledger import Ledger
from openhqm.messages import (
    Acceptance,
    DeadLetter,
    Depth,
    IdempotencyClaim,
    Priority,
    Reply,
    Request,
    Submission,
)
from openhqm.policy.ids import CorrelationIds
from openhqm.policy.queue_names import holds_requests, queue_of
from openhqm.policy.redrive import redriven
from openhqm.runtime.timer_queue import TimerQueue

TRAITS = QueueTraits(durable=False, ordered=True, native_priority=True, atomic_settle=True)
MOST_REQUESTS = 100_000


@attrs.define(eq=False)
class _Message:
    key: int
    request: Request
    priority: Priority
    at: float
    attempt: int = 0


class _Place:
    """One queue."""

    def __init__(self) -> None:
        self.ready: dict[Priority, deque[_Message]] = {priority: deque() for priority in Priority}
        self.delayed: set[int] = set()
        self.retrying: set[int] = set()
        self.loans: dict[int, MemoryDelivery] = {}
        self.waiting: deque[tuple[int, bool, Deferred[Sequence[IDelivery]]]] = deque()

    def forget_waiter(self, waiter: Deferred[Sequence[IDelivery]]) -> None:
        self.waiting = deque(entry for entry in self.waiting if entry[2] is not waiter)


@implementer(IMessageQueue)
class MemoryQueue:
    """Queues in memory. A loan that is not extended for ``lease`` seconds is lent anew."""

    traits = TRAITS
    warnings: Sequence[str] = ()

    def __init__(
        self,
        ledger: Ledger,
        clock: IReactorTime,
        ids: CorrelationIds,
        *,
        requests: str,
        dead_letters: str,
        lease: float = 60.0,
    ) -> None:
        self.ledger = ledger
        self.clock = clock
        self.timers = TimerQueue(clock)
        self.requests = requests
        self._dead_letters = dead_letters
        self.lease = lease
        self.unavailable_reason: str | None = None
        self._ids = ids
        self._keys = count(1)
        self._places: dict[str, _Place] = {}
        self._letters: dict[int, DeadLetter] = {}
        self._letter_numbers = count(1)
        self._claims: dict[tuple[str, str], tuple[bytes, Acceptance]] = {}
        ledger.on_ending.append(self._ended)

    def start(self) -> Deferred[None]:
        return succeed(None)

    def stop(self) -> Deferred[None]:
        self.timers.stop()
        for place in self._places.values():
            waiting, place.waiting = place.waiting, deque()
            for _, _, waiter in waiting:
                waiter.errback(CancelledError())
        return succeed(None)

    def accept(self, submission: Submission, claim: IdempotencyClaim | None) -> Deferred[Acceptance]:
        return maybeDeferred(self._accept, submission, claim)

    def _accept(self, submission: Submission, claim: IdempotencyClaim | None) -> Acceptance:
        if claim is not None and (claim.scope, claim.key) in self._claims:
            fingerprint, first = self._claims[claim.scope, claim.key]
            if fingerprint != claim.fingerprint:
                raise IdempotencyConflict(claim.key)
            return attrs.evolve(first, replayed=True)
        if len(self.ledger) >= MOST_REQUESTS:
            raise NotDurable(f"the memory queue holds {MOST_REQUESTS} requests and takes no more")
        now = self.clock.seconds()
        key = next(self._keys)
        request = Request(self._ids.issue(key), now, submission)
        self.ledger.note_request(key, now, request.deadline)
        acceptance = Acceptance(request.correlation_id, now)
        if claim is not None:
            claim_key = (claim.scope, claim.key)
            self._claims[claim_key] = (claim.fingerprint, acceptance)
            self.timers.at(now + claim.lifetime, lambda: self._forget_claim(claim_key))
        # Within a partition the oldest goes first, whatever its priority.
        priority = submission.priority if submission.partition is None else Priority.NORMAL
        message = _Message(key, request, priority, now)
        self._put(queue_of(self.requests, submission), message, submission.not_before or now)
        return acceptance

    def publish(self, queue: str, message: Request, *, priority: Priority, delay: float) -> Deferred[None]:
        now = self.clock.seconds()
        self._put(queue, _Message(next(self._keys), message, priority, now), now + delay)
        return succeed(None)

    def receive(self, queue: str, most: int, *, in_order: bool = False) -> Deferred[Sequence[IDelivery]]:
        place = self._place(queue)
        waiter: Deferred[Sequence[IDelivery]] = Deferred(place.forget_waiter)
        place.waiting.append((most, in_order, waiter))
        self.lend(queue)
        return waiter

    def queues(self) -> Deferred[Sequence[str]]:
        return succeed(list(self._places))

    def depth(self, queue: str) -> Deferred[Depth]:
        return succeed(self._depth(queue))

    def _depth(self, queue: str) -> Depth:
        if queue == self._dead_letters:
            buried = [letter.at for letter in self._letters.values()]
            return Depth(len(buried), 0, 0, min(buried) if buried else None)
        place = self._place(queue)
        ready = [message.at for lane in place.ready.values() for message in lane]
        return Depth(len(ready), len(place.delayed), len(place.loans), min(ready) if ready else None)

    def dead_letters(self, after: int, most: int) -> Deferred[Sequence[tuple[int, DeadLetter]]]:
        return succeed([entry for entry in self._letters.items() if entry[0] > after][:most])

    def redrive(self, number: int) -> Deferred[Acceptance]:
        letter = self._letters.get(number)
        if letter is None:
            return fail(UnknownRequest(f"dead letter {number}"))
        accepted = maybeDeferred(self._accept, redriven(letter), None)
        del self._letters[number]
        return accepted

    def _forget_claim(self, key: tuple[str, str]) -> None:
        del self._claims[key]

    def bury(self, letter: DeadLetter) -> None:
        """Add a dead letter."""
        self._letters[next(self._letter_numbers)] = letter

    def put_back(self, queue: str, message: _Message, due: float) -> None:
        """The loan is over, the work is not."""
        place = self._place(queue)
        place.loans.pop(message.key, None)
        if message.attempt:
            place.retrying.add(message.key)
        self._put(queue, message, due, first=message.request.submission.partition is not None)

    def finish(self, queue: str, message: _Message) -> None:
        """The loan and the work are over."""
        self._place(queue).loans.pop(message.key, None)

    def _put(self, queue: str, message: _Message, due: float, first: bool = False) -> None:
        place = self._place(queue)

        def ready() -> None:
            place.delayed.discard(message.key)
            place.retrying.discard(message.key)
            lane = place.ready[message.priority]
            lane.appendleft(message) if first else lane.append(message)
            self.lend(queue)

        if due > self.clock.seconds():
            place.delayed.add(message.key)
            self.timers.at(due, ready)
        else:
            ready()

    def lend(self, queue: str) -> None:
        """Give what is ready to whoever waits for it."""
        place = self._place(queue)
        while place.waiting:
            most, in_order, waiter = place.waiting[0]
            if in_order:
                if place.loans or any(not self.ledger.has_ended(key) for key in place.retrying):
                    return
                most = 1
            deliveries: list[IDelivery] = []
            for lane in place.ready.values():
                while lane and len(deliveries) < most:
                    message = lane.popleft()
                    if not holds_requests(self.requests, queue) or not self.ledger.has_ended(message.key):
                        deliveries.append(self._loan(queue, place, message))
            if not deliveries:
                return
            place.waiting.popleft()
            waiter.callback(deliveries)

    def _loan(self, queue: str, place: _Place, message: _Message) -> MemoryDelivery:
        message.attempt += 1
        if holds_requests(self.requests, queue):
            self.ledger.note_event(message.key, "processing", {"attempt": message.attempt})
        delivery = place.loans[message.key] = MemoryDelivery(self, queue, message)
        self.timers.at(delivery.lease_end, delivery.check_lease)
        return delivery

    def _place(self, queue: str) -> _Place:
        return self._places.setdefault(queue, _Place())

    def _ended(self, key: int, status: str) -> None:
        for name, place in self._places.items():
            if key in place.loans:
                place.loans[key].revoke(status)
            elif key in place.retrying:
                self.lend(name)  # what waited behind it may go


@implementer(IDelivery)
class MemoryDelivery:
    """A request on loan from memory."""

    def __init__(self, queue: MemoryQueue, name: str, message: _Message) -> None:
        self.request = message.request
        self.attempt = message.attempt
        self.revoked: Deferred[str] = Deferred()
        self.lease_end = queue.clock.seconds() + queue.lease
        self._queue = queue
        self._name = name
        self._message = message
        self._recorded = holds_requests(queue.requests, name)
        self._over: str | None = None

    def extend(self) -> None:
        self.lease_end = self._queue.clock.seconds() + self._queue.lease

    def progress(self, detail: dict[str, Any]) -> Deferred[None]:
        if not self._recorded:
            return succeed(None)
        detail = {**detail, "attempt": self.attempt}
        return maybeDeferred(self._queue.ledger.note_event, self._message.key, "progress", detail)

    def ack(self) -> Deferred[None]:
        return self._settle(lambda: self._queue.finish(self._name, self._message))

    def retry(self, delay: float, reason: str) -> Deferred[None]:
        due = self._queue.clock.seconds() + delay

        def hold() -> None:
            if self._recorded and not self._queue.ledger.has_ended(self._message.key):
                detail = {"attempt": self.attempt, "next_attempt_at": due, "error": reason}
                self._queue.ledger.note_event(self._message.key, "retrying", detail)
            self._queue.put_back(self._name, self._message, due)

        return self._settle(hold)

    def release(self) -> Deferred[None]:
        def put_back() -> None:
            self._message.attempt -= 1
            self._queue.put_back(self._name, self._message, self._queue.clock.seconds())

        return self._settle(put_back)

    def settle(self, reply: Reply) -> Deferred[bool]:
        return self._settle(lambda: self._end(reply, None))

    def dead_letter(self, reason: str, reply: Reply) -> Deferred[bool]:
        letter = DeadLetter(self.request, reason, reply, self._queue.clock.seconds())
        return self._settle(lambda: self._end(reply, letter))

    def _end(self, reply: Reply, letter: DeadLetter | None) -> bool:
        self._queue.finish(self._name, self._message)
        first = not self._recorded or self._queue.ledger.note_ending(self._message.key, reply)
        if first and letter is not None:
            self._queue.bury(letter)
        return first

    def _settle(self, step: Callable[[], Any]) -> Deferred[Any]:
        if self._over is not None:
            return fail(DeliveryClosed(self.request.correlation_id, self._over))
        self._over = "it was settled before"
        return maybeDeferred(self._take_step, step)

    def _take_step(self, step: Callable[[], Any]) -> Any:
        result = step()
        self._queue.lend(self._name)
        return result

    def revoke(self, reason: str) -> None:
        """The work is in vain; settling is still allowed, and takes the message away."""
        if not self.revoked.called and self._over is None:
            self.revoked.callback(reason)

    def check_lease(self) -> None:
        """Lend it anew where the lease ran out."""
        if self._over is not None:
            return
        if self.lease_end > self._queue.clock.seconds():
            self._queue.timers.at(self.lease_end, self.check_lease)
            return
        self._over = "its lease was lost"
        self._queue.put_back(self._name, self._message, self._queue.clock.seconds())
        if not self.revoked.called:
            self.revoked.callback("lease lost")
