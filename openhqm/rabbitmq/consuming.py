# -*- test-case-name: tests.test_rabbitmq -*-
"""Consuming from the lanes of one queue, over a channel of its own.

What goes wrong with a channel takes back whatever was lent over it, so queues do not share one.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Protocol

from twisted.internet.defer import Deferred, DeferredList
from twisted.logger import Logger
from twisted.python.failure import Failure

from openhqm.rabbitmq.topology import Topology
from openhqm.rabbitmq.wire import channel_of, within, words
from openhqm.runtime.deferreds import deferred

ANSWER_SECONDS = 5.0
RETRY_SECONDS = 1.0


class Lender(Protocol):
    """Whoever the messages are for."""

    def expect(self, counts: dict[int, int]) -> None:
        """So many lie in each lane, and will come unless others are faster."""

    def came(self, rank: int, channel: Any, method: Any, properties: Any, body: bytes) -> None:
        """A message from the lane of that rank."""

    def lost(self, reason: str) -> None:
        """The channel is gone, and all that came over it."""

    def ready(self) -> None:
        """It can be begun."""


class Consumers:
    """At least one for each lane. ``allowed`` is how many messages of a lane may be on their way, or out."""

    _log = Logger()

    def __init__(self, queue: str, lanes: Sequence[str], topology: Topology, reactor: Any, lender: Lender) -> None:
        self._queue = queue
        self._lanes = lanes
        self._topology = topology
        self._reactor = reactor
        self._lender = lender
        self._protocol: Any = None
        self._channel: Any = None
        self._ranks: dict[str, int] = {}
        self._starting = False
        self._all_began: Deferred[None] | None = None
        self._retry: Any = None
        self._stopped = False
        self.allowed = 0
        self.trouble: str | None = None

    @property
    def active(self) -> bool:
        """Whether messages come, or soon will."""
        return bool(self._ranks)

    @property
    def can_begin(self) -> bool:
        """Whether there is a connection, and nothing else to wait for."""
        waits = self._starting or self._retry is not None
        return self._protocol is not None and not waits and not self._stopped

    def up(self, protocol: Any) -> None:
        """There is a connection."""
        self._protocol = protocol
        if self.can_begin:
            self._lender.ready()

    def down(self, reason: str) -> None:
        """It is gone."""
        self._protocol = None
        self._close(reason)
        self._fail_to_begin(ConnectionError(reason))

    def stop(self) -> None:
        """Consume no more. What came is lent anew when the connection is closed."""
        self._stopped = True
        if self._retry is not None:
            self._retry.cancel()

    def add(self, more: int) -> None:
        """Let so many more be on their way at once. For a consumer that is settled once; so there is one more."""
        self._starting = True
        self._begin(more).addBoth(self._begun)

    def cancel(self) -> Deferred[Any]:
        """Let nothing more come. What is still on its way is rejected by pika, and so goes back.

        Fires once RabbitMQ has heard it, or after a while, and does not fail.
        """
        ranks, self._ranks, self.allowed = self._ranks, {}, 0
        return DeferredList(
            [self._within(self._channel.basic_cancel(tag)).addErrback(lambda failure: None) for tag in ranks]
        )

    @deferred
    async def _begin(self, more: int) -> None:
        protocol = self._protocol
        if self._channel is None:
            channel = await self._within(protocol.channel())
            if protocol is not self._protocol:
                return
            self._channel = channel
            channel.on_closed.addBoth(partial(self._closed, channel))
            channel_of(channel).add_on_cancel_callback(partial(self._deleted, channel))
        raw = channel_of(self._channel)
        counts = [await self._topology.declare(lane) for lane in self._lanes]
        if self._channel is None or raw.is_closed:
            return
        self._lender.expect({rank: min(count, more) for rank, count in enumerate(counts) if count})
        self.allowed += more
        raw.basic_qos(prefetch_count=more)
        all_began = self._all_began = Deferred()
        left = set(range(len(self._lanes)))

        def began(rank: int, frame: Any) -> None:
            left.discard(rank)
            if not left and not all_began.called:
                all_began.callback(None)

        for rank, lane in enumerate(self._lanes):
            tag = raw.basic_consume(lane, partial(self._lender.came, rank), callback=partial(began, rank))
            self._ranks[tag] = rank
        await self._within(all_began)

    def _begun(self, result: Any) -> None:
        self._starting, self._all_began = False, None
        if isinstance(result, Failure):
            self._could_not_begin(result)
            return
        if self._ranks:
            self.trouble = None
        if self.can_begin:
            self._lender.ready()

    def _could_not_begin(self, failure: Failure) -> None:
        if self._stopped or self._protocol is None:
            return
        trouble = f"{self._queue} cannot be consumed from: {words(failure.value)}"
        if trouble != self.trouble:
            self._log.error("{trouble}", trouble=trouble)
        self.trouble = trouble
        self._close(trouble)
        self._try_later()

    def _fail_to_begin(self, error: Exception) -> bool:
        """Whether anybody waits for consumers to have begun, who is told that they will not."""
        if self._all_began is None or self._all_began.called:
            return False
        self._all_began.errback(error)
        return True

    def _try_later(self) -> None:
        if self._retry is None and not self._stopped:
            self._retry = self._reactor.callLater(RETRY_SECONDS, self._try_again)

    def _try_again(self) -> None:
        self._retry = None
        if self.can_begin:
            self._lender.ready()

    def _deleted(self, channel: Any, frame: Any) -> None:
        """RabbitMQ consumes no more for us: somebody has deleted the queue."""
        rank = self._ranks.get(frame.method.consumer_tag)
        if channel is not self._channel or rank is None:
            return
        lane = self._lanes[rank]
        self._log.warn("{lane} was deleted, and is made anew", lane=lane)
        self._topology.forget(lane)
        self._close(f"{lane} was deleted")
        self._try_later()

    def _closed(self, channel: Any, reason: Any) -> None:
        if channel is not self._channel:
            return
        why = words(reason) if isinstance(reason, BaseException) else str(reason)
        if self._fail_to_begin(reason if isinstance(reason, Exception) else ConnectionError(why)):
            return
        if self._protocol is not None and not self._stopped:
            self._log.warn("{queue}: RabbitMQ has closed the channel: {why}", queue=self._queue, why=why)
        self._close(f"RabbitMQ has closed the channel: {why}")
        self._try_later()

    def _close(self, reason: str) -> None:
        channel, self._channel = self._channel, None
        self._ranks, self.allowed = {}, 0
        if channel is not None and channel.is_open:
            channel.close()
        self._lender.lost(reason)

    def _within(self, answer: Deferred[Any]) -> Deferred[Any]:
        return within(answer, ANSWER_SECONDS, self._reactor)
