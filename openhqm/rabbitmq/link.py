# -*- test-case-name: tests.rabbitmq.test_rabbitmq,tests.rabbitmq.test_parts -*-
"""A connection that is kept up for ever."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater
from twisted.logger import Logger

from openhqm.config.rabbitmq_address import Address
from openhqm.rabbitmq.dialling import Unreachable, dial
from openhqm.rabbitmq.wire import connection_of, words
from openhqm.runtime.deferreds import deferred

FIRST_PAUSE = 0.05
LONGEST_PAUSE = 5.0
LINGER_SECONDS = 1.0
LOOK_SECONDS = 3.0
MOST_SILENT_LOOKS = 4


class Reconnecting:
    """``up`` makes a new connection usable; ``down`` is told with the reason when it is lost."""

    _log = Logger()

    def __init__(
        self,
        address: Address,
        name: str,
        reactor: Any,
        random: Callable[[], float],
        *,
        seconds: float,
        up: Callable[[Any], Awaitable[None]],
        down: Callable[[str], None],
    ) -> None:
        self._address = address
        self._name = name
        self._reactor = reactor
        self._random = random
        self._seconds = seconds
        self._up = up
        self._down = down
        self._running: Deferred[None] | None = None
        self._protocol: Any = None
        self._looking: Any = None
        self._stopped = False
        self._when_probed: Deferred[None] | None = Deferred()
        self.unavailable_reason: str | None = f"not yet connected to {address}"

    def start(self) -> None:
        """Begin to connect, unless it has."""
        if self._running is None:
            self._running = self._run()

    def when_probed(self) -> Deferred[None]:
        """Fires once the first attempt to connect is over, whichever way."""
        waiter: Deferred[None] = Deferred()
        if self._when_probed is None:
            waiter.callback(None)
        else:
            self._when_probed.chainDeferred(waiter)
        return waiter

    def close_anew(self, reason: str) -> None:
        """Hang up, and connect again."""
        self.unavailable_reason = reason
        if self._protocol is not None:
            self._protocol.transport.abortConnection()

    @deferred
    async def stop(self) -> None:
        """Hang up for good."""
        self._stopped = True
        self._look_no_more()
        self.unavailable_reason = "the connection to RabbitMQ is closed"
        protocol, self._protocol = self._protocol, None
        closed: Any = None
        if protocol is not None and protocol.closed is not None:
            closed = Deferred()
            protocol.closed.addBoth(lambda reason: closed.callback(None))
            protocol.close()
        if self._running is not None:
            self._running.cancel()
            await self._running
        if closed is not None:
            late = self._reactor.callLater(LINGER_SECONDS, protocol.transport.abortConnection)
            await closed
            if late.active():
                late.cancel()

    @deferred
    async def _run(self) -> None:
        pause = FIRST_PAUSE
        while not self._stopped:
            try:
                protocol = await dial(self._address, self._name, self._reactor, self._seconds)
                closed: Deferred[Any] = Deferred()
                if protocol.closed is None:
                    raise Unreachable("it hangs up at once")
                protocol.closed.addBoth(lambda reason, closed=closed: closed.callback(reason))
                try:
                    await self._up(protocol)
                    if self._stopped:  # the word to give up was taken for a failure that another way led around
                        raise CancelledError
                except BaseException:
                    if protocol.transport is not None:
                        protocol.transport.abortConnection()
                    raise
            except CancelledError:
                return
            except Exception as error:  # whatever it is, there is nothing to do but to say so and try again
                if self._stopped:
                    return  # a connection that is given up fails in words of its own
                self._could_not_connect(error)
            else:
                pause = FIRST_PAUSE
                self._protocol = protocol
                self._log.info("connected to {address}", address=str(self._address))
                self.unavailable_reason = None
                self._tried()
                self._look(protocol, connection_of(protocol).bytes_received, 0)
                try:
                    reason = await closed
                except CancelledError:
                    self._down("the connection to RabbitMQ is closed")
                    return
                self._lost(protocol.farewell or reason)
            try:
                # Never in the turn in which it was lost: pika still holds the old connection there.
                await deferLater(self._reactor, pause * (0.5 + self._random()))
            except CancelledError:
                return
            pause = min(pause * 2, LONGEST_PAUSE)

    def _look(self, protocol: Any, before: int, silent: int) -> None:
        """Hang up on who has said nothing for long. A stalled process of ours has looked only once in all that time."""
        if protocol is not self._protocol:
            return
        received = connection_of(protocol).bytes_received
        silent = silent + 1 if received == before else 0
        if silent >= MOST_SILENT_LOOKS:
            self.close_anew(f"RabbitMQ at {self._address} does not answer")
        else:
            self._looking = self._reactor.callLater(LOOK_SECONDS, self._look, protocol, received, silent)

    def _look_no_more(self) -> None:
        if self._looking is not None and self._looking.active():
            self._looking.cancel()

    def _lost(self, reason: Any) -> None:
        self._protocol = None
        self._look_no_more()
        why = f": {words(reason)}" if isinstance(reason, BaseException) else ""
        self.unavailable_reason = self.unavailable_reason or f"the connection to {self._address} was lost{why}"
        if not self._stopped:
            self._log.error("{unavailable_reason}", unavailable_reason=self.unavailable_reason)
        self._down(self.unavailable_reason)

    def _could_not_connect(self, error: Exception) -> None:
        why = str(error) if isinstance(error, Unreachable) else words(error)
        unavailable_reason = f"cannot use {self._address}: {why}"
        if unavailable_reason != self.unavailable_reason:
            self._log.error("{unavailable_reason}", unavailable_reason=unavailable_reason)
        self.unavailable_reason = unavailable_reason
        self._tried()

    def _tried(self) -> None:
        waiting, self._when_probed = self._when_probed, None
        if waiting is not None:
            self._reactor.callLater(0, waiting.callback, None)  # whoever waits may stop us: not from within
