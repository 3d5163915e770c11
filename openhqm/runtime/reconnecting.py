# -*- test-case-name: tests.runtime.test_reconnecting -*-
"""A connection to a server that is kept up for ever."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Generic, Protocol, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from openhqm.runtime.deferreds import deferred

FIRST_PAUSE = 0.05
LONGEST_PAUSE = 5.0
"""Seconds between two attempts; each pause is between half and one and a half times as long."""
LINGER_SECONDS = 1.0
"""How long a server may take to close a connection in good order."""


class Connection(Protocol):
    """One connection that was made. ``lost`` fires once when it is over, with the reason, or "" where none is known."""

    lost: Deferred[str]

    def close(self) -> None:
        """Close it after what was written."""

    def abort(self) -> None:
        """Close it now."""


C = TypeVar("C", bound=Connection)


class Reconnecting(Generic[C]):
    """Connects, waits until the connection is lost, and connects again, with a pause that grows and varies.

    ``peer`` names the server in logs and reasons. ``connect`` makes one attempt. ``up`` makes the connection usable;
    where it fails, so has the attempt. ``down`` is called with the reason when a connection that was up is lost or
    closed. ``describe`` puts an error of ``connect`` or ``up`` into plain text. ``random`` is as `random.random`.
    """

    _log = Logger()

    def __init__(
        self,
        peer: str,
        clock: IReactorTime,
        random: Callable[[], float],
        *,
        connect: Callable[[], Awaitable[C]],
        up: Callable[[C], Awaitable[None]],
        down: Callable[[str], None],
        describe: Callable[[Exception], str],
    ) -> None:
        self._peer = peer
        self._clock = clock
        self._random = random
        self._connect = connect
        self._up = up
        self._down = down
        self._describe = describe
        self._running: Deferred[None] | None = None
        self._stopped = False
        self._was_connected = False
        self._probed: Deferred[None] | None = Deferred()
        self.connection: C | None = None
        self.unavailable_reason: str | None = f"not yet connected to {peer}"

    def start(self) -> None:
        """Begin to connect, unless that was done before."""
        if self._running is None and not self._stopped:
            self._running = self._run()

    def when_probed(self) -> Deferred[None]:
        """Fires once the first attempt to connect is over; ``unavailable_reason`` says how it went."""
        waiter: Deferred[None] = Deferred()
        if self._probed is None:
            waiter.callback(None)
        else:
            self._probed.chainDeferred(waiter)
        return waiter

    def reconnect(self, reason: str) -> None:
        """Give this connection up, and connect again."""
        self.unavailable_reason = reason
        if self.connection is not None:
            self.connection.abort()

    @deferred
    async def stop(self) -> None:
        """Close the connection for good. It fires once that is done, and does not fail."""
        self._stopped = True
        self.unavailable_reason = f"the connection to {self._peer} is closed"
        if self._running is None:
            return
        connection = self.connection
        if connection is None:
            self._running.cancel()
            await self._running
            return
        late = self._clock.callLater(LINGER_SECONDS, connection.abort)
        connection.close()
        await self._running
        if late.active():
            late.cancel()

    @deferred
    async def _run(self) -> None:
        pause = FIRST_PAUSE
        while not self._stopped:
            try:
                connection = await self._connect()
                try:
                    await self._up(connection)
                    if self._stopped:  # the cancellation was taken for a failure that another way led around
                        raise CancelledError
                except BaseException:
                    connection.abort()
                    raise
            except CancelledError:
                return
            except Exception as error:  # whatever it is, all that can be done is to say so and to try again
                if self._stopped:
                    return  # an attempt that is given up fails in its own way
                self._could_not_connect(self._describe(error))
            else:
                self._connected(connection)
                since = self._clock.seconds()
                self._lost(await connection.lost)
                if self._clock.seconds() - since > LONGEST_PAUSE:  # else it is lost again and again
                    pause = FIRST_PAUSE
            if self._stopped:
                return
            try:
                # Never in the turn in which it was lost: pika still holds the old connection there.
                await deferLater(self._clock, pause * (0.5 + self._random()))
            except CancelledError:
                return
            pause = min(pause * 2, LONGEST_PAUSE)

    def _connected(self, connection: C) -> None:
        self._log.info("connected to {peer}", peer=self._peer)
        self.connection = connection
        self._was_connected = True
        self.unavailable_reason = None
        self._tried()

    def _lost(self, reason: str) -> None:
        self.connection = None
        if self.unavailable_reason is None:
            self.unavailable_reason = f"the connection to {self._peer} was lost" + (f": {reason}" if reason else "")
        if not self._stopped:
            self._log.error("{unavailable_reason}", unavailable_reason=self.unavailable_reason)
        self._down(self.unavailable_reason)

    def _could_not_connect(self, reason: str) -> None:
        unavailable_reason = f"cannot use {self._peer}: {reason}"
        if unavailable_reason != self.unavailable_reason:
            # Servers that start together are up in any order: until the first connection that is no error.
            log = self._log.error if self._was_connected else self._log.warn
            log("{unavailable_reason}", unavailable_reason=unavailable_reason)
        self.unavailable_reason = unavailable_reason
        self._tried()

    def _tried(self) -> None:
        probed, self._probed = self._probed, None
        if probed is not None:
            self._clock.callLater(0, probed.callback, None)  # a waiter may stop this: not from within
