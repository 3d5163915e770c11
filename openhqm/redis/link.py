# -*- test-case-name: tests.redis.test_redis,tests.redis.test_connection -*-
"""A connection that is kept up for ever, and whose every command has an answer or a failure within its time.

All commands of a process travel over one connection, one behind the other without waiting: Redis answers in the
order it was asked, so the oldest unanswered command is the one to watch. Where it has waited too long the connection
is closed, or a late answer would be taken for that to another question.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, TimeoutError, fail
from twisted.internet.error import ConnectError
from twisted.internet.protocol import Factory
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from openhqm.config.redis_address import Address
from openhqm.errors import NotDurable
from openhqm.redis.dialling import Unreachable, dial
from openhqm.redis.errors import refusal
from openhqm.redis.wire import factory, is_hanging_up, is_refusal
from openhqm.runtime.deferreds import deferred

FIRST_PAUSE = 0.05
LONGEST_PAUSE = 5.0
LINGER_SECONDS = 1.0
MOST_UNANSWERED = 20_000


class Reconnecting:
    """``prepare`` says the first words on every new connection; ``up`` and ``down`` are told when it may be used."""

    _log = Logger()

    def __init__(
        self,
        address: Address,
        reactor: Any,
        makes: Factory,
        random: Callable[[], float],
        *,
        seconds: float,
        prepare: Callable[[Any], Awaitable[None]],
        up: Callable[[], None],
        down: Callable[[], None],
    ) -> None:
        self._address = address
        self._reactor = reactor
        self._makes = makes
        self._random = random
        self._seconds = seconds
        self._prepare = prepare
        self._up = up
        self._down = down
        self._protocol: Any = None
        self._watchdog: Any = None
        self._running: Deferred[None] | None = None
        self._stopped = False
        self._when_probed: Deferred[None] | None = Deferred()
        self.unavailable_reason: str | None = f"not yet connected to {address}"

    def start(self) -> None:
        """Begin to connect."""
        self._running = self._run()

    def when_probed(self) -> Deferred[None]:
        """Fires once the first attempt to connect is over, whichever way."""
        waiter: Deferred[None] = Deferred()
        if self._when_probed is None:
            waiter.callback(None)
        else:
            self._when_probed.chainDeferred(waiter)
        return waiter

    @property
    def unanswered(self) -> int:
        """How many commands have no answer yet."""
        return 0 if self._protocol is None else len(self._protocol.asked)

    def ask(self, *words: Any) -> Deferred[Any]:
        """The answer to one command; `NotDurable` where there is none. Cancelling gives up the waiting only."""
        protocol = self._protocol
        if protocol is None:
            return fail(NotDurable(self.unavailable_reason or "not connected to Redis"))
        if len(protocol.asked) >= MOST_UNANSWERED:
            return fail(NotDurable("more is waiting for Redis than it can take", retry_after=1))
        if self._watchdog is None:
            self._watchdog = self._reactor.callLater(self._seconds, self._watch)
        return protocol.execute_command(*words).addErrback(self._failed)  # type: ignore[no-any-return]

    def close_anew(self, reason: str) -> None:
        """Hang up, and connect again."""
        self.unavailable_reason = reason
        protocol, self._protocol = self._protocol, None
        if protocol is not None:
            protocol.transport.abortConnection()

    @deferred
    async def stop(self) -> None:
        """Hang up for good. What has no answer yet fails."""
        self._stopped = True
        self.unavailable_reason = "the connection to Redis is closed"
        if self._watchdog is not None:
            self._watchdog.cancel()
            self._watchdog = None
        protocol, self._protocol = self._protocol, None
        if self._running is not None:
            self._running.cancel()
            await self._running
        if protocol is not None:
            gone = protocol.whenDisconnected()
            protocol.transport.loseConnection()  # after what was written
            late = self._reactor.callLater(LINGER_SECONDS, protocol.transport.abortConnection)
            await gone
            if late.active():
                late.cancel()

    @deferred
    async def _run(self) -> None:
        pause = FIRST_PAUSE
        while not self._stopped:
            try:
                protocol = await dial(
                    self._address, self._makes, factory(None, self._reactor), self._reactor, self._seconds
                )
                try:
                    await self._prepare(protocol)
                    if self._stopped:  # the word to give up was taken for a failure that another way led around
                        raise CancelledError
                except BaseException:
                    protocol.transport.abortConnection()
                    raise
                lost = protocol.whenDisconnected()
            except CancelledError:
                return
            except Exception as error:  # whatever it is, there is nothing to do but to say so and try again
                if self._stopped:
                    return  # a connection that is given up fails in words of its own
                self._could_not_connect(error)
            else:
                pause = FIRST_PAUSE
                self._protocol = protocol
                self._connected()
                try:
                    await lost
                except CancelledError:
                    return
                self._lost()
            try:
                await deferLater(self._reactor, pause * (0.5 + self._random()))
            except CancelledError:
                return
            pause = min(pause * 2, LONGEST_PAUSE)

    def _connected(self) -> None:
        self._log.info("connected to {address}", address=str(self._address))
        self.unavailable_reason = None
        self._tried()
        self._up()

    def _lost(self) -> None:
        self._protocol = None
        self.unavailable_reason = self.unavailable_reason or f"the connection to {self._address} was lost"
        if not self._stopped:
            self._log.error("{unavailable_reason}", unavailable_reason=self.unavailable_reason)
        self._down()

    def _could_not_connect(self, error: Exception) -> None:
        unavailable_reason = f"cannot use {self._address}: {_words(error)}"
        if unavailable_reason != self.unavailable_reason:
            self._log.error("{unavailable_reason}", unavailable_reason=unavailable_reason)
        self.unavailable_reason = unavailable_reason
        self._tried()

    def _tried(self) -> None:
        waiting, self._when_probed = self._when_probed, None
        if waiting is not None:
            self._reactor.callLater(0, waiting.callback, None)  # whoever waits may stop us: not from within

    def _failed(self, failure: Failure) -> Any:
        """Redis's own refusals go to whoever asked; everything else says that there was no answer."""
        if failure.check(CancelledError) or is_refusal(failure.value):
            return failure
        return Failure(NotDurable(self.unavailable_reason or f"the connection to {self._address} was lost"))

    def _watch(self) -> None:
        self._watchdog = None
        if not self.unanswered:
            return
        asked_at, _ = self._protocol.asked[0]
        waited = self._reactor.seconds() - asked_at
        if waited >= self._seconds:
            self.close_anew(f"Redis did not answer within {self._seconds:g} s")
        else:
            self._watchdog = self._reactor.callLater(self._seconds - waited, self._watch)


def _words(error: Exception) -> str:
    if is_refusal(error):
        return refusal(str(error)).words
    if isinstance(error, TimeoutError):
        return "it does not answer"
    if isinstance(error, ConnectError | Unreachable):
        return str(error)
    if is_hanging_up(error):
        return "it hangs up without an answer"
    return f"{type(error).__name__}: {error}"
