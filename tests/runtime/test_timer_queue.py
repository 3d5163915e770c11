"""Things at their time, behind one timer."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from openhqm.runtime.timer_queue import TimerQueue
from tests import hypothesis_profile  # noqa: F401


class AgendaTests(SynchronousTestCase):
    """`TimerQueue`"""

    @given(st.lists(st.integers(-5, 20), max_size=12))
    def test_everything_at_its_time(self, dues: list[int]) -> None:
        """Each call comes once, not before its time and not after; in order of time, then in order of asking."""
        clock = Clock()
        timers = TimerQueue(clock)
        called: list[tuple[float, int, int]] = []
        for number, due in enumerate(dues):
            timers.at(due, lambda due=due, number=number: called.append((clock.seconds(), due, number)))
            self.assertLessEqual(len(clock.getDelayedCalls()), 1)
        clock.pump([0] + [1] * 20)
        self.assertEqual(
            called, [(max(0, due), due, number) for due, number in sorted(zip(dues, range(99), strict=False))]
        )
        self.assertEqual(clock.getDelayedCalls(), [])

    def test_an_earlier_thing(self) -> None:
        """What is put in later and is due earlier comes earlier."""
        clock = Clock()
        timers = TimerQueue(clock)
        called: list[str] = []
        timers.at(10, lambda: called.append("late"))
        timers.at(5, lambda: called.append("early"))
        clock.advance(5)
        self.assertEqual(called, ["early"])
        clock.advance(5)
        self.assertEqual(called, ["early", "late"])

    def test_a_thing_that_leads_to_another(self) -> None:
        """A call may put in further ones, due now or later."""
        clock = Clock()
        timers = TimerQueue(clock)
        called: list[float] = []

        def again() -> None:
            called.append(clock.seconds())
            if len(called) < 4:
                timers.at(clock.seconds() + (0 if len(called) == 1 else 2), again)

        timers.at(1, again)
        clock.pump([1] * 6)
        self.assertEqual(called, [1, 1, 3, 5])

    def test_stop(self) -> None:
        """After stopping nothing is called, no timer is left, and what is put in then is forgotten too."""
        clock = Clock()
        timers = TimerQueue(clock)
        called: list[int] = []
        timers.at(1, timers.stop)
        timers.at(1, lambda: called.append(1))
        timers.at(2, lambda: called.append(2))
        clock.advance(1)
        timers.at(3, lambda: called.append(3))
        timers.stop()
        self.assertEqual(clock.getDelayedCalls(), [])
        clock.advance(10)
        self.assertEqual(called, [])
