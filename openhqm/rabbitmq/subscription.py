# -*- test-case-name: tests.rabbitmq.test_subscription,tests.rabbitmq.test_contract -*-
"""A subscription to one queue, over an AMQP channel of its own.

Whatever goes wrong with an AMQP channel revokes all that was delivered over it, so subscriptions do not share one.

Credit is a window: what is out counts. Quorum queues know only the prefetch of a consumer, fixed when it is made
(https://www.rabbitmq.com/docs/quorum-queues#global-qos). So a larger window is one more consumer, and a smaller one is
one less; what a cancelled consumer has out still counts.

Messages come in the order of the queue, over several consumers as over one, and what is requeued comes first (3.10.8
and 4.0.5). Only what another process had out when its connection was lost may come in another order.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeVar

import attrs
from twisted.internet.defer import Deferred, TimeoutError, succeed
from twisted.logger import Logger
from zope.interface import implementer

from openhqm.interfaces.broker import IReceiver, ISubscription
from openhqm.rabbitmq.connection import Channel, Connection, describe, is_missing
from openhqm.rabbitmq.delivery import RabbitMQDelivery
from openhqm.runtime.deferreds import deferred

T = TypeVar("T")

ANSWER_SECONDS = 5.0
RETRY_SECONDS = 1.0
MOST_PREFETCHED = 2000
"""A quorum queue has no more on its way to one consumer."""
MOST_CONSUMERS = 8
LOWER_SECONDS = 0.1
"""A smaller credit is heeded after that; often it is soon as large as before. A cancelled consumer is worth sparing:
RabbitMQ takes back what it has on the way to it, and counts that as a delivery."""


class NoLeader(TimeoutError):
    """The queue gives no answer, although RabbitMQ does: most of its nodes are gone."""


@attrs.define(eq=False)
class _Consumer:
    tag: str
    prefetch: int
    out: int = 0


@implementer(ISubscription)
class Subscription:
    """``ended`` is called when the subscription is over and nothing is out. ``deleted`` is called with the name of a
    queue that is gone. ``no_leader`` is called where RabbitMQ answers and the queue does not.
    """

    _log = Logger()

    def __init__(
        self,
        queue: str,
        receiver: IReceiver,
        clock: Any,
        *,
        ended: Callable[[Subscription], None],
        deleted: Callable[[str], None],
        no_leader: Callable[[Subscription], None],
    ) -> None:
        self.warning: str | None = None
        self._queue = queue
        self._receiver = receiver
        self._clock = clock
        self._ended = ended
        self._deleted = deleted
        self._no_leader = no_leader
        self._asked = 0
        self._most = 0
        self._connection: Connection | None = None
        self._channel: Channel | None = None
        self._consumers: list[_Consumer] = []
        self._tags = 0
        self._out: dict[RabbitMQDelivery, _Consumer] = {}
        self._unwanted: list[int] = []
        self._adjusting = False
        self._lowering: Any = None
        self._retrying: Any = None
        self._stopped: Deferred[None] | None = None
        self._over = False

    def credit(self, most: int) -> None:
        self._asked = min(most, MOST_PREFETCHED) if self._stopped is None else 0
        if self._asked >= self._most:
            self._heed()
        elif not self._over and (self._lowering is None or not self._lowering.active()):
            self._lowering = self._clock.callLater(LOWER_SECONDS, self._heed)

    def stop(self) -> Deferred[None]:
        if self._over:
            return succeed(None)
        if self._stopped is None:
            self._stopped = Deferred()
            self._asked = 0
            self._heed()
        stopped: Deferred[None] = Deferred()
        self._stopped.chainDeferred(stopped)
        return stopped

    def up(self, connection: Connection) -> None:
        """Consume over this connection from now on."""
        self._connection = connection
        self._adjust()

    def down(self, reason: str) -> None:
        """There is no connection."""
        self._connection = None
        self._drop(reason)
        self._adjust()

    # The window

    def _heed(self) -> None:
        self._most = self._asked
        self._adjust()

    def _adjust(self) -> None:
        """Make the window as wide as the credit, one step after the other."""
        if self._adjusting or self._over:
            return
        if self._next() is None:
            self._end_if_stopped()
            return
        self._adjusting = True
        self._converge().addErrback(lambda failure: self._broken(failure.value)).addBoth(self._adjusted)

    @deferred
    async def _converge(self) -> None:
        while (step := self._next()) is not None:
            await step()

    def _adjusted(self, result: T) -> T:
        self._adjusting = False
        self._adjust()
        return result

    def _next(self) -> Callable[[], Awaitable[None]] | None:
        connection = self._connection
        if self._over or connection is None or not connection.is_open or self._retrying is not None:
            return None
        if self._channel is None:
            return partial(self._open, connection) if self._stopped is None else None
        of_cancelled = len(self._out) - sum(consumer.out for consumer in self._consumers)
        wanted = max(0, self._most - of_cancelled)
        window = sum(consumer.prefetch for consumer in self._consumers)
        if window < wanted and len(self._consumers) < MOST_CONSUMERS:
            return partial(self._consume, connection, self._channel, wanted - window)
        if window != wanted:
            return partial(self._cancel, self._channel, self._consumers[-1])
        return None

    async def _open(self, connection: Connection) -> None:
        channel = self._channel = await connection.channel(ANSWER_SECONDS)
        channel.on_closed = self._broken
        channel.raw.add_on_cancel_callback(self._cancelled)
        await channel.call("queue_declare", ANSWER_SECONDS, queue=self._queue, passive=True)

    async def _consume(self, connection: Connection, channel: Channel, prefetch: int) -> None:
        self._tags += 1
        consumer = _Consumer(str(self._tags), prefetch)
        self._consumers.append(consumer)
        await channel.call("basic_qos", ANSWER_SECONDS, prefetch_count=prefetch)
        received = partial(self._received, consumer)
        arguments = {"queue": self._queue, "on_message_callback": received, "consumer_tag": consumer.tag}
        try:
            await channel.call("basic_consume", ANSWER_SECONDS, **arguments)
        except TimeoutError:
            (await connection.channel(ANSWER_SECONDS)).close()
            raise NoLeader from None
        self.warning = None

    async def _cancel(self, channel: Channel, consumer: _Consumer) -> None:
        self._consumers.remove(consumer)
        await channel.cancel(consumer.tag, ANSWER_SECONDS)

    # Deliveries

    def _received(self, consumer: _Consumer, channel: Any, method: Any, properties: Any, body: bytes) -> None:
        if self._stopped is not None:  # requeued at once it would come again, until the consumer is cancelled
            self._unwanted.append(method.delivery_tag)
            return
        delivery = RabbitMQDelivery(channel, method, properties, body, self._settled)
        self._out[delivery] = consumer
        consumer.out += 1
        self._receiver.received(delivery)

    def _settled(self, delivery: RabbitMQDelivery) -> None:
        consumer = self._out.pop(delivery)
        consumer.out -= 1
        if consumer not in self._consumers:
            self._adjust()

    # What goes wrong, and the end

    def _broken(self, error: BaseException | None) -> None:
        """The AMQP channel is of no use any more."""
        if self._over or self._connection is None or not self._connection.is_open:
            return  # what is wrong is the connection, and that is said elsewhere
        if is_missing(error):
            self._lose(f"RabbitMQ has no queue {self._queue}")
            return
        warning = f"{self._queue} cannot be consumed from: {describe(error)}"
        if warning != self.warning:
            self._log.error("{reason}", reason=warning)
        self.warning = warning
        self._retrying = self._clock.callLater(RETRY_SECONDS, self._retry)
        self._drop(warning)
        if isinstance(error, NoLeader):
            self._no_leader(self)

    def _retry(self) -> None:
        self._retrying = None
        self._adjust()

    def _cancelled(self, frame: Any) -> None:
        """RabbitMQ cancels a consumer when its queue is deleted: https://www.rabbitmq.com/docs/consumer-cancel."""
        if any(consumer.tag == frame.method.consumer_tag for consumer in self._consumers):
            self._lose(f"{self._queue} was deleted")

    def _drop(self, reason: str) -> None:
        channel, self._channel = self._channel, None
        self._consumers = []
        out, self._out = self._out, {}
        if channel is not None:
            channel.close()
        for delivery in out:
            delivery.revoke(reason)

    def _lose(self, reason: str) -> None:
        stopped = self._stopped is not None
        self._end(reason)
        self._deleted(self._queue)
        if not stopped:
            self._receiver.lost(reason)

    def _end_if_stopped(self) -> None:
        if self._stopped is None or self._consumers:
            return
        if self._channel is not None and self._channel.raw.is_open:
            for tag in self._unwanted:
                self._channel.raw.basic_nack(tag)
            self._unwanted = []
        if not self._stopped.called:
            self._stopped.callback(None)
        if not self._out:
            self._end("the subscription was stopped")

    def _end(self, reason: str) -> None:
        self._over = True
        for call in (self._lowering, self._retrying):
            if call is not None and call.active():
                call.cancel()
        self._drop(reason)
        if self._stopped is not None and not self._stopped.called:
            self._stopped.callback(None)
        self._ended(self)
