"""Limits: what is taken beside what is open."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from openhqm.messages import Load
from openhqm.policy.limits import NO_LIMITS, Limits
from tests import hypothesis_profile  # noqa: F401

COUNTS = st.integers(0, 10**12)
LIMITS = st.none() | st.integers(1, 10**12)


class LimitsTests(SynchronousTestCase):
    """`Limits`"""

    @given(LIMITS, LIMITS, COUNTS, COUNTS, COUNTS)
    def test_never_beyond(self, most: int | None, most_bytes: int | None, requests: int, size: int, new: int) -> None:
        """A request is taken if and only if what is open afterwards is within every limit."""
        limits = Limits(most, most_bytes)
        within = (most is None or requests + 1 <= most) and (most_bytes is None or size + new <= most_bytes)
        self.assertEqual(limits.refusal(Load(requests, size), new) is None, within)

    def test_any(self) -> None:
        """Without a limit nothing is counted."""
        self.assertFalse(NO_LIMITS.any)
        self.assertTrue(Limits(requests=1).any)
        self.assertTrue(Limits(bytes=1).any)

    def test_reason(self) -> None:
        """The reason names the key that says so."""
        for limits, key in ((Limits(requests=1), "queue.limits.requests"), (Limits(bytes=9), "queue.limits.bytes")):
            refusal = limits.refusal(Load(1, 9), 1)
            assert refusal is not None
            self.assertIn(key, refusal.reason)
