# -*- test-case-name: tests.redis.test_reconnecting,tests.redis.test_recovery -*-
"""A connection that is kept up for ever, and whose every command has an answer or a failure within its time.

All commands of a process travel over one connection, one behind the other without waiting. Redis answers in the order
in which it was asked, so the oldest unanswered command is the one to watch. When it has waited too long the connection
is closed, or a late answer would be taken for that to another command.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, TimeoutError, fail, succeed
from twisted.internet.error import ConnectError
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure

from openhqm.errors import NotDurable
from openhqm.redis.address import Address
from openhqm.redis.connecting import Unreachable, connect
from openhqm.redis.driver import factory, is_connection_lost, is_refusal
from openhqm.redis.errors import refusal
from openhqm.runtime import reconnecting
from openhqm.runtime.deferreds import deferred
from openhqm.runtime.reconnecting import FIRST_PAUSE, LONGEST_PAUSE

__all__ = ["FIRST_PAUSE", "LONGEST_PAUSE", "Reconnecting"]

MOST_UNANSWERED = 20_000


class _Connection:
    """One that was made; see `openhqm.runtime.reconnecting.Connection`."""

    def __init__(self, protocol: Any) -> None:
        self.protocol = protocol
        self.lost: Deferred[str] = Deferred()
        protocol.whenDisconnected().addBoth(lambda _: self.lost.callback(""))

    def close(self) -> None:
        self.protocol.transport.loseConnection()

    def abort(self) -> None:
        self.protocol.transport.abortConnection()


class Reconnecting:
    """A connection to ``address``, over protocols of ``makes``.

    ``prepare`` runs the first commands on every new connection. ``up`` is called when the connection may be used, and
    ``down`` when it is lost. A command that has no answer after ``seconds`` closes the connection.
    """

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
        self._seconds = seconds
        self._prepare = prepare
        self._up = up
        self._down = down
        self._protocol: Any = None
        self._watchdog: Any = None
        self._awaiting: list[Deferred[None]] = []
        self._link = reconnecting.Reconnecting(
            str(address),
            reactor,
            random,
            connect=self._connect,
            up=self._connected,
            down=self._lost,
            describe=_describe,
        )
        self.start = self._link.start
        self.when_probed = self._link.when_probed

    @property
    def unavailable_reason(self) -> str | None:
        """Why no command can be answered now, or None."""
        return self._link.unavailable_reason

    @property
    def unanswered(self) -> int:
        """How many commands have no answer yet."""
        return 0 if self._protocol is None else len(self._protocol.asked)

    def when_up(self) -> Deferred[None]:
        """Fires once the connection may be used: at once, or when it is made. Cancelling ends the waiting."""
        if self.unavailable_reason is None:
            return succeed(None)
        waiter: Deferred[None] = Deferred(lambda waiter: self._awaiting.remove(waiter))
        self._awaiting.append(waiter)
        return waiter

    def ask(self, *arguments: Any, refused: Callable[[Failure], Any] | None = None) -> Deferred[Any]:
        """The answer to one command; `NotDurable` where there is none. Cancelling does not take the command back.

        ``refused`` is called with Redis's refusal, and what it returns or raises is the answer instead.
        """
        protocol = self._protocol
        if protocol is None:
            return fail(NotDurable(self.unavailable_reason or "not connected to Redis"))
        if len(protocol.asked) >= MOST_UNANSWERED:
            return fail(NotDurable("more is waiting for Redis than it can take", retry_after=1))
        if self._watchdog is None:
            self._watchdog = self._reactor.callLater(self._seconds, self._watch)
        return protocol.execute_command(*arguments).addErrback(self._failed, refused)  # type: ignore[no-any-return]

    def reconnect(self, reason: str) -> None:
        """Close the connection because of ``reason``, and connect again."""
        self._protocol = None
        self._link.reconnect(reason)

    @deferred
    async def stop(self) -> None:
        """Close the connection for good. A command that has no answer yet fails."""
        if self._watchdog is not None:
            self._watchdog.cancel()
            self._watchdog = None
        self._protocol = None
        await self._link.stop()
        self._protocol = None  # an attempt that was given up may have come about nevertheless

    async def _connect(self) -> _Connection:
        plain = factory(None, self._reactor)
        return _Connection(await connect(self._address, self._makes, plain, self._reactor, self._seconds))

    async def _connected(self, connection: _Connection) -> None:
        await self._prepare(connection.protocol)
        self._protocol = connection.protocol
        self._up()
        self._reactor.callLater(0, self._tell_up)  # a waiter may stop this: not from within

    def _tell_up(self) -> None:
        if self._protocol is None:
            return
        awaiting, self._awaiting = self._awaiting, []
        for waiter in awaiting:
            waiter.callback(None)

    def _lost(self, reason: str) -> None:
        self._protocol = None
        self._down()

    def _failed(self, failure: Failure, refused: Callable[[Failure], Any] | None) -> Any:
        """Redis's own refusals go to the caller; every other failure means that there was no answer."""
        if is_refusal(failure.value):
            return failure if refused is None else refused(failure)
        if failure.check(CancelledError):
            return failure
        reason = self.unavailable_reason or f"the connection to {self._address} was lost"
        return Failure(NotDurable(reason, maybe_done=True))

    def _watch(self) -> None:
        self._watchdog = None
        if not self.unanswered:
            return
        asked_at, _ = self._protocol.asked[0]
        waited = self._reactor.seconds() - asked_at
        if waited >= self._seconds:
            self.reconnect(f"Redis did not answer within {self._seconds:g} s")
        else:
            self._watchdog = self._reactor.callLater(self._seconds - waited, self._watch)


def _describe(error: Exception) -> str:
    if is_refusal(error):
        return refusal(str(error)).reason
    if isinstance(error, TimeoutError):
        return "it does not answer"
    if isinstance(error, ConnectError | Unreachable):
        return str(error)
    if is_connection_lost(error):
        return "it closes the connection without an answer"
    return f"{type(error).__name__}: {error}"
