"""Many time limits behind one timer."""

from __future__ import annotations

from functools import partial

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from openhqm.runtime.time_limits import TimeLimits


class TimeLimitsTests(SynchronousTestCase):
    """`TimeLimits`"""

    def setUp(self) -> None:
        self.clock = Clock()
        self.limits = TimeLimits(self.clock)
        self.late: list[str] = []

    def limit(self, name: str) -> partial[None]:
        return partial(self.late.append, name)

    def pass_time(self, until: float) -> list[str]:
        """Which are late by then."""
        self.clock.advance(until - self.clock.seconds())
        late, self.late[:] = [*self.late], []
        return late

    def test_when_due(self) -> None:
        """Each is called when its own time is over, in whatever order they were added."""
        for seconds, name in ((3.0, "c"), (1.0, "a"), (2.0, "b"), (2.0, "b2")):
            self.limits.add(seconds, self.limit(name))
        self.assertEqual(self.pass_time(0.9), [])
        self.assertEqual(self.pass_time(1.0), ["a"])
        self.assertEqual(self.pass_time(2.0), ["b", "b2"])
        self.assertEqual(self.pass_time(9.0), ["c"])

    def test_removed(self) -> None:
        """One that was removed is not called; what is left is, when its time is over."""
        first, second = self.limit("first"), self.limit("second")
        self.limits.add(1.0, first)
        self.clock.advance(0.5)
        self.limits.add(1.0, second)
        self.limits.remove(first)
        self.assertEqual(self.pass_time(1.4), [])
        self.assertEqual(self.pass_time(1.5), ["second"])
        self.limits.remove(second)
        self.limits.remove(first)

    def test_one_timer(self) -> None:
        """However many there are, one delayed call is pending, and none once all are removed."""
        limits = [self.limit(str(number)) for number in range(100)]
        for each in limits:
            self.limits.add(30.0, each)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        for each in limits:
            self.limits.remove(each)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_changed_by_one_that_is_late(self) -> None:
        """One that is late may remove another that is due as well, and add one: the rest keep their times."""
        other = self.limit("other")

        def late() -> None:
            self.limits.remove(other)
            self.limits.add(5.0, self.limit("added"))

        self.limits.add(1.0, late)
        self.limits.add(1.0, other)
        self.limits.add(2.0, self.limit("later"))
        self.assertEqual(self.pass_time(1.0), [])
        self.assertEqual(self.pass_time(2.0), ["later"])
        self.assertEqual(self.pass_time(6.0), ["added"])
        self.assertEqual(self.clock.getDelayedCalls(), [])
