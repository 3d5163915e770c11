"""A connection that is kept up for ever."""

from __future__ import annotations

import contextlib
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.logger import LogLevel, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from openhqm.runtime.reconnecting import FIRST_PAUSE, LINGER_SECONDS, LONGEST_PAUSE, Reconnecting


class Connection:
    """It closes when it is told to; or, where ``hangs``, only when it is aborted."""

    def __init__(self, hangs: bool = False) -> None:
        self.lost: Deferred[str] = Deferred()
        self.hangs = hangs
        self.aborted = False

    def close(self) -> None:
        if not self.hangs:
            self.lost.callback("")

    def abort(self) -> None:
        self.aborted = True
        if not self.lost.called:
            self.lost.callback("aborted")


class ReconnectingTests(SynchronousTestCase):
    """`Reconnecting`"""

    def setUp(self) -> None:
        self.clock = Clock()
        self.attempts: list[Deferred[Connection]] = []
        self.preparing: list[Deferred[None]] = []
        self.told: list[str] = []
        self.logged: list[tuple[LogLevel, str]] = []
        globalLogPublisher.addObserver(self.log)
        self.addCleanup(globalLogPublisher.removeObserver, self.log)
        self.link: Reconnecting[Connection] = Reconnecting(
            "the server",
            self.clock,
            lambda: 0.5,
            connect=self.connect,
            up=self.up,
            down=lambda reason: self.told.append(f"down: {reason}"),
            describe=str,
        )

    def log(self, event: Any) -> None:
        text = event.get("unavailable_reason")
        if text is not None:
            self.logged.append((event["log_level"], text))

    def connect(self) -> Deferred[Connection]:
        self.attempts.append(Deferred())
        return self.attempts[-1]

    async def up(self, connection: Connection) -> None:
        if self.preparing:
            await self.preparing[-1]
        self.told.append("up")

    def connected(self, hangs: bool = False) -> Connection:
        """The attempt that is under way succeeds."""
        connection = Connection(hangs)
        self.attempts[-1].callback(connection)
        self.clock.advance(0)
        return connection

    def refuse(self) -> None:
        """The attempt that is under way fails."""
        self.attempts[-1].errback(OSError("no such host"))
        self.clock.advance(0)

    def test_up(self) -> None:
        """Before it is connected it says so; then it has no reason to be unavailable, and its connection."""
        self.assertIn("not yet connected to the server", str(self.link.unavailable_reason))
        self.link.start()
        connection = self.connected()
        self.assertIsNone(self.link.unavailable_reason)
        self.assertIs(self.link.connection, connection)
        self.assertEqual(self.told, ["up"])

    def test_for_ever(self) -> None:
        """It is tried again without end: soon at first, and never later than the longest pause."""
        self.link.start()
        pauses = []
        for attempts in range(1, 2001):
            self.assertEqual(len(self.attempts), attempts)
            self.refuse()
            (call,) = self.clock.getDelayedCalls()
            pauses.append(call.getTime() - self.clock.seconds())
            self.clock.advance(pauses[-1])
        self.assertAlmostEqual(pauses[0], FIRST_PAUSE)
        self.assertLessEqual(pauses[0], pauses[1])
        self.assertAlmostEqual(max(pauses), LONGEST_PAUSE)
        self.assertAlmostEqual(pauses[-1], LONGEST_PAUSE)

    def test_lost(self) -> None:
        """A connection that is lost is reported with the reason, and replaced."""
        self.link.start()
        self.connected().lost.callback("the cable")
        self.assertEqual(self.told, ["up", "down: the connection to the server was lost: the cable"])
        self.assertIn("the cable", str(self.link.unavailable_reason))
        self.assertIsNone(self.link.connection)
        self.clock.advance(FIRST_PAUSE)
        self.connected()
        self.assertIsNone(self.link.unavailable_reason)
        self.assertEqual(self.told[2:], ["up"])

    def test_lost_again_and_again(self) -> None:
        """Connections that do not last are made less and less often, until one lasts."""
        self.link.start()
        pauses = []
        for _ in range(10):
            self.connected().lost.callback("")
            (call,) = self.clock.getDelayedCalls()
            pauses.append(call.getTime() - self.clock.seconds())
            self.clock.advance(pauses[-1])
        self.assertAlmostEqual(pauses[-1], LONGEST_PAUSE)
        connection = self.connected()
        self.clock.advance(60)
        connection.lost.callback("")
        (call,) = self.clock.getDelayedCalls()
        self.assertAlmostEqual(call.getTime() - self.clock.seconds(), FIRST_PAUSE)

    def test_not_usable(self) -> None:
        """A connection that cannot be made usable is aborted; the attempt has failed, with the reason."""
        self.preparing.append(Deferred())
        self.link.start()
        connection = self.connected()
        self.preparing.pop().errback(OSError("too old"))
        self.assertTrue(connection.aborted)
        self.assertEqual(self.link.unavailable_reason, "cannot use the server: too old")
        self.assertEqual(self.told, [])
        self.clock.advance(FIRST_PAUSE)
        self.connected()
        self.assertIsNone(self.link.unavailable_reason)

    def test_reconnect(self) -> None:
        """Where its owner gives a connection up, its reason is the one that is told, and another one is made."""
        self.link.start()
        connection = self.connected()
        self.link.reconnect("it makes no sense")
        self.assertTrue(connection.aborted)
        self.assertEqual(self.told, ["up", "down: it makes no sense"])
        self.clock.advance(FIRST_PAUSE)
        self.assertEqual(len(self.attempts), 2)

    def test_probed(self) -> None:
        """Whoever asks is told after the first attempt, whichever way it went, and may stop it then."""
        self.link.start()
        first, second = self.link.when_probed(), self.link.when_probed()
        second.addCallback(lambda _: self.link.stop())
        self.assertNoResult(first)
        self.refuse()
        self.successResultOf(first)
        self.successResultOf(second)
        self.successResultOf(self.link.when_probed())

    def test_logged(self) -> None:
        """Each reason is logged once. Before the first connection it is a warning, afterwards an error."""
        self.link.start()
        for _ in range(3):
            self.refuse()
            self.clock.advance(LONGEST_PAUSE)
        self.connected().lost.callback("")
        for _ in range(3):
            self.clock.advance(LONGEST_PAUSE)
            self.refuse()
        self.assertEqual(
            self.logged,
            [
                (LogLevel.warn, "cannot use the server: no such host"),
                (LogLevel.error, "the connection to the server was lost"),
                (LogLevel.error, "cannot use the server: no such host"),
            ],
        )

    def stopped(self) -> None:
        """Stopping ends, leaves no timer, and connects no more."""
        self.successResultOf(self.link.stop())
        self.successResultOf(self.link.stop())
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertIn("is closed", str(self.link.unavailable_reason))
        attempts = len(self.attempts)
        self.link.start()
        self.assertEqual(len(self.attempts), attempts)

    def test_stop_unstarted(self) -> None:
        """What was never started is stopped at once."""
        self.stopped()

    def test_stop_while_it_connects(self) -> None:
        """Stopping does not wait for a server that may never answer."""
        self.link.start()
        self.stopped()

    def test_stop_between_attempts(self) -> None:
        """Nor for the next attempt."""
        self.link.start()
        self.refuse()
        self.stopped()

    def test_stop_overtaken(self) -> None:
        """Nor for a connection that comes about although it was given up: that is aborted."""
        reached: list[Connection] = []

        async def up(connection: Connection) -> None:
            reached.append(connection)
            with contextlib.suppress(CancelledError):  # as where that is taken for one failure among others
                await Deferred()

        link: Reconnecting[Connection] = Reconnecting(
            "the server", self.clock, lambda: 0.5, connect=self.connect, up=up, down=self.told.append, describe=str
        )
        link.start()
        self.connected()
        self.successResultOf(link.stop())
        self.assertTrue(reached[0].aborted)
        self.assertEqual(self.told, [])

    def test_stop_while_connected(self) -> None:
        """The connection is closed in good order, and its owner is told."""
        self.link.start()
        connection = self.connected()
        self.stopped()
        self.assertFalse(connection.aborted)
        self.assertEqual(self.told, ["up", "down: the connection to the server is closed"])

    def test_stop_hanging(self) -> None:
        """A server that does not close the connection in its time has it aborted."""
        self.link.start()
        connection = self.connected(hangs=True)
        stopping = self.link.stop()
        self.assertNoResult(stopping)
        self.clock.advance(LINGER_SECONDS)
        self.successResultOf(stopping)
        self.assertTrue(connection.aborted)
        self.assertEqual(self.clock.getDelayedCalls(), [])
