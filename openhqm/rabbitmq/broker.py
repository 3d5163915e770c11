# -*- test-case-name: tests.rabbitmq.test_rabbitmq -*-
"""RabbitMQ as an `IBroker`: quorum queues, every publish confirmed, delays in queues whose messages move on.

One connection publishes and another one consumes: RabbitMQ stops reading from whoever publishes when it runs out of
memory or disk, and then what is done must still be said.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import ceil
from typing import Any

from twisted.internet.defer import Deferred, DeferredList, fail, gatherResults, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from zope.interface import implementer

from openhqm.config.rabbitmq_address import Address
from openhqm.errors import NotDurable
from openhqm.interfaces import QueueTraits
from openhqm.interfaces.legacy import IBroker, IBrokerDelivery, OnLost
from openhqm.messages import Depth, Priority
from openhqm.rabbitmq.delivery import ATTEMPTS, DUE, RabbitMQDelivery
from openhqm.rabbitmq.dialling import Unreachable
from openhqm.rabbitmq.lending import Place
from openhqm.rabbitmq.link import Reconnecting
from openhqm.rabbitmq.losses import Losses
from openhqm.rabbitmq.publishing import Publisher, Returned
from openhqm.rabbitmq.queues import delay_headers, is_partition, lane, lanes, steps_of
from openhqm.rabbitmq.telling import Telling
from openhqm.rabbitmq.topology import Claim, Topology
from openhqm.rabbitmq.wire import connection_of, within
from openhqm.runtime.deferreds import deferred

OLDEST_VERSION = (3, 10)  # dead-letters from quorum queues at least once
LARGEST_BYTES = {3: 128 * 1024 * 1024, 4: 16 * 1024 * 1024}  # max_message_size


@implementer(IBroker)
class RabbitMQBroker:
    """The queues of one virtual host whose names begin with ``prefix``.

    ``seconds`` is how long a confirmation may take. ``claim`` is for one process alone: while another one has it,
    nothing is lent, and nothing published. ``patient``: what has come is kept while anything is on loan, and is
    published anew instead of being returned; for `IBrokerDelivery.returned` counts that. ``steps`` is the queue of what
    is told to the process that keeps the books. For tests, ``clock`` stands in for the time that due times are told in,
    of which each second takes ``scale`` seconds in RabbitMQ.
    """

    def __init__(
        self,
        address: Address,
        reactor: Any,
        random: Callable[[], float],
        *,
        prefix: str,
        seconds: float,
        claim: Claim | None = None,
        patient: bool = False,
        steps: str | None = None,
        clock: IReactorTime | None = None,
        scale: float = 1.0,
    ) -> None:
        self._prefix = prefix
        self._claim = claim
        self._patient = patient
        self._reactor = reactor
        self._clock: IReactorTime = clock if clock is not None else reactor
        self._scale = scale
        self._version: tuple[int, ...] = ()
        self._places: dict[str, Place] = {}
        self._topology = Topology(reactor, prefix, seconds)
        # A connection that is blocked is not answered either: whoever consumes has one to ask over.
        self._consumed = Topology(reactor, prefix, seconds)
        self._connected: dict[bool, Any] = {}
        self._publisher = Publisher(reactor, seconds)
        self._telling: Telling | None = None
        if steps is not None:
            self._telling = Telling(self._topology, self._publisher, prefix, steps, self._in_time)
        self._on_lost: OnLost | None = None
        self._losses: Losses | None = None
        self._publishing = Reconnecting(
            address,
            "openhqm publishes",
            reactor,
            random,
            seconds=seconds,
            up=self._publishing_up,
            down=self._publishing_down,
        )
        self._consuming = Reconnecting(
            address,
            "openhqm consumes",
            reactor,
            random,
            seconds=seconds,
            up=self._consuming_up,
            down=self._consuming_down,
        )
        self._apart = Reconnecting(
            address,
            "openhqm consumes from queues without a leader",
            reactor,
            random,
            seconds=seconds,
            up=self._apart_up,
            down=self._apart_down,
        )

    @property
    def on_lost(self) -> OnLost | None:
        """To be set before it is started."""
        return self._on_lost

    @on_lost.setter
    def on_lost(self, on_lost: OnLost) -> None:
        self._on_lost = on_lost
        alone, seconds = self._claim is not None, self._publisher.seconds
        losses = self._losses = Losses(self._topology, self._prefix, self._reactor, seconds, on_lost, alone)

        def make(lane: str) -> Deferred[None]:
            unavailable_reason = (
                self._publisher.unavailable_reason
            )  # what is asked now would wait in line, whoever gives up
            return losses.make(lane) if unavailable_reason is None else fail(NotDurable(unavailable_reason))

        self._topology.make = self._consumed.make = make

    @property
    def traits(self) -> QueueTraits:
        """What quorum queues can, as we use them."""
        return QueueTraits(
            durable=True,
            ordered=True,
            native_priority=True,
            atomic_settle=False,
            largest_message=LARGEST_BYTES.get(self._version[0] if self._version else 3, LARGEST_BYTES[4]),
            tells_oldest=False,
        )

    @property
    def unavailable_reason(self) -> str | None:
        """Why a publish could not be kept now, or None."""
        return (
            self._publishing.unavailable_reason
            or self._publisher.unavailable_reason
            or self._consuming.unavailable_reason
        )

    @property
    def warnings(self) -> Sequence[str]:
        """Which queues cannot be consumed from, and why."""
        return [unavailable_reason for place in self._places.values() for unavailable_reason in place.troubles]

    def start(self) -> Deferred[None]:
        self._publishing.start()
        self._consuming.start()
        return succeed(None)

    def when_probed(self) -> Deferred[None]:
        tried = gatherResults([self._publishing.when_probed(), self._consuming.when_probed()])
        return tried.addCallback(lambda _: None)

    @deferred
    async def stop(self) -> None:
        if self._patient:
            await gatherResults([place.hand_on() for place in self._places.values()])
        for place in self._places.values():
            place.stop()
        await DeferredList([self._consuming.stop(), self._apart.stop(), self._publishing.stop()], consumeErrors=True)

    # Publishing

    def publish(self, queue: str, body: bytes, *, attempts: int, priority: Priority, delay: float) -> Deferred[None]:
        if self._claim is not None and self._connected.get(False) is None:
            return fail(NotDurable(self._consuming.unavailable_reason or "not connected to RabbitMQ"))
        target = lane(self._prefix, queue, priority)
        headers: dict[str, Any] = {}
        if attempts:
            headers[ATTEMPTS] = attempts
        if delay > 0:
            headers[DUE] = ceil((self._clock.seconds() + delay) * 1000)
            return self._in_time(self._publish_delayed(target, body, headers, delay))
        if self._losses is not None:
            return self._publish_noticing(self._losses, target, body, headers)
        if self._telling is not None and queue == self._telling.queue:
            return self._telling.tell(body, headers)
        return self._publish(target, body, headers)

    def _publish_noticing(self, losses: Losses, target: str, body: bytes, headers: dict[str, Any]) -> Deferred[None]:
        def publish() -> Deferred[None]:
            return self._publisher.publish(target, body, headers, losses.exchange)

        def returned(failure: Failure) -> Deferred[None]:
            failure.trap(Returned)
            return losses.publish_anew(target, publish)

        return publish().addErrback(returned)

    def _publish(self, target: str, body: bytes, headers: dict[str, Any]) -> Deferred[None]:
        if not self._topology.knows(target):
            return self._in_time(self._declare_and_publish(target, body, headers))
        confirmed = self._publisher.publish(target, body, headers)

        def returned(failure: Failure) -> Any:
            failure.trap(Returned)
            self._topology.forget(target)  # somebody has deleted it
            return self._in_time(self._declare_and_publish(target, body, headers))

        return confirmed.addErrback(returned)

    @deferred
    async def _declare_and_publish(self, target: str, body: bytes, headers: dict[str, Any]) -> None:
        self._check()
        await self._topology.declare(target)
        await self._publisher.publish(target, body, headers)

    @deferred
    async def _publish_delayed(self, target: str, body: bytes, headers: dict[str, Any], delay: float) -> None:
        steps = steps_of(delay * self._scale * 1000)
        if not steps:  # whoever consumes it holds it for the moment
            await self._publish(target, body, headers)
            return
        self._check()
        headers |= delay_headers(steps)
        exchange = await self._topology.delayed(target, steps)
        try:
            await self._publisher.publish(target, body, headers, exchange)
        except Returned:
            self._topology.forget_delays()  # somebody has deleted one
            await self._publisher.publish(target, body, headers, await self._topology.delayed(target, steps))

    def _in_time(self, published: Deferred[None]) -> Deferred[None]:
        """Declaring takes its turn behind what others declare, and is a part of the time that a publish may take."""
        return published.addTimeout(self._publisher.seconds, self._reactor, self._too_late)

    def _too_late(self, result: Any, seconds: float) -> Any:
        if not isinstance(result, Failure):
            return result
        self._publisher.ask_whether_it_lives()
        raise NotDurable(f"RabbitMQ did not answer within {seconds:g} s")

    def _check(self) -> None:
        if self.unavailable_reason is not None:
            raise NotDurable(self.unavailable_reason)

    # Lending

    def receive(self, queue: str, most: int, *, in_order: bool = False) -> Deferred[Sequence[IBrokerDelivery]]:
        return self._place(queue).receive(most)

    def _place(self, queue: str) -> Place:
        place = self._places.get(queue)
        if place is None:
            names = lanes(self._prefix, queue)

            def pass_on(delivery: RabbitMQDelivery, delay: float, rank: int) -> Deferred[None]:
                return self._pass_on(names[rank], delivery, delay)

            place = Place(
                queue,
                names,
                is_partition(queue),
                self._consumed,
                self._reactor,
                self._clock,
                self._scale,
                pass_on,
                self._apart.start,
                self._patient,
            )
            self._places[queue] = place
            for apart, protocol in self._connected.items():
                place.up(protocol, apart)
        return place

    @deferred
    async def _pass_on(self, target: str, delivery: RabbitMQDelivery, delay: float) -> None:
        """Publish once more what has come too early, or for nobody: for the rest of its time, and before letting go."""
        headers = {DUE: ceil(delivery.due * 1000)}
        attempts = delivery.attempts + (delivery.returned if self._patient else 0)
        if attempts:
            headers[ATTEMPTS] = attempts
        await self._publish_delayed(target, delivery.body, headers, delay)
        await delivery.ack()

    @deferred
    async def depth(self, queue: str) -> Depth:
        ready = 0
        delayed = await self._consumed.count_delayed()
        for name in lanes(self._prefix, queue):
            ready += await self._consumed.declare(name)
        place = self._places.get(queue)
        if place is None:
            return Depth(ready, delayed, 0, None)
        return Depth(ready + place.arrived, delayed + place.held, place.on_loan, None)

    # Connections

    async def _publishing_up(self, protocol: Any) -> None:
        connection = connection_of(protocol)
        self._version = _version(connection.server_properties or {})
        if self._version < OLDEST_VERSION:
            found = ".".join(str(part) for part in self._version)
            raise Unreachable(f"it is RabbitMQ {found}, and 3.10 or newer is needed")
        connection.add_on_connection_blocked_callback(self._blocked)
        connection.add_on_connection_unblocked_callback(self._unblocked)
        self._topology.up(protocol)
        if self._losses is not None:
            await self._losses.look()
            if self._telling is not None:
                await self._telling.bind()
        channel = await within(protocol.channel(), 5.0, self._reactor)
        await self._publisher.up(channel, protocol.transport.write, connection.params.frame_max)
        channel.on_closed.addBoth(lambda reason: self._publishing_channel_closed(protocol, reason))

    def _publishing_channel_closed(self, protocol: Any, reason: Any) -> None:
        """A channel that RabbitMQ has closed cannot be told what of it was kept: the connection begins anew."""
        if protocol.transport is not None and protocol.is_open:
            self._publishing.close_anew(f"RabbitMQ has closed the channel: {reason}")

    def _publishing_down(self, reason: str) -> None:
        self._topology.down()
        if self._telling is not None:
            self._telling.down()
        self._publisher.down(reason)
        if self._losses is not None:
            self._losses.down()

    def _blocked(self, connection: Any, frame: Any) -> None:
        self._publisher.blocked = frame.method.reason or "no reason given"

    def _unblocked(self, connection: Any, frame: Any) -> None:
        self._publisher.blocked = None

    async def _consuming_up(self, protocol: Any) -> None:
        self._consumed.up(protocol)
        if self._claim is not None and not await self._consumed.claim(self._claim.name):
            raise Unreachable(self._claim.refused)
        self._up(protocol, False)

    def _consuming_down(self, reason: str) -> None:
        self._consumed.down()
        self._down(reason, False)

    async def _apart_up(self, protocol: Any) -> None:
        self._up(protocol, True)

    def _apart_down(self, reason: str) -> None:
        self._down(reason, True)

    def _up(self, protocol: Any, apart: bool) -> None:
        self._connected[apart] = protocol
        for place in self._places.values():
            place.up(protocol, apart)

    def _down(self, reason: str, apart: bool) -> None:
        self._connected.pop(apart, None)
        for place in self._places.values():
            place.down(reason, apart)


def _version(properties: dict[str, Any]) -> tuple[int, ...]:
    text = properties.get("version", b"")
    text = text.decode() if isinstance(text, bytes) else str(text)
    numbers = []
    for part in text.split(".")[:3]:
        digits = part.split("-")[0].split("+")[0]
        if not digits.isdigit():
            break
        numbers.append(int(digits))
    return tuple(numbers)
