"""Where a request waits in a broker, and under which name."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from openhqm.messages import Priority, Submission
from openhqm.policy.channels import Channels


class ChannelsTests(SynchronousTestCase):
    """The names of `openhqm.policy.channels`"""

    def test_of(self) -> None:
        """Endpoint and priority, or endpoint and partition, name the channel."""
        channels = Channels("requests", "ours.")
        for submission, name in (
            (Submission(b"1"), "ours.requests"),
            (Submission(b"1", priority=Priority.HIGH), "ours.requests._high"),
            (Submission(b"1", priority=Priority.LOW, endpoint="billing"), "ours.requests.billing._low"),
            (Submission(b"1", priority=Priority.LOW, endpoint="billing", partition=3), "ours.requests.billing._3"),
            (Submission(b"1", partition=3), "ours.requests._3"),
        ):
            self.assertEqual(channels.of(submission), name)

    def test_names(self) -> None:
        """The channels of a queue stand in the order of their priority."""
        channels = Channels("requests")
        self.assertEqual(channels.names("requests"), ("requests._high", "requests", "requests._low"))
        self.assertEqual(channels.names("requests.billing._3"), ("requests.billing._3",))

    def test_each_is_consumed(self) -> None:
        """Whatever is configured, the channel of a submission is one of those that its queue consumes."""
        for priorities in ((Priority.NORMAL,), (Priority.HIGH, Priority.LOW), tuple(Priority)):
            for native in (False, True):
                channels = Channels("requests", "p.", priorities, native)
                for priority in Priority:
                    for partition in (None, 0, 12):
                        submission = Submission(b"1", priority=priority, endpoint="e", partition=partition)
                        queue = "requests.e" if partition is None else f"requests.e._{partition}"
                        self.assertIn(channels.of(submission), channels.names(channels.group(queue)))

    def test_native_partitions(self) -> None:
        """Where the product keeps keys in order, a partition waits in its endpoint's channel, under its key."""
        channels = Channels("requests", native_partitions=True)
        submission = Submission(b"1", priority=Priority.LOW, partition=3)
        self.assertEqual(channels.of(submission), "requests")
        self.assertEqual(channels.key(submission), "3")
        self.assertEqual(channels.group("requests._3"), "requests")

    def test_nearest(self) -> None:
        """A priority without a channel of its own waits in the nearest."""
        channels = Channels("requests", priorities=(Priority.HIGH, Priority.NORMAL))
        self.assertEqual(channels.of(Submission(b"1", priority=Priority.LOW)), "requests")
