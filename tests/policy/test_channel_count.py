"""How many channels of a broker a configuration takes."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from openhqm.messages import Priority
from openhqm.policy.addressing import Addressing, Partitioning
from openhqm.policy.channel_count import ChannelCount
from openhqm.policy.channels import Channels
from openhqm.policy.fields import Field
from openhqm.policy.queue_names import queue_name

KEY = Field.parse("metadata.partition_key")


class ChannelCountTests(SynchronousTestCase):
    """`ChannelCount`"""

    def test_endpoints(self) -> None:
        """Each endpoint has the channels of each priority; what has no endpoint counts as one, and is the default."""
        two = (Priority.HIGH, Priority.NORMAL)
        for addressing, priorities, total in (
            (Addressing(), tuple(Priority), 3),
            (Addressing(endpoints=("a", "b")), tuple(Priority), 9),
            (Addressing(endpoints=("a", "b"), default="a"), tuple(Priority), 6),
            (Addressing(endpoints=("a", "b"), default="a"), two, 4),
        ):
            count = ChannelCount.of(Channels("requests", "ours.", priorities), addressing, False, None)
            self.assertEqual(count.total, total)

    def test_partitions(self) -> None:
        """It is the number of different names that the channels have: a partition has none of its own."""
        channels = Channels("requests")
        addressing = Addressing(endpoints=("a", "b"), partitioning=Partitioning(KEY, 16))
        names = set()
        for in_name, _, partition in addressing.lanes():
            names |= set(channels.names(queue_name("requests", in_name, partition)))
        count = ChannelCount.of(channels, addressing, False, None)
        self.assertEqual((count.total, count.endpoints, count.priorities), (len(names), 3, 3))

    def test_the_arithmetic(self) -> None:
        """It is shown as it is calculated, in words that have a singular."""
        for count, text in (
            (ChannelCount(1, 3), "1 endpoint x 3 priorities = 3 channels"),
            (ChannelCount(1, 1), "1 endpoint x 1 priority = 1 channel"),
            (ChannelCount(2, 3, reports=True), "2 endpoints x 3 priorities + 1 for reports = 7 channels"),
        ):
            self.assertEqual(str(count), text)

    def test_the_limit(self) -> None:
        """As many as the product has are not too many; one more is refused, with the numbers."""
        for most in (None, 8, 7):
            self.assertIsNone(ChannelCount(2, 3, True, most).refusal)
        refusal = ChannelCount(2, 3, True, 6).refusal
        self.assertEqual(
            refusal, "2 endpoints x 3 priorities + 1 for reports = 7 channels, and the broker has 6 at most"
        )
