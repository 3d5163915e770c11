# -*- test-case-name: tests.brokered.test_brokered -*-
"""One group of queues of a broker as this process sees it: receivers, what was prefetched, and what is being worked on.

The ledger's step comes first, and decides. What the broker is told after it may get lost: then the message is delivered
again, and the ledger knows what it is worth.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple, TypeVar

from msgspec.structs import replace
from twisted.internet.defer import Deferred, DeferredList, gatherResults, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from openhqm.brokered.beginnings import Beginnings
from openhqm.brokered.leftovers import Leftovers
from openhqm.brokered.messages import same_message
from openhqm.brokered.prefetch import Prefetch
from openhqm.brokered.prefetched import Prefetched
from openhqm.brokered.reader import Reader
from openhqm.brokered.redeliveries import Redeliveries
from openhqm.brokered.source import Recovery
from openhqm.errors import LeaseLost, NotDurable, OpenHQMError
from openhqm.interfaces import IBroker, IDelivery, IShares
from openhqm.messages import DeadLetter, Reply, Waiting
from openhqm.policy.queue_names import share_of
from openhqm.queue.delivery import Delivery
from openhqm.queue.leases import Leases
from openhqm.queue.ledger import Attempt, Ledger
from openhqm.queue.sharing import SharedQueue
from openhqm.queue.waiters import NEVER, RETRY_SECONDS, Fetched, Waiter, Waiters
from openhqm.runtime.deferreds import deferred
from openhqm.runtime.timer_queue import TimerQueue

T = TypeVar("T")


class Handle(NamedTuple):
    """What settles a delivery: the attempt in the ledger, and the message of the broker."""

    attempt: Attempt
    message: Prefetched


class LocalQueue:
    """``name`` is the group's queue; its partitions are received from by their own names. ``requests`` is the request
    queue. ``losses`` makes a channel that is missing.
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
        losses: Recovery,
        redeliveries: Redeliveries,
    ) -> None:
        self.clock = clock
        self._redeliveries = redeliveries
        self.lease = lease
        self._broker = broker
        self._ledger = ledger
        self._name = name
        self._leases = Leases(clock, lease, self._lease_lost)
        self._timers = TimerQueue(clock)
        self._waiters: dict[str, Waiters] = {}
        asks = self._waiters.__contains__
        self._reader = Reader(ledger, clock, self._timers, name, requests, self._put_back, asks)
        self._shared = SharedQueue(name, clock, self._waiters_of)
        self._prefetch = Prefetch(
            broker,
            clock,
            channels,
            self._reader.read,
            self._arrived,
            losses,
            asks,
            ahead=not ledger.counts_redeliveries,
        )
        self._leftovers = Leftovers(
            broker, ledger, clock, self._prefetch, self._waiters, self._want, self._deliver_again, self._put_back
        )
        self._beginnings = Beginnings()
        self._stopped = False

    @property
    def warnings(self) -> Sequence[str]:
        """Why nothing comes from some channels although there is a connection; what in them is of another store."""
        found = [self._reader.aside.warning, *(source.warning for source in self._prefetch.sources)]
        return [warning for warning in found if warning is not None]

    def counts(self, queue: str, channel: str | None = None) -> tuple[int, int]:
        """How many messages of the queue, from that channel or all, wait here to be begun, and are being worked on."""

        def is_counted(each: Prefetched) -> bool:
            return each.queue == queue and channel in (None, each.source.channel)

        return sum(map(is_counted, self._prefetch)), sum(is_counted(each.handle.message) for _, each in self._leases)

    def waiting(self, queue: str) -> list[Waiting]:
        """What waits here for its first attempt, of each priority that has a channel, high first."""
        found = []
        for line in self._prefetch.lines(queue):
            since = [each.incoming.request.submitted_at for each in line if each.incoming.attempts == 0]
            found.append(Waiting(len(line), self._ledger.to_ours(min(since)) if since else None))
        return found

    def quiet_seconds(self, channel: str) -> float:
        """For how long a message that lies in the channel would have come here, and none came.

        Where other processes may receive it, that cannot be told: it may be in the hands of one of them.
        """
        sources = [source for source in self._prefetch.sources if source.channel == channel and self._ledger.alone]
        return max((source.quiet_seconds for source in sources), default=0.0)

    # Receiving

    def receive(self, queue: str, most: int) -> Waiter:
        """See `IMessageQueue.receive`."""
        waiter = self._waiters_of(queue).receive(most, False)
        self._leftovers.asked(queue)
        self._want()
        return waiter

    def receive_shared(self, most: int, shares: IShares) -> Waiter:
        """The same of the group's queue and those beside it: of what was prefetched, whose it is is known."""
        waiter = self._shared.receive(most, shares)
        for name in shares.names:
            self._leftovers.asked(share_of(self._name, name))
        self._want()
        return waiter

    def _waiters_of(self, queue: str) -> Waiters:
        waiters = self._waiters.get(queue)
        if waiters is None:
            waiters = self._waiters[queue] = Waiters(queue, self.clock, lambda most, _: self._fetch(queue, most))
            self._ledger.follow(queue, partial(self._ask_after_all, queue))
        return waiters

    def _want(self) -> None:
        most = self._shared.waiters.most + sum(waiters.most for waiters in self._waiters.values())
        if most and not self._stopped and not self._leftovers.handing_back:
            self._prefetch.want(most)

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

    def _begun(self, begun: list[Delivery | Prefetched | None], queue: str) -> Fetched:
        failed = [each for each in begun if isinstance(each, Prefetched)]
        for each in reversed(failed):
            if each.source.is_out(each.delivery):
                self._prefetch.put_back(each)
        again = self.clock.seconds() + RETRY_SECONDS if failed else NEVER
        deliveries: list[IDelivery] = [each for each in begun if isinstance(each, Delivery)]
        return Fetched(deliveries, more=not failed and self._prefetch.has(queue), again=again)

    def _put_back(self, each: Prefetched) -> None:
        """It is to be begun, if the broker has not taken it back."""
        if each.source.is_out(each.delivery) and not self._stopped:
            self._prefetch.put_back(each)
            self._leftovers.watch()
            self._arrived(each.queue)

    @deferred
    async def _begin(self, each: Prefetched) -> Delivery | Prefetched | None:
        """A delivery; None: the message is worth nothing; the message itself: it cannot be begun now."""
        incoming = each.incoming
        if not each.source.is_out(each.delivery):
            return None
        if self._is_here(each):
            self._redeliveries.count()
            self._pass_over(each)
            return None
        beginning = self._beginnings.add(each)
        try:
            begun = await self._ledger.begin(incoming)
        except Exception as error:
            if not isinstance(error, NotDurable):
                self._log.failure("beginning {id} broke down", id=incoming.request.correlation_id)
            return each
        finally:
            self._beginnings.remove(beginning)
        if begun is None:
            self._redeliveries.worth_nothing(incoming)
            self._pass_over(each)
            return None
        self._redeliveries.begun(incoming, begun)
        handle = Handle(begun, each)
        # The message says when the store accepted it, by its clock. The worker compares that with its own.
        request = replace(incoming.request, submitted_at=self._ledger.to_ours(incoming.request.submitted_at))
        delivery = Delivery(request, begun.attempt, self, handle, self.clock.seconds() + self.lease)
        self._leases.add(incoming.number, delivery)
        if beginning.ended is not None:
            delivery.revoke(beginning.ended)
        each.delivery.revoked.addCallback(self._revoked, delivery)  # maybe at once
        return delivery

    def _is_here(self, each: Prefetched) -> bool:
        """Whether a message that is worth as much is in work in this process: then this one is one too many.

        One that the broker has revoked is not: this may be the same message, delivered again.
        """
        others = self._beginnings.messages(each.incoming.number)
        delivery = self._leases.get(each.incoming.number)
        if delivery is not None:
            others.append(delivery.handle.message)
        return any(
            other.incoming.generation >= each.incoming.generation and not other.delivery.revoked.called
            for other in others
        )

    def _pass_over(self, each: Prefetched) -> None:
        id, generation = each.incoming.request.correlation_id, each.incoming.generation
        self._log.debug("an older message of {id} is passed over", id=id, generation=generation)
        each.source.done(each.delivery)

    def _revoked(self, reason: str, delivery: Delivery) -> str:
        self._lost_at_the_broker(delivery)
        return reason

    def _lost_at_the_broker(self, delivery: Delivery) -> None:
        if delivery.lose():
            self._ledger.returned(delivery.handle.attempt)

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
            self._timers.at(self.clock.seconds() + self.lease, partial(self._put_back, message))
        elif message.delivery.revoked.called:  # nothing of it is stored, and another process may have the message
            self._timers.at(self.clock.seconds(), lambda: self._lost_at_the_broker(delivery))
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
        else:
            if attempts is None:
                each.incoming = replace(each.incoming, redeliveries=each.incoming.redeliveries + 1)
            self._put_back(each)
        return succeed(None)

    # Endings and leases

    def ended(self, number: int, status: str) -> None:
        """The request has ended; its worker may stop."""
        self._beginnings.ended(number, status)
        delivery = self._leases.get(number)
        if delivery is not None:
            delivery.revoke(status)

    def _ask_after_all(self, queue: str) -> None:
        """An ending of a request of that queue may have been missed."""
        for number in [number for number, each in self._leases if each.handle.message.queue == queue]:
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

    def stop(self) -> Deferred[Any]:
        """Deliver nothing more; each receiver is cancelled. It does not fail.

        Fires once nothing is being begun any more. What is out is delivered again when the connection ends.
        """
        self._stopped = True
        begun = self._shared.waiters.stop().addCallback(
            lambda _: DeferredList([waiters.stop() for waiters in self._waiters.values()])
        )
        return begun.addCallback(lambda _: self._leftovers.stop()).addCallback(lambda _: self._close())

    def _close(self) -> None:
        self._leases.stop()
        self._timers.stop()
        self._reader.aside.stop()
        for source in self._prefetch.sources:
            source.close()


def _ask_later(failure: Failure) -> None:
    """The store cannot be asked now, or does not know the request any more: its next step will tell."""
    failure.trap(OpenHQMError)
