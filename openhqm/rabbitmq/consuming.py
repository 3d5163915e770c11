# -*- test-case-name: tests.test_rabbitmq -*-
"""Lending from one queue: its lanes in RabbitMQ, who waits for work in this process, and what has come for them.

RabbitMQ sends what it has as soon as somebody consumes, lane by lane. So that what is urgent goes first, nothing is
lent after a start before that which lay there has had the time to arrive.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from openhqm.errors import NotDurable
from openhqm.interfaces import IBrokerDelivery
from openhqm.rabbitmq.delivery import RabbitMQDelivery
from openhqm.rabbitmq.topology import Topology
from openhqm.rabbitmq.wire import channel_of, words
from openhqm.runtime.deferreds import deferred

ARRIVE_SECONDS = 0.5
IDLE_SECONDS = 1.0
ANSWER_SECONDS = 5.0
RETRY_SECONDS = 1.0
HELD_SECONDS = 0.2
MOST_PREFETCHED = 1000
Waiter = Deferred[Sequence[IBrokerDelivery]]
PassOn = Callable[[RabbitMQDelivery, float, int], Deferred[None]]


class Place:
    """``lanes`` in the order in which they are worked off. ``single``: one message at a time.

    ``pass_on`` delays what has come too early once more. ``clock`` is what due times are compared with; each of its
    seconds takes ``scale`` seconds in RabbitMQ.
    """

    _log = Logger()

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
    ) -> None:
        self._queue = queue
        self._lanes = lanes
        self._single = single
        self._topology = topology
        self._reactor = reactor
        self._clock = clock
        self._scale = scale
        self._pass_on = pass_on
        self._protocol: Any = None
        self._channel: Any = None
        self._tags: dict[str, str] = {}
        self._waiting: deque[tuple[int, Waiter]] = deque()
        self._arrived: tuple[deque[RabbitMQDelivery], ...] = tuple(deque() for _ in lanes)
        self._expected: dict[int, int] = {}
        self._loans: set[RabbitMQDelivery] = set()
        self._allowed = 0
        self._starting = self._stopped = False
        self._calls: set[Any] = set()
        self._idle: Any = None

    @property
    def arrived(self) -> int:
        """How many wait here for somebody."""
        return sum(len(lane) for lane in self._arrived)

    @property
    def on_loan(self) -> int:
        """How many are out."""
        return len(self._loans) - self.arrived

    def receive(self, most: int) -> Waiter:
        """See `IBroker.receive`."""
        waiter: Waiter = Deferred(self._forget_waiter)
        self._waiting.append((1 if self._single else most, waiter))
        self._lend()
        self._begin()
        return waiter

    def _forget_waiter(self, waiter: Waiter) -> None:
        self._waiting = deque(entry for entry in self._waiting if entry[1] is not waiter)
        self._lend()

    def up(self, protocol: Any) -> None:
        """There is a connection to consume over."""
        self._protocol = protocol
        self._begin()

    def down(self, reason: str) -> None:
        """It is gone, and all that was lent over it."""
        self._protocol = None
        self._close(reason)

    def stop(self) -> None:
        """Lend nothing more."""
        self._stopped = True
        for call in (*self._calls, self._idle):
            if call is not None and call.active():
                call.cancel()
        waiting, self._waiting = self._waiting, deque()
        for _, waiter in waiting:
            waiter.errback(CancelledError())

    # Consuming

    def _begin(self) -> None:
        """Consume, or consume more: how much may be out at once is told to a consumer once, when it begins."""
        more = self._more()
        if more and self._protocol is not None and not self._starting and not self._stopped:
            self._starting = True
            self._start(more).addBoth(self._started)

    def _more(self) -> int:
        """How many more may be out at once than until now. What is out is not to keep away what is asked for."""
        if not self._waiting or (self._single and self._tags):
            return 0
        if self._single:
            return 1
        wanted = self.on_loan + sum(most for most, _ in self._waiting)
        if wanted <= self._allowed:
            return 0
        return min(2 * wanted, MOST_PREFETCHED) - self._allowed

    @deferred
    async def _start(self, more: int) -> None:
        protocol = self._protocol
        if self._channel is None:
            channel = await self._within(protocol.channel())
            if protocol is not self._protocol:
                return
            self._channel = channel
            channel.on_closed.addBoth(lambda reason: self._channel_closed(channel, reason))
            channel_of(channel).add_on_cancel_callback(lambda frame: self._deleted(channel, frame))
        channel = self._channel
        await self._within(channel.basic_qos(prefetch_count=more))
        if not self._tags:
            counts = [await self._topology.declare(lane) for lane in self._lanes]
            self._expected = {rank: min(count, more) for rank, count in enumerate(counts) if count}
            self._later(ARRIVE_SECONDS, self._all_there)
        for rank, lane in enumerate(self._lanes):
            await self._consume(channel, lane, rank)
        self._allowed += more

    def _consume(self, channel: Any, lane: str, rank: int) -> Deferred[Any]:
        """Past the adapter, which puts a queue of its own and a Deferred around every message."""
        consuming: Deferred[Any] = Deferred()

        def came(_: Any, method: Any, properties: Any, body: bytes) -> None:
            self._came(RabbitMQDelivery(channel, method, properties, body, self._loans.discard), rank)

        self._tags[channel_of(channel).basic_consume(lane, came, callback=consuming.callback)] = lane
        return self._within(consuming)

    def _started(self, result: Any) -> None:
        self._starting = False
        if isinstance(result, Failure):
            if not self._stopped and self._protocol is not None:
                text = "{queue} cannot be consumed from: {why}"
                self._log.error(text, queue=self._queue, why=words(result.value))
                self._close("the channel was given up")
                self._later(RETRY_SECONDS, self._begin)
        else:
            self._begin()  # somebody may have asked meanwhile

    def _came(self, delivery: RabbitMQDelivery, rank: int) -> None:
        self._loans.add(delivery)
        if rank in self._expected:
            self._expected[rank] -= 1
            if not self._expected[rank]:
                del self._expected[rank]
        self._take_in(delivery, rank)

    def _take_in(self, delivery: RabbitMQDelivery, rank: int) -> None:
        wait = delivery.due - self._clock.seconds()
        if delivery not in self._loans:
            return  # it was taken back while it was held
        if wait <= 0:
            self._arrived[rank].append(delivery)
            self._lend()
        elif wait * self._scale <= HELD_SECONDS:
            self._hold(wait, delivery, rank)
        else:
            self._pass_on(delivery, wait, rank).addErrback(self._not_passed_on, delivery, rank)
            self._lend()

    def _not_passed_on(self, failure: Failure, delivery: RabbitMQDelivery, rank: int) -> None:
        failure.trap(NotDurable)
        self._hold(RETRY_SECONDS, delivery, rank)

    def _hold(self, seconds: float, delivery: RabbitMQDelivery, rank: int) -> None:
        self._later(seconds, lambda: self._take_in(delivery, rank), self._clock)

    def _deleted(self, channel: Any, frame: Any) -> None:
        """RabbitMQ has ended a consumer: its queue is gone."""
        lane = self._tags.pop(frame.method.consumer_tag, None)
        if lane is not None and channel is self._channel and not self._stopped:
            self._log.warn("{lane} was deleted, and is made anew", lane=lane)
            self._topology.forget(lane)
            self._close(f"{lane} was deleted")
            self._begin()

    # Lending

    def _all_there(self) -> None:
        self._expected = {}
        self._lend()

    def _lend(self) -> None:
        while self._waiting and not self._expected and self.arrived:
            most, waiter = self._waiting.popleft()
            deliveries: list[IBrokerDelivery] = []
            for lane in self._arrived:
                while lane and len(deliveries) < most:
                    deliveries.append(lane.popleft())
            waiter.callback(deliveries)
        if self._tags and not self._waiting and self._idle is None and not self._stopped:
            self._idle = self._reactor.callLater(IDLE_SECONDS, self._let_others)

    def _let_others(self) -> None:
        """Nobody here has asked for a while: what has arrived goes back, for others who may be waiting."""
        self._idle = None
        if self._waiting or self._stopped or not self._tags:
            return
        if self._single and self.on_loan:
            return  # nothing more can come; whoever has it asks when it is done
        self._cancel()
        for lane in self._arrived:
            # The youngest first: each goes before all that is there.
            while lane:
                lane.pop().give_back()

    def _cancel(self) -> None:
        tags, self._tags, self._allowed = self._tags, {}, 0
        for tag in tags:
            # What still comes for it is refused by pika, and so goes back.
            channel_of(self._channel).basic_cancel(tag, callback=lambda frame: None)

    def _channel_closed(self, channel: Any, reason: Any) -> None:
        if channel is self._channel:
            if self._protocol is not None and not self._stopped:
                why = words(reason) if isinstance(reason, BaseException) else str(reason)
                self._log.warn("{queue}: its channel was closed: {why}", queue=self._queue, why=why)
            self._close("the channel was closed")
            self._later(RETRY_SECONDS, self._begin)

    def _close(self, reason: str) -> None:
        channel, self._channel = self._channel, None
        self._tags, self._expected, self._allowed = {}, {}, 0
        for lane in self._arrived:
            lane.clear()
        loans, self._loans = self._loans, set()
        for loan in loans:
            loan.lose(reason)
        if channel is not None and channel.is_open:
            channel.close()

    def _later(self, seconds: float, call: Callable[[], None], clock: Any = None) -> None:
        if self._stopped:
            return

        def ring() -> None:
            self._calls.discard(timer)
            call()

        timer = (clock or self._reactor).callLater(seconds, ring)
        self._calls.add(timer)

    def _within(self, answer: Deferred[Any]) -> Deferred[Any]:
        return answer.addTimeout(ANSWER_SECONDS, self._reactor)
