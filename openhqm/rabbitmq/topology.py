# -*- test-case-name: tests.rabbitmq.test_rabbitmq -*-
"""Declaring queues over one connection, each once, and asking how much lies in them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
from twisted.internet.defer import CancelledError, Deferred, DeferredLock
from twisted.internet.task import deferLater

from openhqm.errors import NotDurable
from openhqm.rabbitmq.queues import LEVELS, arguments, delay_arguments, delay_queue, level_of, waits
from openhqm.rabbitmq.wire import is_locked, is_missing, within, words
from openhqm.runtime.deferreds import deferred

GONE_SECONDS = 0.25
"""RabbitMQ 3.10 does not tell the consumers of a quorum queue that is made anew within 5 ms of being deleted."""
COUNT_SECONDS = 1.0
"""How old the number of what is delayed may be: it is asked for with every queue, and is the same for all."""


@attrs.frozen
class Claim:
    """A name that one process alone can have, and what to say where another one has it."""

    name: str
    refused: str


class Topology:
    """``prefix`` is what the names of our queues begin with; ``seconds`` is how long an answer may take.

    ``make``, where it is set, makes a lane that is not there, instead of `make_lane` alone.
    """

    make: Callable[[str], Deferred[None]] | None = None

    def __init__(self, reactor: Any, prefix: str, seconds: float) -> None:
        self._reactor = reactor
        self._prefix = prefix
        self._seconds = seconds
        self._protocol: Any = None
        self._channel: Any = None
        self._one_by_one = DeferredLock()
        self._known: set[str] = set()
        self._gone: dict[str, float] = {}
        self._pauses: set[Deferred[None]] = set()
        self._levels = 0
        self._counted = (0, float("-inf"))

    def up(self, protocol: Any) -> None:
        """Declare over this connection from now on."""
        self.down()
        self._protocol = protocol

    def down(self) -> None:
        """There is no connection."""
        self._protocol = self._channel = None
        self._known.clear()
        self._gone.clear()
        self._levels = 0
        for pause in list(self._pauses):
            pause.cancel()

    def knows(self, name: str) -> bool:
        """Whether the lane was declared over this connection."""
        return name in self._known

    def forget(self, name: str) -> None:
        """It is gone: somebody has deleted it."""
        self._known.discard(name)
        self._gone[name] = self._reactor.seconds()

    def forget_delays(self) -> None:
        """One of the delay queues is gone."""
        self._levels = 0

    @deferred
    async def declare(self, name: str) -> int:
        """See to it that there is the lane; how many messages are ready in it. `NotDurable`."""
        if self.make is not None:
            frame = await self._passively(name)
            if frame is None:
                await self.make(name)
            elif self.knows(name):
                return int(frame.method.message_count)
        return await self.make_lane(name)

    @deferred
    async def make_lane(self, name: str) -> int:
        """Make the lane where there is none; how many messages are ready in it. `NotDurable`."""
        gone = self._gone.get(name)
        if gone is not None:
            await self.pause(gone + GONE_SECONDS - self._reactor.seconds())
        frame = await self._ask(name, "queue_declare", queue=name, durable=True, arguments=arguments(name))
        self._known.add(name)
        self._gone.pop(name, None)
        return int(frame.method.message_count)

    async def pause(self, seconds: float) -> None:
        """Fires after a while. `NotDurable` where the connection is lost meanwhile."""
        pause: Deferred[None] = deferLater(self._reactor, max(0.0, seconds))
        self._pauses.add(pause)
        try:
            await pause
        except CancelledError:
            raise NotDurable("not connected to RabbitMQ") from None
        finally:
            self._pauses.discard(pause)

    @deferred
    async def has_lane(self, name: str) -> bool:
        """Whether there is such a lane. `NotDurable`."""
        return await self._passively(name) is not None

    def _passively(self, name: str) -> Deferred[Any]:
        """What RabbitMQ says of a queue, or None where there is none. `NotDurable`."""
        return self._ask_unless(is_missing, name, "queue_declare", queue=name, passive=True)

    @deferred
    async def claim(self, name: str) -> bool:
        """Have ``name`` for as long as this connection lasts. False where another one has it; `NotDurable`.

        A queue that is exclusive to its connection: a consumer that asks to be the only one of a quorum queue is not.
        """
        name = self._prefix + name
        return await self._ask_unless(is_locked, name, "queue_declare", queue=name, exclusive=True) is not None

    def release(self, name: str) -> Deferred[None]:
        """Claim it no more. `NotDurable`."""
        name = self._prefix + name
        return self._ask(name, "queue_delete", queue=name).addCallback(lambda frame: None)

    @deferred
    async def has_exchange(self, name: str) -> bool:
        """Whether there is such an exchange. `NotDurable`."""
        asked = await self._ask_unless(is_missing, name, "exchange_declare", exchange=name, passive=True)
        return asked is not None

    def make_exchange(self, name: str) -> Deferred[None]:
        """One that leads each message to the lane that it names, if that is bound. `NotDurable`."""
        made = self._ask(name, "exchange_declare", exchange=name, exchange_type="direct", durable=True)
        return made.addCallback(lambda frame: None)

    def bind(self, lane: str, exchange: str) -> Deferred[None]:
        """`NotDurable`."""
        bound = self._ask(lane, "queue_bind", queue=lane, exchange=exchange, routing_key=lane)
        return bound.addCallback(lambda frame: None)

    @deferred
    async def delayed(self, target: str, steps: int) -> str:
        """The exchange by which what waits for ``steps`` begins its way to the lane ``target``. `NotDurable`."""
        if not self.knows(target):
            await self.declare(target)
        top = level_of(steps)
        while self._levels <= top:
            level = self._levels
            await self._declare_level(level)
            self._levels = max(self._levels, level + 1)
        return delay_queue(self._prefix, top)

    async def _declare_level(self, level: int) -> None:
        name = delay_queue(self._prefix, level)
        here = {"x-match": "all", **waits(level, True)}
        await self._ask(name, "exchange_declare", exchange=name, exchange_type="headers", durable=True)
        await self._ask(name, "queue_declare", queue=name, durable=True, arguments=delay_arguments(self._prefix, level))
        await self._ask(name, "queue_bind", queue=name, exchange=name, routing_key="", arguments=here)
        if level:
            below = delay_queue(self._prefix, level - 1)
            on = {"x-match": "all", **waits(level, False)}
            await self._ask(name, "exchange_bind", destination=below, source=name, routing_key="", arguments=on)

    @deferred
    async def count_delayed(self) -> int:
        """How many messages lie in the delay queues, whatever they wait for. `NotDurable`."""
        count, at = self._counted
        if self._reactor.seconds() - at < COUNT_SECONDS:
            return count
        count = 0
        for level in range(LEVELS):  # they are made from below, as far as they were ever needed
            frame = await self._passively(delay_queue(self._prefix, level))
            if frame is None:
                break
            count += frame.method.message_count
        self._counted = count, self._reactor.seconds()
        return count

    @deferred
    async def _ask_unless(
        self, refused: Callable[[BaseException | None], bool], name: str, method: str, **words_of_it: Any
    ) -> Any:
        """What RabbitMQ answers, or None where it refuses for that reason. `NotDurable`."""
        try:
            return await self._ask(name, method, **words_of_it)
        except NotDurable as error:
            if not refused(error.__cause__):
                raise
            return None

    @deferred
    async def _ask(self, name: str, method: str, **words_of_it: Any) -> Any:
        # One after the other: an answer that is an error closes the channel under all that were asked with it.
        await self._one_by_one.acquire()
        try:
            if self._protocol is None:
                raise NotDurable("not connected to RabbitMQ")
            if self._channel is None or self._channel.is_closed:
                self._channel = await self._within(self._protocol.channel())
            return await self._within(getattr(self._channel, method)(**words_of_it))
        except (NotDurable, CancelledError):
            raise
        except Exception as error:  # whatever it is, there is no such queue that could be relied on
            raise NotDurable(f"RabbitMQ does not give us {name}: {words(error)}") from error
        finally:
            self._one_by_one.release()

    def _within(self, answer: Deferred[Any]) -> Deferred[Any]:
        return within(answer, max(self._seconds, 1.0), self._reactor)
