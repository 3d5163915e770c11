# -*- test-case-name: tests.rabbitmq.test_lending,tests.rabbitmq.test_rabbitmq -*-
"""Consuming from one lane, over a channel of its own.

What goes wrong with a channel takes back whatever was lent over it, so lanes do not share one. RabbitMQ may know of a
queue that nobody leads (most of its nodes are gone): it leaves whoever consumes from it without an answer, and after a
minute it closes the whole connection over that. So where there was no answer, it is tried over another connection,
which only such lanes share.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Protocol

from twisted.internet.defer import Deferred, TimeoutError
from twisted.logger import Logger
from twisted.python.failure import Failure

from openhqm.errors import NotDurable
from openhqm.rabbitmq.topology import Topology
from openhqm.rabbitmq.wire import channel_of, within, words
from openhqm.runtime.deferreds import deferred

ANSWER_SECONDS = 5.0
RETRY_SECONDS = 1.0


class Unanswered(TimeoutError):
    """RabbitMQ does not say whether we consume from this queue."""


class Lender(Protocol):
    """Whoever the messages are for."""

    def expect(self, rank: int, count: int) -> None:
        """So many lie in the lane of that rank, and will come unless others are faster."""

    def came(self, rank: int, channel: Any, method: Any, properties: Any, body: bytes) -> None:
        """A message from the lane of that rank."""

    def lost(self, rank: int, reason: str) -> None:
        """Its channel is gone, and all that came over it."""

    def ready(self) -> None:
        """It can be begun."""

    def without_answer(self) -> None:
        """A connection for lanes that give none is needed."""


class Consumers:
    """Of the lane of one ``rank``. ``allowed`` is how many of its messages may be on their way, or out."""

    _log = Logger()

    def __init__(self, rank: int, lane: str, topology: Topology, reactor: Any, lender: Lender) -> None:
        self._rank = rank
        self._lane = lane
        self._topology = topology
        self._reactor = reactor
        self._lender = lender
        self._protocols: dict[bool, Any] = {}
        self._apart = False
        self._channel: Any = None
        self._tags: set[str] = set()
        self._starting = False
        self._began: Deferred[None] | None = None
        self._retry: Any = None
        self._stopped = False
        self.allowed = 0
        self.unavailable_reason: str | None = None

    @property
    def active(self) -> bool:
        """Whether messages come, or soon will."""
        return bool(self._tags)

    @property
    def can_begin(self) -> bool:
        """Whether there is a connection, and nothing else to wait for."""
        waits = self._starting or self._retry is not None
        return self._is_connected and not waits and not self._stopped

    @property
    def _protocol(self) -> Any:
        return self._protocols.get(self._apart)

    @property
    def _is_connected(self) -> bool:
        # A connection that is lost closes its channels first, and then we are told why it was.
        return self._protocol is not None and not self._protocol.is_closed

    def up(self, protocol: Any, apart: bool) -> None:
        """There is a connection: the one for all, or the one ``apart``."""
        self._protocols[apart] = protocol
        if self.can_begin:
            self._lender.ready()

    def down(self, reason: str, apart: bool) -> None:
        """It is gone."""
        self._protocols.pop(apart, None)
        if apart is self._apart:
            self._apart = self.unavailable_reason is not None and apart
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
        tags, self._tags, self.allowed = self._tags, set(), 0
        return self._within(self._cancel(self._channel, tags)).addErrback(lambda failure: None)

    @deferred
    async def _cancel(self, channel: Any, tags: set[str]) -> None:
        for tag in tags:  # pika takes the first answer for that to all that were asked by then
            await channel.basic_cancel(tag)

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
        count = await self._topology.declare(self._lane)
        if self._channel is None or raw.is_closed:
            return
        self._lender.expect(self._rank, min(count, more))
        self.allowed += more
        raw.basic_qos(prefetch_count=more)
        began: Deferred[Any] = Deferred()
        self._began = began
        tag = raw.basic_consume(self._lane, partial(self._lender.came, self._rank), callback=partial(_answer, began))
        self._tags.add(tag)
        try:
            await self._within(began)
        except TimeoutError:
            await self._topology.declare(self._lane)  # RabbitMQ itself would answer
            raise Unanswered from None

    def _begun(self, result: Any) -> None:
        self._starting, self._began = False, None
        if isinstance(result, Failure):
            self._could_not_begin(result)
            return
        if self._tags:
            self.unavailable_reason = None
        if self.can_begin:
            self._lender.ready()

    def _could_not_begin(self, failure: Failure) -> None:
        if self._stopped or not self._is_connected:
            return
        unavailable_reason = f"{self._lane} cannot be consumed from: {words(failure.value)}"
        if unavailable_reason != self.unavailable_reason:
            self._log.error("{unavailable_reason}", unavailable_reason=unavailable_reason)
        self.unavailable_reason = unavailable_reason
        self._close(unavailable_reason)
        if failure.check(Unanswered) and not self._apart:
            self._apart = True
            self._lender.without_answer()
        self._try_later()

    def _fail_to_begin(self, error: Exception) -> bool:
        """Whether anybody waits for consumers to have begun, who is told that they will not."""
        if self._began is None or self._began.called:
            return False
        self._began.errback(error)
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
        if channel is not self._channel or frame.method.consumer_tag not in self._tags:
            return
        self._log.warn("{lane} was deleted, and is made anew", lane=self._lane)
        self._topology.forget(self._lane)
        if self._fail_to_begin(NotDurable("it was deleted")):  # with the channel the answer would be gone
            return
        self._close(f"{self._lane} was deleted")
        self._try_later()

    def _closed(self, channel: Any, reason: Any) -> None:
        if channel is not self._channel or not self._is_connected:
            return
        why = words(reason) if isinstance(reason, BaseException) else str(reason)
        if self._fail_to_begin(reason if isinstance(reason, Exception) else ConnectionError(why)):
            return
        if not self._stopped:
            self._log.warn("{lane}: RabbitMQ has closed the channel: {why}", lane=self._lane, why=why)
        self._close(f"RabbitMQ has closed the channel: {why}")
        self._try_later()

    def _close(self, reason: str) -> None:
        channel, self._channel = self._channel, None
        self._tags, self.allowed = set(), 0
        if channel is not None and channel.is_open:
            channel.close()
        self._lender.lost(self._rank, reason)

    def _within(self, answer: Deferred[Any]) -> Deferred[Any]:
        return within(answer, ANSWER_SECONDS, self._reactor)


def _answer(began: Deferred[Any], frame: Any) -> None:
    if not began.called:  # it was given up
        began.callback(frame)
