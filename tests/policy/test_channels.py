"""Where a request waits in a broker, and under which name."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from openhqm.messages import Priority, Submission
from openhqm.policy.channels import Channels, key_of


class ChannelsTests(SynchronousTestCase):
    """The names of `openhqm.policy.channels`"""

    def test_of(self) -> None:
        """Endpoint and priority name the channel; within a partition the priority does not count."""
        channels = Channels("requests", "ours.")
        for submission, name in (
            (Submission(b"1"), "ours.requests"),
            (Submission(b"1", priority=Priority.HIGH), "ours.requests._high"),
            (Submission(b"1", priority=Priority.LOW, endpoint="billing"), "ours.requests.billing._low"),
            (Submission(b"1", priority=Priority.LOW, endpoint="billing", partition=3), "ours.requests.billing"),
            (Submission(b"1", partition=3), "ours.requests"),
        ):
            self.assertEqual(channels.of(submission), name)

    def test_names(self) -> None:
        """The channels of a queue stand in the order of their priority; a partition shares those of its endpoint."""
        channels = Channels("requests")
        for queue in ("requests", "requests._12"):
            self.assertEqual(channels.names(queue), ("requests._high", "requests", "requests._low"))
        self.assertEqual(channels.names("requests.billing._3")[1], "requests.billing")

    def test_each_is_consumed(self) -> None:
        """Whatever is configured, the channel of a submission is one of those that its queue consumes."""
        for priorities in ((Priority.NORMAL,), (Priority.HIGH, Priority.LOW), tuple(Priority)):
            channels = Channels("requests", "p.", priorities)
            for priority in Priority:
                for partition in (None, 0, 12):
                    submission = Submission(b"1", priority=priority, endpoint="e", partition=partition)
                    queue = "requests.e" if partition is None else f"requests.e._{partition}"
                    self.assertIn(channels.of(submission), channels.names(queue))

    def test_nearest(self) -> None:
        """A priority without a channel of its own waits in the nearest."""
        channels = Channels("requests", priorities=(Priority.HIGH, Priority.NORMAL))
        self.assertEqual(channels.of(Submission(b"1", priority=Priority.LOW)), "requests")

    def test_key(self) -> None:
        """Requests of one partition of one endpoint have one key, and no others have it."""
        first = key_of(Submission(b"1", endpoint="a", partition=1))
        self.assertEqual(first, key_of(Submission(b"2", endpoint="a", partition=1, priority=Priority.LOW)))
        for endpoint, partition in (("a", 2), ("b", 1), (None, 1)):
            self.assertNotEqual(first, key_of(Submission(b"1", endpoint=endpoint, partition=partition)))
        self.assertIsNone(key_of(Submission(b"1", endpoint="a")))
