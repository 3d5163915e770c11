"""`TimerQueue`: many timers behind one delayed call."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from openhqm.runtime.timer_queue import TimerQueue
from tests import hypothesis_profile  # noqa: F401


class TimerQueueTests(SynchronousTestCase):
    """`TimerQueue`"""

    @given(st.lists(st.integers(-5, 20), max_size=12))
    def test_called_at_due_time(self, dues: list[int]) -> None:
        """Each function is called once, at its due time; in order of due times, then in order of addition."""
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

    def test_earlier_entry(self) -> None:
        """An entry added later with an earlier due time is called earlier."""
        clock = Clock()
        timers = TimerQueue(clock)
        called: list[str] = []
        timers.at(10, lambda: called.append("late"))
        timers.at(5, lambda: called.append("early"))
        clock.advance(5)
        self.assertEqual(called, ["early"])
        clock.advance(5)
        self.assertEqual(called, ["early", "late"])

    def test_entry_added_by_a_call(self) -> None:
        """A function may add entries, due now or later."""
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
        """After stopping, no function is called, no delayed call is pending, and new entries are dropped."""
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
