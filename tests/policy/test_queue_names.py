# -*- test-case-name: tests.policy.test_queue_names -*-
"""Names of queues, and the partition of a key."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from openhqm.messages import Submission
from openhqm.policy.channels import group_of
from openhqm.policy.queue_names import (
    BACKLOG,
    holds_requests,
    partition_of,
    parts_of,
    queue_name,
    queue_of,
    share_of,
    without_share,
)


class QueueNamesTests(SynchronousTestCase):
    """`openhqm.policy.queue_names`"""

    def test_unique(self) -> None:
        """Each endpoint and partition has a queue of its own, which holds requests."""
        parts = [
            (endpoint, partition) for endpoint in (None, "a", "b_2", "a-1") for partition in (None, BACKLOG, 0, 1, 11)
        ]
        names = [queue_name("requests", *each) for each in parts]
        self.assertEqual(len(set(names)), len(names))
        self.assertEqual([parts_of("requests", name) for name in names], parts)
        self.assertTrue(all(holds_requests("requests", name) for name in names))

    def test_shares(self) -> None:
        """A tenant's queue is beside that of its endpoint, which can be told from it; so is the endpoint."""
        self.assertEqual(queue_of("requests", Submission(b"1", share="acme")), "requests.@acme")
        self.assertEqual(queue_of("r", Submission(b"1", endpoint="a-1", share="acme")), "r.a-1.@acme")
        for queue in ("requests", "requests.billing", "my.requests", "a.@b.requests"):
            self.assertEqual(without_share(share_of(queue, "acme")), (queue, "acme"))
            self.assertEqual(without_share(queue), (queue, None))
            self.assertEqual(share_of(queue, None), queue)
            self.assertEqual(group_of(share_of(queue, "acme")), queue)
        self.assertEqual(parts_of("requests", "requests.billing.@acme"), ("billing", None))
        self.assertEqual(parts_of("requests", "requests.@acme"), (None, None))

    def test_other_queues(self) -> None:
        """A queue whose name only begins like the request queue's holds no requests."""
        self.assertFalse(holds_requests("requests", "requests-dlq"))

    def test_stable(self) -> None:
        """The partition of a key is the same in every version: CRC-32 (ITU-T V.42)."""
        self.assertEqual(partition_of("123456789", 2**32), 0xCBF43926)
        self.assertEqual(partition_of("", 16), 0)

    @given(st.text(), st.integers(1, 1000))
    def test_in_range(self, key: str, count: int) -> None:
        """Every key has a partition, also a lone surrogate."""
        self.assertIn(partition_of(key, count), range(count))
