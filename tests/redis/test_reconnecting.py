"""A connection to Redis that is kept up for ever."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.error import ConnectError
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from openhqm.errors import NotDurable
from openhqm.redis.address import Address
from openhqm.redis.driver import factory
from openhqm.redis.reconnecting import FIRST_PAUSE, LONGEST_PAUSE, Reconnecting


class ReconnectingTests(SynchronousTestCase):
    """`Reconnecting`, to a socket that is not there"""

    def setUp(self) -> None:
        self.reactor: Any = MemoryReactorClock()
        self.link = self.make(Address(path="/nowhere"), lambda protocol: succeed(None))

    def make(self, address: Address, prepare: Callable[[Any], Awaitable[None]]) -> Reconnecting:
        return Reconnecting(
            address,
            self.reactor,
            factory(None, self.reactor),
            lambda: 0.999,
            seconds=1.5,
            prepare=prepare,
            up=lambda: None,
            down=lambda: None,
        )

    def refuse(self) -> None:
        """The attempt that is under way fails."""
        _, made, *_ = self.reactor.unixClients[-1]
        made.clientConnectionFailed(None, Failure(ConnectError(string="connection refused")))

    def test_for_ever(self) -> None:
        """It is tried again and again, without end: soon at first, and never later than the longest pause."""
        self.link.start()
        pauses = []
        for attempts in range(1, 2001):
            self.assertEqual(len(self.reactor.unixClients), attempts)
            self.refuse()
            self.reactor.advance(0)
            self.failureResultOf(self.link.ask("PING"), NotDurable)
            (call,) = self.reactor.getDelayedCalls()
            pauses.append(call.getTime() - self.reactor.seconds())
            self.reactor.advance(pauses[-1])
        self.assertLess(pauses[0], 2 * FIRST_PAUSE)
        self.assertLess(max(pauses), 1.5 * LONGEST_PAUSE)
        self.assertGreater(pauses[-1], LONGEST_PAUSE)

    def test_when_probed(self) -> None:
        """`when_probed` fires after the first attempt, however it went."""
        self.link.start()
        tried = self.link.when_probed()
        self.assertNoResult(tried)
        self.refuse()
        self.reactor.advance(0)
        self.successResultOf(tried)
        self.assertIn("connection refused", self.link.unavailable_reason or "")

    def test_stop_while_it_connects(self) -> None:
        """A stop waits neither for a server that may never answer, nor for the next attempt."""
        self.link.start()
        self.successResultOf(self.link.stop())
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_stop_while_it_asks_a_sentinel(self) -> None:
        """A stop waits for no other Sentinel: none is asked."""
        sentinels = (("127.0.0.1", 1), ("127.0.0.1", 2))
        link = self.make(Address(sentinels, sentinel="one"), lambda protocol: succeed(None))
        link.start()
        self.successResultOf(link.stop())
        self.assertEqual([port for _, port, *_ in self.reactor.tcpClients], [1])
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_stop_overtaken(self) -> None:
        """A connection that is made after the stop is closed."""

        async def prepare(protocol: Any) -> None:
            with contextlib.suppress(CancelledError):  # as code does that takes it for one failure among others
                await Deferred()

        link = self.make(Address(path="/nowhere"), prepare)
        link.start()
        _, made, *_ = self.reactor.unixClients[-1]
        transport = StringTransport()
        made.buildProtocol(None).makeConnection(transport)
        self.successResultOf(link.stop())
        self.assertTrue(transport.disconnected)
