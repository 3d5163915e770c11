"""The circuit breaker: when it opens, which calls it lets begin, and what closes it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from openhqm.policy.breaker import (
    FIRST_PAUSE,
    LONGEST_PAUSE,
    NEVER,
    UNREACHABLE_CALLS,
    Breaker,
    BreakerPolicy,
    State,
)
from tests import hypothesis_profile  # noqa: F401

POLICY = BreakerPolicy(failure_ratio=0.5, minimum_calls=4, window_seconds=10, open_seconds=30)


def call(breaker: Breaker, now: float, success: bool | None) -> None:
    breaker.end(now, breaker.begin(now), success)


def opened(now: float = 0.0) -> Breaker:
    breaker = Breaker(POLICY)
    for _ in range(4):
        call(breaker, now, False)
    return breaker


class BreakerTests(SynchronousTestCase):
    """`Breaker`"""

    def test_opens(self) -> None:
        """It opens at the failure ratio, once there are enough calls."""
        breaker = Breaker(POLICY)
        for success in (False, True, True):
            call(breaker, 1, success)
            self.assertIs(breaker.state(1), State.CLOSED)
        call(breaker, 1, False)
        self.assertIs(breaker.state(1), State.OPEN)
        self.assertEqual(breaker.wait(1), 30)
        self.assertEqual(breaker.wait(21), 10)

    def test_few_calls(self) -> None:
        """Failures of a few calls do not open it: a target that is seldom called stays reachable."""
        breaker = Breaker(POLICY)
        for _ in range(3):
            call(breaker, 1, False)
        self.assertEqual((breaker.state(1), breaker.wait(1)), (State.CLOSED, 0.0))

    def test_window(self) -> None:
        """Calls before the window do not count."""
        breaker = Breaker(POLICY)
        for now in (0, 0, 0, 10):
            call(breaker, now, False)
        self.assertIs(breaker.state(10), State.CLOSED)

    def test_call_without_verdict(self) -> None:
        """A cancelled call counts neither as a success nor as a failure."""
        breaker = Breaker(POLICY)
        for success in (None, False, None, False, None, False):
            call(breaker, 1, success)
        self.assertIs(breaker.state(1), State.CLOSED)

    def test_probe(self) -> None:
        """After the pause one call may begin, and no other until it has ended. Its success closes the breaker, without
        the old failures.
        """
        breaker = opened()
        self.assertIs(breaker.state(30), State.HALF_OPEN)
        self.assertEqual(breaker.wait(30), 0.0)
        probe = breaker.begin(30)
        self.assertIsNone(breaker.wait(31))
        breaker.end(32, probe, True)
        self.assertIs(breaker.state(32), State.CLOSED)
        for _ in range(3):
            call(breaker, 33, False)
        self.assertIs(breaker.state(33), State.CLOSED)

    def test_failing_probe(self) -> None:
        """A probe that fails opens the breaker for another full pause."""
        breaker = opened()
        breaker.end(35, breaker.begin(30), False)
        self.assertEqual((breaker.state(64.9), breaker.state(65)), (State.OPEN, State.HALF_OPEN))

    def test_probe_without_verdict(self) -> None:
        """A cancelled probe lets another call begin at once."""
        breaker = opened()
        breaker.end(31, breaker.begin(30), None)
        self.assertEqual((breaker.state(31), breaker.wait(31)), (State.HALF_OPEN, 0.0))

    def test_late_calls(self) -> None:
        """A call from before the breaker opened, when it ends, changes nothing, and is not taken for the probe."""
        breaker = Breaker(POLICY)
        late = [breaker.begin(0) for _ in range(2)]
        for _ in range(4):
            call(breaker, 1, False)
        breaker.end(31, late[0], True)
        self.assertIs(breaker.state(31), State.HALF_OPEN)
        probe = breaker.begin(31)
        breaker.end(32, late[1], False)
        self.assertIsNone(breaker.wait(32))
        breaker.end(33, probe, True)
        self.assertIs(breaker.state(33), State.CLOSED)

    def test_never(self) -> None:
        """The policy `NEVER` never opens."""
        breaker = Breaker(NEVER)
        for _ in range(1000):
            call(breaker, 1, False)
        self.assertIs(breaker.state(1), State.CLOSED)

    @given(
        st.lists(st.tuples(st.floats(0, 20), st.sampled_from(("begin", "end")), st.sampled_from((True, False, None))))
    )
    def test_one_probe(self, steps: list[tuple[float, str, bool | None]]) -> None:
        """For any order of calls: none begins while the breaker is open, at most one while it is half open, and one can
        always begin in the end.
        """
        breaker, now = Breaker(POLICY), 0.0
        under_way: list[tuple[int, bool]] = []
        for seconds, step, success in steps:
            now += seconds
            if step == "begin" and breaker.wait(now) == 0.0:
                state = breaker.state(now)
                self.assertIsNot(state, State.OPEN)
                under_way.append((breaker.begin(now), state is State.HALF_OPEN))
            elif step == "end" and under_way:
                period, _ = under_way.pop(0)
                breaker.end(now, period, success)
            self.assertLessEqual(sum(probing for _, probing in under_way), 1)
        while under_way:
            breaker.end(now, under_way.pop()[0], None)
        self.assertEqual(breaker.wait(now + POLICY.open_seconds), 0.0)


class UnreachableTests(SynchronousTestCase):
    """Calls that got no connection"""

    def fails(self, breaker: Breaker, now: float, times: int = 1) -> None:
        for _ in range(times):
            breaker.end(now, breaker.begin(now), False, reached=False)

    def test_opens(self) -> None:
        """A few in succession open it, however many calls were successes before; a call that is answered begins the
        count again.
        """
        breaker = Breaker(BreakerPolicy())
        for _ in range(1000):
            call(breaker, 1, True)
        self.fails(breaker, 1, UNREACHABLE_CALLS - 1)
        call(breaker, 1, True)
        call(breaker, 1, None)
        self.fails(breaker, 1, UNREACHABLE_CALLS - 1)
        self.assertIs(breaker.state(1), State.CLOSED)
        self.fails(breaker, 1)
        self.assertEqual((breaker.state(1), breaker.unreachable, breaker.wait(1)), (State.OPEN, True, FIRST_PAUSE))

    def test_pauses(self) -> None:
        """It is tried ever more rarely, and at least every five seconds. Then it is as if nothing had been."""
        breaker, now, pauses = Breaker(BreakerPolicy()), 0.0, []
        self.fails(breaker, now, UNREACHABLE_CALLS)
        for _ in range(6):
            pauses.append(breaker.wait(now))
            now += pauses[-1] or 0.0
            self.fails(breaker, now)
        self.assertEqual(pauses, [0.5, 1, 2, 4, LONGEST_PAUSE, LONGEST_PAUSE])
        call(breaker, now + LONGEST_PAUSE, True)
        self.assertEqual((breaker.state(now), breaker.unreachable), (State.CLOSED, False))
        self.fails(breaker, now, UNREACHABLE_CALLS)
        self.assertEqual(breaker.wait(now), FIRST_PAUSE)

    def test_shorter_pause(self) -> None:
        """An endpoint with a shorter pause keeps that."""
        breaker = Breaker(BreakerPolicy(open_seconds=0.2))
        self.fails(breaker, 0, UNREACHABLE_CALLS)
        self.assertEqual(breaker.wait(0), 0.2)

    def test_answered_with_failure(self) -> None:
        """A probe that is answered with a failure opens it for the usual pause, for it was reached."""
        breaker = Breaker(POLICY)
        self.fails(breaker, 0, UNREACHABLE_CALLS)
        call(breaker, 1, False)
        self.assertEqual((breaker.wait(1), breaker.unreachable), (30, False))

    def test_never(self) -> None:
        """`NEVER` does not open."""
        breaker = Breaker(NEVER)
        self.fails(breaker, 0, 100)
        self.assertIs(breaker.state(0), State.CLOSED)
