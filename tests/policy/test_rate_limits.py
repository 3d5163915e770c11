"""How often each caller may ask."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from openhqm.policy.rate_limits import RateLimits
from tests import hypothesis_profile  # noqa: F401

steps = st.lists(st.tuples(st.floats(0, 3), st.integers(1, 4)), max_size=60)


class RateLimitsTests(SynchronousTestCase):
    def test_burst(self) -> None:
        """All of the burst at once, then one each interval, and after a rest the whole burst again."""
        limits = RateLimits(10, 5.0)
        self.assertEqual([limits.take(b"a", 1, 0).remaining for _ in range(10)], list(range(9, -1, -1)))
        refused = limits.take(b"a", 1, 0)
        self.assertEqual((refused.wait, refused.remaining, refused.reset), (0.5, 0, 5.0))
        self.assertEqual(limits.take(b"a", 1, 0.5).wait, 0)
        self.assertGreater(limits.take(b"a", 1, 0.6).wait, 0)
        self.assertEqual(limits.take(b"a", 10, 100).wait, 0)

    def test_all_or_none(self) -> None:
        """What is refused takes nothing; more than the burst counts as the burst, or it could never be sent."""
        limits = RateLimits(10, 10.0)
        limits.take(b"a", 8, 0)
        self.assertEqual(limits.take(b"a", 3, 0).wait, 1.0)
        self.assertEqual(limits.take(b"a", 2, 0).wait, 0)
        self.assertEqual(limits.take(b"a", 1000, 10).wait, 0)
        self.assertEqual(limits.take(b"a", 1, 10).wait, 1.0)

    def test_owes(self) -> None:
        """What is larger than the burst is sent as long as anything is left, and is paid for as a whole."""
        limits = RateLimits(10, 1.0, owes=True)
        self.assertEqual(limits.take(b"a", 9, 0).wait, 0)
        taken = limits.take(b"a", 50, 0)
        self.assertEqual((taken.wait, taken.remaining), (0, 0))
        refused = limits.take(b"a", 1, 0)
        self.assertAlmostEqual(refused.wait, 5.0)
        self.assertEqual(limits.take(b"a", 1, 5.0).wait, 0)

    def test_look(self) -> None:
        """A look takes nothing, whoever looks."""
        limits = RateLimits(2, 1.0)
        self.assertEqual([limits.look(b"a", 0).remaining for _ in range(3)], [2, 2, 2])
        limits.take(b"a", 2, 0)
        self.assertEqual([limits.look(b"a", 0).wait for _ in range(3)], [0.5, 0.5, 0.5])

    def test_each(self) -> None:
        """Callers do not take from each other, and of too many the quietest is forgotten."""
        limits = RateLimits(1, 100.0, most=2)
        for caller in (b"a", b"b"):
            self.assertEqual(limits.take(caller, 1, 0).wait, 0)
            self.assertGreater(limits.take(caller, 1, 0).wait, 0)
        self.assertGreater(limits.take(b"a", 1, 0).wait, 0)  # it is not quiet
        limits.take(b"c", 1, 0)
        self.assertGreater(limits.take(b"a", 1, 0).wait, 0)
        self.assertEqual(limits.take(b"b", 1, 0).wait, 0)

    @given(steps)
    def test_never_more(self, times: list[tuple[float, int]]) -> None:
        """In no window are there more than the burst and what the rate allows in its length; the wait is enough."""
        limits, now = RateLimits(4, 2.0, 3), 0.0
        sent: list[tuple[float, int]] = []
        for pause, count in times:
            now += pause
            taken = limits.take(b"a", count, now)
            if taken.wait:
                now += taken.wait
                taken = limits.take(b"a", count, now)
            self.assertEqual(taken.wait, 0)
            sent.append((now, min(count, 3)))
            for begin, _ in sent:
                self.assertLessEqual(
                    sum(each for at, each in sent if at >= begin), 3 + 2 * (now - begin) + 1e-6, (begin, now)
                )
