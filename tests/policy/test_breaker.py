"""The circuit breaker: when it opens, whom it lets through, and what closes it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from openhqm.policy.breaker import NEVER, Breaker, BreakerPolicy, State
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
        """At the ratio, once there are enough calls, and not before."""
        breaker = Breaker(POLICY)
        for success in (False, True, True):
            call(breaker, 1, success)
            self.assertIs(breaker.state(1), State.CLOSED)
        call(breaker, 1, False)
        self.assertIs(breaker.state(1), State.OPEN)
        self.assertEqual(breaker.wait(1), 30)
        self.assertEqual(breaker.wait(21), 10)

    def test_few_calls(self) -> None:
        """Failures alone are not enough while there are few of them: a target that is seldom called stays reachable."""
        breaker = Breaker(POLICY)
        for _ in range(3):
            call(breaker, 1, False)
        self.assertEqual((breaker.state(1), breaker.wait(1)), (State.CLOSED, 0.0))

    def test_window(self) -> None:
        """What lies further back than the window is forgotten."""
        breaker = Breaker(POLICY)
        for now in (0, 0, 0, 10):
            call(breaker, now, False)
        self.assertIs(breaker.state(10), State.CLOSED)

    def test_says_nothing(self) -> None:
        """A call that was given up counts for nothing, as success or as failure."""
        breaker = Breaker(POLICY)
        for success in (None, False, None, False, None, False):
            call(breaker, 1, success)
        self.assertIs(breaker.state(1), State.CLOSED)

    def test_probe(self) -> None:
        """After the pause one call goes, nobody else until it has ended; success closes it, with a clean slate."""
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
        """A probe that fails opens it for another whole pause."""
        breaker = opened()
        breaker.end(35, breaker.begin(30), False)
        self.assertEqual((breaker.state(64.9), breaker.state(65)), (State.OPEN, State.HALF_OPEN))

    def test_probe_that_says_nothing(self) -> None:
        """One that was given up makes room for another at once."""
        breaker = opened()
        breaker.end(31, breaker.begin(30), None)
        self.assertEqual((breaker.state(31), breaker.wait(31)), (State.HALF_OPEN, 0.0))

    def test_stragglers(self) -> None:
        """A call from before it opened ends late: it neither closes it nor keeps it open, nor counts as the probe."""
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
        """There is a policy under which it never opens."""
        breaker = Breaker(NEVER)
        for _ in range(1000):
            call(breaker, 1, False)
        self.assertIs(breaker.state(1), State.CLOSED)

    @given(
        st.lists(st.tuples(st.floats(0, 20), st.sampled_from(("begin", "end")), st.sampled_from((True, False, None))))
    )
    def test_one_probe(self, steps: list[tuple[float, str, bool | None]]) -> None:
        """In whatever order calls begin and end: while it is half open there is never more than one, while it is open
        none begins, and a call can always begin in the end."""
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
