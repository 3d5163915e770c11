# -*- test-case-name: tests.policy.test_channel_count -*-
"""How many channels of a broker the configuration takes: products have a limit, and each channel costs something."""

from __future__ import annotations

import attrs

from openhqm.policy.addressing import Addressing
from openhqm.policy.channels import Channels
from openhqm.policy.queue_names import queue_name


@attrs.frozen
class ChannelCount:
    """How many channels requests wait in, and why so many.

    ``endpoints`` has the requests without an endpoint as one. ``partitions``: 0 where a partition is no channel of its
    own. ``most`` is the product's limit; None: none that matters.
    """

    endpoints: int
    priorities: int
    partitions: int
    most: int | None = None

    @classmethod
    def of(cls, channels: Channels, addressing: Addressing, most: int | None) -> ChannelCount:
        """Count the channels of every queue that has to be worked on."""
        lanes = [(in_name, partition) for in_name, _, partition in addressing.lanes()]
        queues = [queue_name(channels.requests, in_name, partition) for in_name, partition in lanes]
        names = {name for queue in queues for name in channels.names(queue)}
        endpoints, priorities = len({in_name for in_name, _ in lanes}), len(channels.priorities)
        return cls(endpoints, priorities, len(names) // endpoints - priorities, most)

    @property
    def total(self) -> int:
        """How many channels requests wait in."""
        return self.endpoints * (self.priorities + self.partitions)

    @property
    def refusal(self) -> str | None:
        """Why the product cannot hold the queue, with the numbers; None where it has enough channels."""
        if self.most is None or self.total <= self.most:
            return None
        return f"{self}, and the broker has {self.most} at most"

    def __str__(self) -> str:
        """The arithmetic, as in ``2 endpoints x (3 priorities + 16 partitions) = 38 channels``."""
        each = _counted(self.priorities, "priority", "priorities")
        if self.partitions:
            each = f"({each} + {_counted(self.partitions, 'partition')})"
        return f"{_counted(self.endpoints, 'endpoint')} x {each} = {_counted(self.total, 'channel')}"


def _counted(number: int, one: str, more: str = "") -> str:
    return f"{number} {one if number == 1 else more or one + 's'}"
