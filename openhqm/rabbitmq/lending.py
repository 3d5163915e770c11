# -*- test-case-name: tests.rabbitmq.test_lending,tests.rabbitmq.test_rabbitmq -*-
"""Lending from one queue: who waits for work in this process, and what has come for them.

RabbitMQ sends what it has as soon as somebody consumes, lane by lane. So that what is urgent goes first, nothing is
lent after a beginning before that which lay there has had the time to arrive.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import attrs
from twisted.internet.defer import CancelledError, Deferred, DeferredList, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from openhqm.errors import NotDurable
from openhqm.interfaces.legacy import IBrokerDelivery
from openhqm.rabbitmq.consuming import Consumers
from openhqm.rabbitmq.delivery import RabbitMQDelivery
from openhqm.rabbitmq.topology import Topology

ARRIVE_SECONDS = 0.5
IDLE_SECONDS = 1.0
RETRY_SECONDS = 1.0
HELD_SECONDS = 0.3
"""The delay queues let go of a message earlier than that before its time."""
MOST_PREFETCHED = 2000
"""A quorum queue has no more on its way to one consumer."""
Waiter = Deferred[Sequence[IBrokerDelivery]]
PassOn = Callable[[RabbitMQDelivery, float, int], Deferred[None]]


@attrs.define(eq=False)
class _Expected:
    count: int


class Place:
    """``lanes`` in the order in which they are worked off. ``single``: one message at a time.

    ``pass_on`` delays what has come too early once more. ``clock`` is what due times are compared with; each of its
    seconds takes ``scale`` seconds in RabbitMQ. ``without_answer`` is called when a lane gives none: see `Consumers`.
    ``patient``: what has come stays here while anything is out, and is handed on without being counted as returned.
    """

    def __init__(
        self,
        queue: str,
        lanes: Sequence[str],
        single: bool,
        topology: Topology,
        reactor: Any,
        clock: IReactorTime,
        scale: float,
        pass_on: PassOn,
        without_answer: Callable[[], None],
        patient: bool = False,
    ) -> None:
        self._single = single
        self._patient = patient
        self._reactor = reactor
        self._clock = clock
        self._scale = scale
        self._pass_on = pass_on
        self.without_answer = without_answer
        self._consumers = [Consumers(rank, lane, topology, reactor, self) for rank, lane in enumerate(lanes)]
        self._waiting: deque[tuple[int, Waiter]] = deque()
        self._arrived: tuple[deque[RabbitMQDelivery], ...] = tuple(deque() for _ in lanes)
        self._expected: dict[int, _Expected] = {}
        self._loans: tuple[set[RabbitMQDelivery], ...] = tuple(set() for _ in lanes)
        self._held: set[RabbitMQDelivery] = set()
        self._stopped = False
        self._calls: set[Any] = set()
        self._idle: Any = None
        self._lending: Any = None

    @property
    def arrived(self) -> int:
        """How many wait here for somebody."""
        return sum(len(lane) for lane in self._arrived)

    @property
    def held(self) -> int:
        """How many wait here for the last moment of their delay."""
        return len(self._held)

    @property
    def on_loan(self) -> int:
        """How many are out."""
        return sum(len(lane) for lane in self._loans) - self.arrived - self.held

    @property
    def troubles(self) -> list[str]:
        """Why nothing can be lent from some lanes although there is a connection."""
        return [each.unavailable_reason for each in self._consumers if each.unavailable_reason is not None]

    def up(self, protocol: Any, apart: bool = False) -> None:
        """There is a connection."""
        for each in self._consumers:
            each.up(protocol, apart)

    def down(self, reason: str, apart: bool = False) -> None:
        """It is gone."""
        for each in self._consumers:
            each.down(reason, apart)

    def receive(self, most: int) -> Waiter:
        """See `IBroker.receive`."""
        waiter: Waiter = Deferred(self._forget_waiter)
        self._waiting.append((1 if self._single else most, waiter))
        self._lend()
        self.ready()
        return waiter

    def _forget_waiter(self, waiter: Waiter) -> None:
        self._waiting = deque(entry for entry in self._waiting if entry[1] is not waiter)
        self._lend()

    def stop(self) -> None:
        """Lend nothing more."""
        self._stopped = True
        for each in self._consumers:
            each.stop()
        for call in (*self._calls, self._idle, self._lending):
            if call is not None and call.active():
                call.cancel()
        waiting, self._waiting = self._waiting, deque()
        for _, waiter in waiting:
            waiter.errback(CancelledError())

    # What the consumers say

    def ready(self) -> None:
        """Consume, if anybody waits, and as much as is waited for."""
        for consumers in self._consumers:
            if not self._waiting or not consumers.can_begin:
                continue
            # RabbitMQ counts whatever is not settled, also what is out.
            wanted = 1 if self._single else self.on_loan + sum(most for most, _ in self._waiting)
            allowed = consumers.allowed
            if wanted > allowed:
                more = min(MOST_PREFETCHED, max(wanted, 2 * allowed)) - allowed
                if more > 0:
                    consumers.add(more)

    def expect(self, rank: int, count: int) -> None:
        """Lend nothing before so many of that lane have come, or had the time to."""
        if not count:
            return
        expected = self._expected[rank] = _Expected(count)

        def in_time() -> None:
            if self._expected.get(rank) is expected:
                del self._expected[rank]  # whatever has not come by now has gone to somebody else
                self._lend()

        self._later(ARRIVE_SECONDS, in_time)

    def came(self, rank: int, channel: Any, method: Any, properties: Any, body: bytes) -> None:
        """Take a message in."""
        over = partial(self._over, rank)
        delivery = RabbitMQDelivery(channel, method, properties, body, over, lambda: self._release(rank))
        self._loans[rank].add(delivery)
        expected = self._expected.get(rank)
        if expected is not None:
            expected.count -= 1
            if not expected.count:
                del self._expected[rank]
        self._take_in(delivery, rank)

    def lost(self, rank: int, reason: str) -> None:
        """All that was lent from the lane, or waits here, goes to somebody else."""
        self._arrived[rank].clear()
        self._expected.pop(rank, None)
        loans = list(self._loans[rank])
        self._loans[rank].clear()
        self._held.difference_update(loans)
        for loan in loans:
            loan.lose(reason)
        self._lend_soon()  # nobody waits for this lane any more

    # What has come

    def _take_in(self, delivery: RabbitMQDelivery, rank: int) -> None:
        if delivery not in self._loans[rank]:
            return  # it was taken back while it was held
        wait = delivery.due - self._clock.seconds()
        if wait <= 0:
            self._held.discard(delivery)
            self._arrived[rank].append(delivery)
        else:
            self._held.add(delivery)
            if wait * self._scale <= HELD_SECONDS:
                self._hold(wait, delivery, rank)
            else:
                self._pass_on(delivery, wait, rank).addErrback(self._not_passed_on, delivery, rank)
        self._lend_soon()

    def _not_passed_on(self, failure: Failure, delivery: RabbitMQDelivery, rank: int) -> None:
        failure.trap(NotDurable)
        self._hold(RETRY_SECONDS, delivery, rank)

    def _hold(self, seconds: float, delivery: RabbitMQDelivery, rank: int) -> None:
        self._later(seconds, lambda: self._take_in(delivery, rank), self._clock)

    def _over(self, rank: int, delivery: RabbitMQDelivery) -> None:
        self._loans[rank].discard(delivery)
        self._held.discard(delivery)
        self._let_others_soon()  # maybe it was all that kept what has come beside it

    # Lending

    def _lend_soon(self) -> None:
        """What comes in one go is lent in one go."""
        if self._lending is None and not self._stopped:
            self._lending = self._reactor.callLater(0, self._lend_now)

    def _lend_now(self) -> None:
        self._lending = None
        self._lend()

    def _lend(self) -> None:
        while self._waiting and not self._expected and self.arrived:
            most, waiter = self._waiting.popleft()
            deliveries: list[IBrokerDelivery] = []
            for lane in self._arrived:
                while lane and len(deliveries) < most:
                    deliveries.append(lane.popleft())
            waiter.callback(deliveries)
        self._let_others_soon()

    def _let_others_soon(self) -> None:
        if self._waiting or self._idle is not None or self._stopped:
            return
        if self.arrived or any(each.active for each in self._consumers):
            self._idle = self._reactor.callLater(IDLE_SECONDS, self._let_others)

    def _let_others(self) -> None:
        """Nobody here has asked for a while: what has arrived goes back, for others who may be waiting."""
        self._idle = None
        if self._waiting or self._stopped:
            return
        if (self._single or self._patient) and (self.on_loan or self.held):
            return  # whoever has it asks when it is done; it is looked again then
        self.hand_on()

    def hand_on(self) -> Deferred[Any]:
        """Let nothing more come, and give others what has come for nobody. It does not fail."""
        cancelled = DeferredList([each.cancel() for each in self._consumers])
        return cancelled.addCallback(lambda _: self._hand_on_arrived())

    def _hand_on_arrived(self) -> Deferred[Any]:
        """All of it. Not before RabbitMQ lends us nothing more: it would come back here, and be returned."""
        if self._waiting:
            return succeed(None)  # somebody has asked meanwhile
        if self._patient and not self._single:
            return self._publish_anew()
        for rank in range(len(self._arrived)):
            self._release(rank)
        return succeed(None)

    def _release(self, rank: int) -> None:
        """All that has arrived by the lane, the oldest first: what comes back stands in the order in which it came."""
        lane = self._arrived[rank]
        while lane:
            lane.popleft().return_alone()

    def _publish_anew(self) -> Deferred[Any]:
        published = []
        for rank, lane in enumerate(self._arrived):
            while lane:
                delivery = lane.popleft()
                published.append(self._pass_on(delivery, 0.0, rank).addErrback(_return, delivery))
        return DeferredList(published)

    def _later(self, seconds: float, call: Callable[[], None], clock: Any = None) -> None:
        if self._stopped:
            return

        def ring() -> None:
            self._calls.discard(timer)
            call()

        timer = (clock or self._reactor).callLater(seconds, ring)
        self._calls.add(timer)


def _return(failure: Failure, delivery: RabbitMQDelivery) -> Deferred[None]:
    """It could not be published once more; or it was, and RabbitMQ has taken this one back by itself."""
    failure.trap(NotDurable)
    return delivery.return_alone().addErrback(_not_heard)


def _not_heard(failure: Failure) -> None:
    failure.trap(NotDurable)
