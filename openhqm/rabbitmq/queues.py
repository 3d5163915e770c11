# -*- test-case-name: tests.rabbitmq.test_contract,tests.rabbitmq.test_broker -*-
"""Making queues, and asking for them."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError
from twisted.internet.task import deferLater

from openhqm.errors import NotDurable
from openhqm.rabbitmq.connection import Connection, describe, is_missing
from openhqm.runtime.deferreds import deferred

ARGUMENTS = {"x-queue-type": "quorum", "x-delivery-limit": 2**31 - 1}
"""Said alike by every process and to every version, or a queue that is there could not be declared.

Measured with a message that is requeued: with this limit 3.10.8 and 4.0.5 put it in front. Without a limit 3.10.8 puts
it behind all others, and 4.0.5 drops it after 20 times. With -1 (no limit, since 4.0) 3.10.8 drops it at once, and
4.0.5 puts it behind all others.
"""
GONE_SECONDS = 0.25
"""RabbitMQ 3.10 does not tell the consumers of a quorum queue that is made again within 5 ms of being deleted."""
LEAST_SECONDS = 1.0


class Queues:
    """Asks over a connection that is never blocked, for nothing is published over it.

    Each question has an AMQP channel of its own: RabbitMQ closes the channel when the answer is an error, and a
    question without an answer holds up no other one. ``seconds`` is how long an answer may take.
    """

    def __init__(self, clock: Any, seconds: float) -> None:
        self._clock = clock
        self._seconds = max(seconds, LEAST_SECONDS)
        self._known: set[str] = set()
        self._gone: dict[str, float] = {}
        self.connection: Connection | None = None

    @deferred
    async def ensure(self, name: str) -> None:
        """Make the queue where it is missing. `NotDurable`."""
        gone = self._gone.get(name)
        if gone is not None:
            await deferLater(self._clock, max(0.0, gone + GONE_SECONDS - self._clock.seconds()))
        await self._declare(name, durable=True, arguments=ARGUMENTS)
        self._gone.pop(name, None)
        self._known.add(name)

    @deferred
    async def ready(self, name: str) -> int | None:
        """How many messages the queue holds that are not out; None where it does not exist. `NotDurable`."""
        try:
            frame = await self._declare(name, passive=True)
        except NotDurable as error:
            if is_missing(error.__cause__):
                return None
            raise
        self._known.add(name)
        return int(frame.method.message_count)

    def gone(self, name: str) -> None:
        """Another program has deleted the queue: it is not made again before its consumers were told."""
        if name in self._known:
            self._known.remove(name)
            self._gone[name] = self._clock.seconds()

    async def _declare(self, name: str, **arguments: Any) -> Any:
        connection = self.connection
        if connection is None:
            raise NotDurable("not connected to RabbitMQ")
        try:
            channel = await connection.channel(self._seconds)
            try:
                return await channel.call("queue_declare", self._seconds, queue=name, **arguments)
            finally:
                channel.close()
        except CancelledError:
            raise
        except Exception as error:  # pika's, or the time is over: it is not known that there is such a queue
            raise NotDurable(f"RabbitMQ gives no queue {name}: {describe(error)}") from error
