# -*- test-case-name: tests.policy.test_queue_names -*-
"""Queues are told apart by name, and a partition is the same one everywhere."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from openhqm.policy.queue_names import holds_requests, partition_of, parts_of, queue_name


class QueueNamesTests(SynchronousTestCase):
    """Where requests wait"""

    def test_different(self) -> None:
        """No two of endpoint and partition share a queue, and all of them hold requests."""
        parts = [(endpoint, partition) for endpoint in (None, "a", "b_2", "a-1") for partition in (None, 0, 1, 11)]
        names = [queue_name("requests", *each) for each in parts]
        self.assertEqual(len(set(names)), len(names))
        self.assertEqual([parts_of("requests", name) for name in names], parts)
        self.assertTrue(all(holds_requests("requests", name) for name in names))

    def test_others(self) -> None:
        """A queue that only begins with the same letters holds no requests."""
        self.assertFalse(holds_requests("requests", "requests-dlq"))

    def test_stable(self) -> None:
        """The partition of a key does not change from one version to the next: these are CRC-32, ITU-T V.42."""
        self.assertEqual(partition_of("123456789", 2**32), 0xCBF43926)
        self.assertEqual(partition_of("", 16), 0)

    @given(st.text(), st.integers(1, 1000))
    def test_in_range(self, key: str, count: int) -> None:
        """Every key, a lone surrogate too, has a partition."""
        self.assertIn(partition_of(key, count), range(count))
