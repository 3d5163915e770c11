# -*- test-case-name: tests.test_rabbitmq -*-
"""Declaring queues over one connection, each once, and asking how much lies in them."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, DeferredLock

from openhqm.errors import NotDurable
from openhqm.rabbitmq.queues import DECLARE_SECONDS, arguments, delay_lane
from openhqm.rabbitmq.wire import words
from openhqm.runtime.deferreds import deferred

MOST_DELAY_QUEUES = 1000


class Topology:
    """``prefix`` is what the names of our queues begin with; ``seconds`` is how long an answer may take."""

    def __init__(self, reactor: Any, prefix: str, seconds: float) -> None:
        self._reactor = reactor
        self._prefix = prefix
        self._seconds = seconds
        self._protocol: Any = None
        self._channel: Any = None
        self._one_by_one = DeferredLock()
        self._known: set[str] = set()
        self._delays: dict[str, tuple[str, dict[str, Any], float]] = {}

    def up(self, protocol: Any) -> None:
        """Declare over this connection from now on."""
        self._protocol, self._channel = protocol, None
        self._known.clear()

    def down(self) -> None:
        """There is no connection."""
        self._protocol = self._channel = None
        self._known.clear()

    def knows(self, name: str) -> bool:
        """Whether the lane was declared over this connection."""
        return name in self._known

    def forget(self, name: str) -> None:
        """It is gone: somebody has deleted it."""
        self._known.discard(name)
        self._delays.pop(name, None)

    @deferred
    async def declare(self, name: str) -> int:
        """Make the lane where there is none; how many messages are ready in it. `NotDurable`."""
        count = await self._declare(name, arguments(name))
        self._known.add(name)
        return count

    @deferred
    async def delayed(self, target: str, ttl: int) -> str:
        """The queue that keeps messages for ``ttl`` ms before they go to ``target``. `NotDurable`."""
        name, with_arguments = delay_lane(self._prefix, target, ttl)
        now = self._reactor.seconds()
        known = self._delays.get(name)
        if known is None or now - known[2] >= DECLARE_SECONDS:
            if not self.knows(target):
                await self.declare(target)
            await self._declare(name, with_arguments)
            self._note_delay(name, target, with_arguments, now)
        return name

    def _note_delay(self, name: str, target: str, with_arguments: dict[str, Any], now: float) -> None:
        self._delays.pop(name, None)
        self._delays[name] = (target, with_arguments, now)
        while len(self._delays) > MOST_DELAY_QUEUES:  # the one that has gone unused for longest
            del self._delays[next(iter(self._delays))]

    @deferred
    async def count_delayed(self, target: str) -> int:
        """How many messages lie in the delay queues of ``target`` that this process has made."""
        count = 0
        for name, (whose, with_arguments, _) in list(self._delays.items()):
            if whose == target:
                count += await self._declare(name, with_arguments)
        return count

    @deferred
    async def _declare(self, name: str, with_arguments: dict[str, Any]) -> int:
        # One after the other: an answer that is an error closes the channel under all that were asked with it.
        await self._one_by_one.acquire()
        try:
            if self._protocol is None:
                raise NotDurable("not connected to RabbitMQ")
            if self._channel is None or self._channel.is_closed:
                self._channel = await self._within(self._protocol.channel())
            asked = self._channel.queue_declare(name, durable=True, arguments=with_arguments)
            frame = await self._within(asked)
            return int(frame.method.message_count)
        except NotDurable:
            raise
        except Exception as error:  # whatever it is, there is no such queue that could be relied on
            raise NotDurable(f"RabbitMQ does not give us the queue {name}: {words(error)}") from None
        finally:
            self._one_by_one.release()

    def _within(self, answer: Deferred[Any]) -> Deferred[Any]:
        return answer.addTimeout(max(self._seconds, 1.0), self._reactor)
