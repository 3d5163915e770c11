"""Limits of rate and concurrency: they hold in every window, whatever the calls do."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from openhqm.policy.pacing import AdaptiveLimit, Pace
from tests import hypothesis_profile  # noqa: F401


def start_times(pace: Pace, waits: list[float], start: float = 0.0) -> list[float]:
    """When calls begin as soon as they may, each delayed by one of ``waits``."""
    now, times = start, []
    for late in waits:
        now += pace.wait(now) + late
        if pace.wait(now) <= 1e-9 * max(1.0, now):
            pace.begin(now)
            times.append(now)
    return times


def most_in(times: list[float], window: float) -> int:
    """The largest number of ``times`` in a window that is open at its end."""
    return max(sum(start <= time < start + window * (1 - 1e-6) for time in times) for start in times)


class PaceTests(SynchronousTestCase):
    """`Pace`"""

    def test_evenly_spaced(self) -> None:
        """Ten a second are a tenth of a second apart, and the first begins at once, also after hours without calls."""
        pace = Pace(10, 1)
        times = start_times(pace, [0.0] * 20)
        self.assertEqual([round(time, 6) for time in times], [round(number / 10, 6) for number in range(20)])
        times = start_times(pace, [0.0] * 3, 10_000.0)
        self.assertEqual([round(time - 10_000, 6) for time in times], [0, 0.1, 0.2])

    def test_one_an_hour(self) -> None:
        """One an hour is never two within an hour."""
        pace = Pace(1, 3600)
        pace.begin(0)
        self.assertEqual(pace.wait(0), 3600)

    def test_catches_up(self) -> None:
        """Timers that are late by up to 20 ms cost nothing: of 200 a second, 200 begin in a second."""
        times = start_times(Pace(200, 1), [0.02, *[0.0] * 3] * 200)
        self.assertGreaterEqual(sum(2 <= time < 3 for time in times), 195)

    @given(
        st.integers(1, 2000),
        st.sampled_from((0.1, 1.0, 60.0)),
        st.lists(st.sampled_from((0.0, 0.0, 0.0, 0.0005, 0.003, 0.02, 0.07, 1.0)), min_size=1, max_size=300),
    )
    def test_in_every_window(self, requests: int, per_seconds: float, lates: list[float]) -> None:
        """In no window of ``per_seconds`` do more than 105 % of ``requests`` begin."""
        times = start_times(Pace(requests, per_seconds), lates)
        self.assertLessEqual(most_in(times, per_seconds), requests * 1.05)


class AdaptiveLimitTests(SynchronousTestCase):
    """`AdaptiveLimit`"""

    def test_grows(self) -> None:
        """The limit grows by one after each round of successes, up to ``most``."""
        limit = AdaptiveLimit(6)
        self.assertEqual(limit.limit, 4)
        for _ in range(4):
            limit.end(0, True)
        self.assertEqual(limit.limit, 5)
        for _ in range(100):
            limit.end(0, True)
        self.assertEqual(limit.limit, 6)

    def test_shrinks(self) -> None:
        """A failure reduces the limit by 30 %, to at least one. Failures within a second count once."""
        limit = AdaptiveLimit(10)
        for _ in range(100):
            limit.end(0, True)
        for _ in range(10):
            limit.end(1, False)
        self.assertEqual(limit.limit, 7)
        limit.end(2, False)
        self.assertEqual(limit.limit, 4)
        for now in range(3, 50):
            limit.end(now, False)
        self.assertEqual(limit.limit, 1)

    def test_call_without_verdict(self) -> None:
        """A cancelled call does not change the limit."""
        limit = AdaptiveLimit(10)
        for _ in range(100):
            limit.end(0, None)
        self.assertEqual(limit.limit, 4)

    @given(st.integers(1, 50), st.lists(st.tuples(st.floats(0, 3), st.sampled_from((True, False, None)))))
    def test_bounds(self, most: int, ends: list[tuple[float, bool | None]]) -> None:
        """The limit stays between one and ``most``, whatever happens."""
        limit, now = AdaptiveLimit(most), 0.0
        for seconds, success in ends:
            now += seconds
            limit.end(now, success)
            self.assertTrue(1 <= limit.limit <= most)
