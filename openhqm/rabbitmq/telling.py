# -*- test-case-name: tests.rabbitmq.test_telling -*-
"""Telling the process that keeps the books, over a queue that it alone makes.

Made by whoever tells, nobody would notice that it had been gone, with endings in it that are nowhere else. So what is
told goes over the exchange of `losses`, and where it is returned, or that is missing, nobody follows yet.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from openhqm.errors import NotDurable
from openhqm.messages import Priority
from openhqm.rabbitmq.losses import EXCHANGE
from openhqm.rabbitmq.publishing import Publisher, Returned
from openhqm.rabbitmq.queues import lane
from openhqm.rabbitmq.topology import Topology
from openhqm.runtime.deferreds import deferred


class Telling:
    """``queue`` is where the steps are told; ``topology`` is that of the connection that publishes. ``in_time`` sees to
    it that nobody waits for too long.
    """

    _log = Logger()

    def __init__(
        self,
        topology: Topology,
        publisher: Publisher,
        prefix: str,
        queue: str,
        in_time: Callable[[Deferred[None]], Deferred[None]],
    ) -> None:
        self.queue = queue
        self._exchange = prefix + EXCHANGE
        self._lane = lane(prefix, queue, Priority.NORMAL)
        self._topology = topology
        self._publisher = publisher
        self._in_time = in_time
        self._has_exchange = self._unfollowed = False

    def down(self) -> None:
        """There is no connection."""
        self._has_exchange = False

    async def bind(self) -> None:
        """On a new connection of whoever keeps the books: a kill between making the queue and binding it is made good.

        It is not made here: whoever follows is to notice where it is gone. `NotDurable`.
        """
        if await self._topology.has_lane(self._lane):
            await self._topology.bind(self._lane, self._exchange)

    def tell(self, body: bytes, headers: dict[str, Any]) -> Deferred[None]:
        """Fires when the queue has it. `NotDurable`: also where there is none."""
        told = self._publish(body, headers) if self._has_exchange else self._in_time(self._look(body, headers))
        return told.addBoth(self._told)

    @deferred
    async def _look(self, body: bytes, headers: dict[str, Any]) -> None:
        if self._publisher.unavailable_reason is not None:
            raise NotDurable(self._publisher.unavailable_reason)
        # Over an exchange that is not there RabbitMQ closes the channel, under all that is published over it.
        if not await self._topology.has_exchange(self._exchange):
            raise Returned("RabbitMQ has no such exchange")
        self._has_exchange = True
        await self._publish(body, headers)

    def _publish(self, body: bytes, headers: dict[str, Any]) -> Deferred[None]:
        return self._publisher.publish(self._lane, body, headers, self._exchange)

    def _told(self, result: Any) -> Any:
        if not isinstance(result, Failure):
            self._unfollowed = False
        elif result.check(Returned):
            words = f"nobody follows {self.queue}: is the process that accepts and answers running?"
            if not self._unfollowed:
                self._unfollowed = True
                self._log.error("{words}", words=words)
            raise NotDurable(words)
        return result
