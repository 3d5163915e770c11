"""Back-off: the delay before each retry, and the number of retries."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from openhqm.policy.retry import RetryPolicy
from tests import hypothesis_profile  # noqa: F401


def no_jitter() -> float:
    """A random number for which the delay has no jitter."""
    return 0.5


class RetryPolicyTests(SynchronousTestCase):
    """`RetryPolicy`"""

    def test_doubles(self) -> None:
        """By default the delays are 1, 2, 4 ... seconds, and at most a minute."""
        delays = [RetryPolicy().delay(attempt, no_jitter) for attempt in range(1, 10)]
        self.assertEqual(delays, [1, 2, 4, 8, 16, 32, 60, 60, 60])

    def test_max_retries(self) -> None:
        """``max_retries`` counts the attempts after the first: 3 makes 4 attempts, 0 makes one."""
        self.assertEqual([RetryPolicy(max_retries=3).exhausted(n) for n in (1, 2, 3, 4, 5)], [False] * 3 + [True] * 2)
        self.assertTrue(RetryPolicy(max_retries=0).exhausted(1))
        self.assertEqual([RetryPolicy().exhausted(n) for n in (3, 4)], [False, True])

    @given(st.integers(1, 20), st.floats(0, 1, exclude_max=True), st.floats(0, 1))
    def test_jitter(self, attempt: int, chance: float, jitter: float) -> None:
        """A delay is longer or shorter by at most the share ``jitter``."""
        planned = min(60.0, 2.0 ** (attempt - 1))
        delay = RetryPolicy(jitter=jitter).delay(attempt, lambda: chance)
        self.assertGreaterEqual(delay, planned * (1 - jitter) * 0.999999)
        self.assertLessEqual(delay, planned * (1 + jitter) * 1.000001)
        self.assertGreaterEqual(delay, 0)

    def test_jitter_spreads(self) -> None:
        """Requests that failed together are retried at different times."""
        self.assertEqual(
            [RetryPolicy(jitter=0.5).delay(1, lambda chance=chance: chance) for chance in (0.0, 0.25, 0.5)],
            [0.5, 0.75, 1.0],
        )

    @given(st.integers(1, 10**9), st.floats(1, 100), st.floats(0, 86400), st.floats(0, 7 * 86400))
    @example(10**9, 100.0, 86400.0, 604800.0)
    def test_any_attempt(self, attempt: int, factor: float, base: float, most: float) -> None:
        """For any attempt and settings, the delay is between 0 and the cap."""
        delay = RetryPolicy(base_seconds=base, factor=factor, max_seconds=most, jitter=0).delay(attempt, no_jitter)
        self.assertTrue(0 <= delay <= most, delay)

    def test_slow_growth(self) -> None:
        """A factor close to one reaches the cap later: the hundredth delay at 1 % growth is 1.01**99."""
        policy = RetryPolicy(max_retries=1000, factor=1.01, max_seconds=60, jitter=0)
        self.assertAlmostEqual(policy.delay(100, no_jitter), 1.01**99)
        self.assertEqual(policy.delay(1000, no_jitter), 60)
