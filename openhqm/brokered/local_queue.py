# -*- test-case-name: tests.brokered.test_brokered -*-
"""One group of queues of a broker as this process sees it: receivers, what was prefetched, and what is being worked on.

The ledger's step comes first, and decides. What the broker is told after it may get lost: then the message is delivered
again, and the ledger knows what it is worth.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import attrs
from twisted.internet.defer import Deferred, DeferredList, gatherResults, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from openhqm.brokered.messages import same_message
from openhqm.brokered.prefetch import Prefetch
from openhqm.brokered.prefetched import Prefetched
from openhqm.brokered.reader import Reader
from openhqm.errors import LeaseLost, NotDurable, OpenHQMError
from openhqm.interfaces import IBroker, IBrokerDelivery, IDelivery
from openhqm.messages import DeadLetter, Reply
from openhqm.queue.delivery import Delivery
from openhqm.queue.leases import Leases
from openhqm.queue.ledger import Attempt, Ledger
from openhqm.queue.waiters import NEVER, RETRY_SECONDS, Fetched, Waiter, Waiters
from openhqm.runtime.deferreds import deferred

T = TypeVar("T")

IDLE_SECONDS = 1.0
"""A process that has asked for nothing for so long leaves the messages to others."""
LONGEST_WAIT = 60.0
"""Nothing that is not being worked on stays unacknowledged in a broker for longer, nor for half its longest lease."""


class Handle(NamedTuple):
    """What settles a delivery: the attempt in the ledger, and the message of the broker."""

    attempt: Attempt
    message: Prefetched


class LocalQueue:
    """``name`` is the group's queue; its partitions are received from by their own names. ``requests`` is the request
    queue. ``restore`` makes a channel that is missing.
    """

    _log = Logger()

    def __init__(
        self,
        broker: IBroker,
        ledger: Ledger,
        clock: IReactorTime,
        *,
        name: str,
        requests: str,
        channels: Sequence[str],
        lease: float,
        restore: Callable[[str], Deferred[None]],
    ) -> None:
        self.clock = clock
        self.lease = lease
        self._broker = broker
        self._ledger = ledger
        self._name = name
        self._leases = Leases(clock, lease, self._lease_lost)
        self._reader = Reader(ledger, clock, name, requests, self._read_late)
        self._prefetch = Prefetch(broker, clock, channels, self._reader.read, self._arrived, restore)
        self._waiters: dict[str, Waiters] = {}
        self._beginning: dict[int, IBrokerDelivery] = {}
        self._ended_while_beginning: dict[int, str] = {}
        self._calls: set[Any] = set()
        self._asked_at = clock.seconds()
        self._idle: Any = None
        self._handing_back = self._postponing = self._stopped = False
        ledger.follow(name, self._ask_after_all)

    @property
    def warnings(self) -> Sequence[str]:
        """Why nothing comes from some channels although there is a connection; what in them is of another store."""
        found = [self._reader.aside.warning, *(source.warning for source in self._prefetch.sources)]
        return [warning for warning in found if warning is not None]

    def counts(self, queue: str) -> tuple[int, int]:
        """How many messages of the queue wait here to be begun, and how many are being worked on."""
        waiting = sum(each.queue == queue for each in self._prefetch)
        return waiting, sum(delivery.handle.message.queue == queue for _, delivery in self._leases)

    # Receiving

    def receive(self, queue: str, most: int) -> Waiter:
        """See `IMessageQueue.receive`."""
        waiters = self._waiters.get(queue)
        if waiters is None:
            waiters = self._waiters[queue] = Waiters(queue, self.clock, lambda most, _: self._fetch(queue, most))
        waiter = waiters.receive(most, False)
        self._want()
        return waiter

    def _want(self) -> None:
        most = sum(waiters.most for waiters in self._waiters.values())
        if most and not self._stopped and not self._handing_back:
            self._asked_at = self.clock.seconds()
            # A worker that is killed has used up an attempt of everything here, where no ledger knows better.
            self._prefetch.want(2 * most if self._ledger.complete else most)
            if self._idle is None:
                self._idle = self.clock.callLater(IDLE_SECONDS, self._look_idle)

    def _arrived(self, queue: str | None) -> None:
        """Something of the queue can be fetched; None: of any queue, or a channel can be consumed from again."""
        for name, waiters in list(self._waiters.items()):
            if queue in (None, name):
                waiters.wake()
        if queue is None:
            self._want()

    def _fetch(self, queue: str, most: int) -> Deferred[Fetched]:
        taken = self._prefetch.take(queue, most)
        if not taken:
            return succeed(Fetched((), more=False))
        begun = gatherResults([self._begin(each) for each in taken])
        return begun.addCallback(self._begun, queue)

    def _begun(self, begun: list[IDelivery | float | None], queue: str) -> Fetched:
        again = min((each for each in begun if isinstance(each, float)), default=NEVER)
        deliveries = [each for each in begun if each is not None and not isinstance(each, float)]
        return Fetched(deliveries, more=again == NEVER and self._prefetch.has(queue), again=again)

    def _read_late(self, each: Prefetched) -> None:
        if each.source.is_out(each.delivery):
            self._prefetch.put_back(each)

    # Beginning

    @deferred
    async def _begin(self, each: Prefetched) -> IDelivery | float | None:
        """A delivery; None: the message is worth nothing; a time: it cannot be begun before that, and waits here."""
        incoming, number = each.incoming, each.incoming.number
        if not each.source.is_out(each.delivery):
            return None
        if self._is_here(each):
            self._pass_over(each)
            return None
        self._beginning[number] = each.delivery
        try:
            begun = await self._ledger.begin(incoming)
        except Exception as error:
            if not isinstance(error, NotDurable):
                self._log.failure("beginning {id} broke down", id=incoming.request.correlation_id)
            if each.source.is_out(each.delivery):
                self._prefetch.put_back(each, wake=False)
            return self.clock.seconds() + RETRY_SECONDS
        finally:
            if self._beginning.get(number) is each.delivery:
                del self._beginning[number]
            ended = self._ended_while_beginning.pop(number, None)
        if begun is None:
            self._pass_over(each)
            return None
        handle = Handle(begun, each)
        delivery = Delivery(incoming.request, begun.attempt, self, handle, self.clock.seconds() + self.lease)
        self._leases.add(number, delivery)
        if ended is not None:
            delivery.revoke(ended)
        each.delivery.revoked.addCallback(self._revoked, delivery)  # maybe at once
        return delivery

    def _is_here(self, each: Prefetched) -> bool:
        """Whether a message that is worth as much is in work in this process: then this one is one too many.

        One that the broker has revoked is not: this may be the same message, delivered again.
        """
        number = each.incoming.number
        delivery = self._leases.get(number)
        others = [self._beginning.get(number)]
        if delivery is not None and delivery.handle.message.incoming.generation >= each.incoming.generation:
            others.append(delivery.handle.message.delivery)
        return any(other is not None and not other.revoked.called for other in others)

    def _pass_over(self, each: Prefetched) -> None:
        id, generation = each.incoming.request.correlation_id, each.incoming.generation
        self._log.debug("an older message of {id} is passed over", id=id, generation=generation)
        each.source.done(each.delivery)

    def _revoked(self, reason: str, delivery: Delivery) -> str:
        if delivery.lose():
            self._ledger.returned(delivery.handle.attempt)
        return reason

    # What settles a delivery (`openhqm.queue.delivery.Steps`)

    def retry(self, delivery: Delivery, delay: float, reason: str) -> Deferred[None]:
        """See `Steps.retry`."""
        handle = delivery.handle
        step = self._ledger.retry(handle.attempt, handle.message.incoming.body, delay, reason)
        return self._settle(delivery, step)

    def end(self, delivery: Delivery, reply: Reply, letter: DeadLetter | None) -> Deferred[bool]:
        """See `Steps.end`."""
        return self._settle(delivery, self._ledger.end(delivery.handle.attempt, reply, letter))

    def acknowledge(self, delivery: Delivery) -> Deferred[None]:
        """See `Steps.acknowledge`."""
        return self._settle(delivery, self._ledger.let_go(delivery.handle.attempt))

    def release(self, delivery: Delivery) -> Deferred[None]:
        """See `Steps.release`."""
        released = self._ledger.release(delivery.handle.attempt)
        return released.addCallbacks(self._released, self._not_settled, (delivery,), errbackArgs=(delivery,))

    def _released(self, same: bool, delivery: Delivery) -> Deferred[None] | None:
        if not same:
            return self._settled(None, delivery)
        self.closed(delivery)  # before the message comes again
        return self._deliver_again(delivery.handle.message, attempts=delivery.attempt - 1)

    def _settle(self, delivery: Delivery, step: Deferred[T]) -> Deferred[T]:
        return step.addCallbacks(self._settled, self._not_settled, (delivery,), errbackArgs=(delivery,))

    def _settled(self, result: T, delivery: Delivery) -> T:
        self.closed(delivery)  # before another message of the request can come
        message = delivery.handle.message
        message.source.done(message.delivery)
        return result

    def _not_settled(self, failure: Failure, delivery: Delivery) -> Failure:
        message = delivery.handle.message
        if failure.check(LeaseLost):
            # A later attempt is under way elsewhere, and may need this message if it fails: not now, and not never.
            self._later(self.lease, lambda: self._read_late(message))
        elif message.delivery.revoked.called:  # nothing of it is stored, and another process may have the message
            self._later(0, delivery.lose)
        return failure

    def progress(self, delivery: Delivery, detail: dict[str, Any]) -> Deferred[None]:
        """See `Steps.progress`."""
        return self._ledger.note_progress(delivery.handle.attempt, detail)

    def extend(self, delivery: Delivery) -> None:
        """The lease is this process's own; the broker's is extended for as long as the message is out."""

    def closed(self, delivery: Delivery) -> None:
        """See `Steps.closed`."""
        self._leases.discard(delivery.handle.attempt.number, delivery)

    def _deliver_again(self, each: Prefetched, attempts: int | None = None) -> Deferred[None]:
        """Let the same message be delivered again: to any process, or where the product cannot do that, to this one.

        ``attempts`` is how many have been made. None: the broker counts one more where that counts.
        """
        if attempts is not None and self._ledger.counts_redeliveries:
            return each.source.republish(
                each.delivery, same_message(each.incoming, each.delivery.message.key, attempts)
            )
        if self._broker.traits.requeues:
            each.source.requeue(each.delivery)
        elif each.source.is_out(each.delivery) and not self._stopped:
            if attempts is None:
                each.incoming = attrs.evolve(each.incoming, redeliveries=each.incoming.redeliveries + 1)
            self._prefetch.put_back(each)
        return succeed(None)

    # Endings and leases

    def ended(self, number: int, status: str) -> None:
        """The request has ended; its worker may stop."""
        if number in self._beginning:
            self._ended_while_beginning[number] = status
        delivery = self._leases.get(number)
        if delivery is not None:
            delivery.revoke(status)

    def _ask_after_all(self) -> None:
        """An ending may have been missed."""
        for number, _ in self._leases:
            self._ask_after(number).addErrback(_ask_later)

    @deferred
    async def _ask_after(self, number: int) -> None:
        status = await self._ledger.ending(number)
        if status is not None:
            self.ended(number, status)

    def _lease_lost(self, delivery: Delivery) -> None:
        """Its handler did not extend the lease: the message is delivered again, and the attempt counts."""
        message = delivery.handle.message
        if message.source.is_out(message.delivery):
            self._ledger.returned(delivery.handle.attempt)
            self._deliver_again(message)

    # The end of asking

    def _look_idle(self) -> None:
        self._idle = None
        if self._stopped:
            return
        if any(self._waiters.values()):
            self._asked_at = self.clock.seconds()
        if self.clock.seconds() - self._asked_at >= IDLE_SECONDS:
            self._hand_back()
        else:
            self._idle = self.clock.callLater(IDLE_SECONDS, self._look_idle)

    def _hand_back(self) -> Deferred[Any]:
        """No request is asked for here: other processes may have what was prefetched, where there are any.

        What is requeued before the broker delivers nothing more would come back here.
        """
        ledger = self._ledger
        keeps = ledger.keeps_unbegun or (ledger.complete and not self._broker.traits.requeues)
        if keeps and not self._stopped:
            self._prefetch.pause()
            self._postpone_later()
            return succeed(None)
        self._handing_back = True
        return self._prefetch.stop().addCallback(self._handed_back)

    def _handed_back(self, result: Any) -> Deferred[Any]:
        self._handing_back = False
        if any(self._waiters.values()) and not self._stopped:
            self._want()
            return succeed(None)
        unwanted = list(self._prefetch)
        for each in unwanted:
            self._prefetch.remove(each)
        again = [self._deliver_again(each, each.incoming.attempts + each.incoming.redeliveries) for each in unwanted]
        return DeferredList(again)

    def _postpone_later(self) -> None:
        """What is kept here does not wait in the broker for ever: it goes into the outbox, for any process."""
        ages = [each.source.age(each.delivery) for each in self._prefetch]
        if not self._postponing:
            self._postponing = True
            self._later(max(RETRY_SECONDS, self._longest_wait - max(ages, default=0.0)), self._postpone_unwanted)

    def _postpone_unwanted(self) -> None:
        self._postponing = False
        if any(self._waiters.values()):
            return
        for each in list(self._prefetch):
            if each.source.age(each.delivery) >= self._longest_wait:
                self._prefetch.remove(each)
                postponed = self._ledger.postpone(each.incoming, 0.0)
                postponed.addCallbacks(self._postponed, self._not_postponed, (each,), errbackArgs=(each,))
        if any(self._prefetch):
            self._postpone_later()

    @property
    def _longest_wait(self) -> float:
        return min(LONGEST_WAIT, (self._broker.traits.longest_lease_seconds or NEVER) / 2)

    def _postponed(self, worth_it: bool, each: Prefetched) -> None:
        each.source.done(each.delivery)

    def _not_postponed(self, failure: Failure, each: Prefetched) -> None:
        failure.trap(NotDurable)
        self._read_late(each)

    def stop(self) -> Deferred[Any]:
        """Deliver nothing more; each receiver is cancelled. It does not fail.

        Fires once nothing is being begun any more. What is out is delivered again when the connection ends.
        """
        self._stopped = True
        begun = DeferredList([waiters.stop() for waiters in self._waiters.values()])
        return begun.addCallback(lambda _: self._hand_back()).addCallback(lambda _: self._close())

    def _close(self) -> None:
        self._leases.stop()
        self._reader.aside.stop()
        for source in self._prefetch.sources:
            source.close()
        for call in (*self._calls, self._idle):
            if call is not None and call.active():
                call.cancel()

    def _later(self, seconds: float, call: Callable[[], object]) -> None:
        if self._stopped:
            return

        def ring() -> None:
            self._calls.discard(timer)
            call()

        timer = self.clock.callLater(seconds, ring)
        self._calls.add(timer)


def _ask_later(failure: Failure) -> None:
    """The store cannot be asked now, or does not know the request any more: its next step will tell."""
    failure.trap(OpenHQMError)
