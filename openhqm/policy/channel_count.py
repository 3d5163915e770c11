# -*- test-case-name: tests.policy.test_channel_count -*-
"""How many channels of a broker the configuration takes: products have a limit, and each channel costs something."""

from __future__ import annotations

import attrs

from openhqm.policy.addressing import Addressing
from openhqm.policy.channels import Channels


@attrs.frozen
class ChannelCount:
    """How many channels there are, and why so many.

    ``endpoints`` has the requests without an endpoint as one. ``reports``: workers without a store have a channel, too.
    ``most`` is the product's limit; None: none that matters.
    """

    endpoints: int
    priorities: int
    reports: bool = False
    most: int | None = None

    @classmethod
    def of(cls, channels: Channels, addressing: Addressing, reports: bool, most: int | None) -> ChannelCount:
        """Count the channels of every queue that has to be worked on. A partition has none of its own."""
        endpoints = len({in_name for in_name, _, _ in addressing.lanes()})
        return cls(endpoints, len(channels.priorities), reports, most)

    @property
    def total(self) -> int:
        """How many channels there are."""
        return self.endpoints * self.priorities + self.reports

    @property
    def refusal(self) -> str | None:
        """Why the product cannot hold the queue, with the numbers; None where it has enough channels."""
        if self.most is None or self.total <= self.most:
            return None
        return f"{self}, and the broker has {self.most} at most"

    def __str__(self) -> str:
        """The arithmetic, as in ``2 endpoints x 3 priorities + 1 for reports = 7 channels``."""
        requests = f"{_counted(self.endpoints, 'endpoint')} x {_counted(self.priorities, 'priority', 'priorities')}"
        reports = " + 1 for reports" if self.reports else ""
        return f"{requests}{reports} = {_counted(self.total, 'channel')}"


def _counted(number: int, one: str, more: str = "") -> str:
    return f"{number} {one if number == 1 else more or one + 's'}"
