"""Time that no step of the machine's clock moves."""

from __future__ import annotations

import time
from types import SimpleNamespace

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from openhqm.runtime.steady_time import SteadyTime, ahead_of, keep_steady


class Machine:
    """A machine whose time of day is set, and whose elapsed time is not."""

    def __init__(self) -> None:
        self.day, self.elapsed = 1_800_000_000.0, 77.0

    def run(self, seconds: float) -> None:
        self.day += seconds
        self.elapsed += seconds


class SteadyTimeTests(SynchronousTestCase):
    def test_steps(self) -> None:
        """It begins with the time of day, and goes on evenly when that is set."""
        for step in (3600.0, -3600.0):
            machine = Machine()
            steady = SteadyTime(lambda machine=machine: machine.day, lambda machine=machine: machine.elapsed)
            self.assertEqual(steady(), 1_800_000_000.0)
            machine.run(5)
            machine.day += step
            machine.run(5)
            self.assertEqual(steady(), 1_800_000_010.0)

    def test_ahead(self) -> None:
        """How far the time of day is ahead is known once it was set. What small corrections leave counts as nothing."""
        machine = Machine()
        clock = SimpleNamespace(steady_time=SteadyTime(lambda: machine.day, lambda: machine.elapsed))
        told = ahead_of(clock)
        for step, ahead in ((0.0, 0.0), (0.4, 0.0), (2.0, 2.4), (-3602.4, -3600.0), (3600.0, 0.0)):
            machine.run(100)
            machine.day += step
            self.assertAlmostEqual(told(), ahead, 3)
        self.assertEqual(ahead_of(Clock())(), 0.0)

    def test_reactor(self) -> None:
        """A reactor that keeps steady time shows the time of day, and measures what really passes."""
        reactor = SimpleNamespace()
        keep_steady(reactor)
        self.assertAlmostEqual(reactor.seconds(), time.time(), 1)
        before, began = reactor.seconds(), time.monotonic()
        time.sleep(0.05)
        self.assertAlmostEqual(reactor.seconds() - before, time.monotonic() - began, 2)
