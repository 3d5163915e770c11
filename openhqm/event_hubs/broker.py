# -*- test-case-name: tests.event_hubs.test_contract -*-
"""What is different on the Kafka endpoint of Event Hubs.

https://learn.microsoft.com/azure/event-hubs/apache-kafka-configurations has the settings, and
https://learn.microsoft.com/azure/event-hubs/event-hubs-quotas the limits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import attrs

from openhqm.errors import NotDurable
from openhqm.interfaces.broker import DepthKind
from openhqm.kafka.broker import KafkaBroker
from openhqm.runtime.deferreds import deferred

MOST_HUBS = 10
"""In a namespace of the Standard tier."""
_DIFFERENT = {
    "metadata.max.age.ms": 180_000,
    "connections.max.idle.ms": 180_000,  # the service drops idle connections after 240 s
    "max.in.flight.requests.per.connection": 1,  # keeps the order, and is faster than more where nothing is idempotent
}


class EventHubsBroker(KafkaBroker):
    """The hubs of one namespace. They are made by an operator, and their depth cannot be told."""

    def __init__(
        self,
        properties: Mapping[str, Any],
        reactor: Any,
        random: Callable[[], float],
        *,
        group: str,
        seconds: float,
        largest: int,
        ours: bool = True,
    ) -> None:
        super().__init__(
            {**properties, **_DIFFERENT},
            reactor,
            random,
            group=group,
            seconds=seconds,
            largest=largest,
            idempotent=False,
            ours=ours,
            product="Event Hubs",
        )
        self.traits = attrs.evolve(self.traits, makes_channels=False, most_channels=MOST_HUBS, depth=DepthKind.NONE)

    @deferred
    async def ensure(self, channel: str) -> None:
        if not await self.exists(channel):
            raise NotDurable(f"Event Hubs has no hub {channel}: make it, and a consumer may read it at once")

    @deferred
    async def depth(self, channel: str) -> int | None:
        await self.exists(channel)
        return None
