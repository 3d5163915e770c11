# -*- test-case-name: tests.test_backends -*-
"""How an `EventHubsBroker` is made of what an operator has decided. Nothing here does I/O."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import attrs
from twisted.internet.interfaces import IReactorTime

from openhqm.config.model import Settings
from openhqm.event_hubs.settings import LARGEST_MESSAGE, EventHubsSettings, check_connection
from openhqm.interfaces import IForeignBroker
from openhqm.kafka.errors import check_installed
from openhqm.kafka.making import FOREIGN as KAFKA_FOREIGN
from openhqm.queue.backend import MadeBroker, RunCommit

if TYPE_CHECKING:
    from openhqm.event_hubs.broker import EventHubsBroker

FOREIGN = attrs.evolve(KAFKA_FOREIGN, unused=("consumer_group", "prefix", "lost_after_seconds"), check=check_connection)


def make(settings: Settings, clock: IReactorTime, run_commit: RunCommit) -> MadeBroker:
    """The broker that our queue is in. `ConfigurationError` where its package is missing."""
    ours = settings.queue.of(EventHubsSettings)
    return MadeBroker(_broker(ours, clock, "queue.type", ours=True), ours.prefix, ours.lost_after_seconds)


def make_foreign(ours: EventHubsSettings, clock: IReactorTime) -> IForeignBroker:
    """A broker that other programs use. `ConfigurationError` where its package is missing."""
    from openhqm.kafka.foreign import KafkaForeignBroker

    return KafkaForeignBroker(_broker(ours, clock, "brokers", ours=False))


def _broker(settings: EventHubsSettings, clock: IReactorTime, key: str, *, ours: bool) -> EventHubsBroker:
    from openhqm.event_hubs.broker import EventHubsBroker

    check_installed("azure_eventhubs", "event-hubs", key)
    return EventHubsBroker(
        settings.properties,
        clock,
        random.random,
        group=settings.consumer_group,
        seconds=settings.timeout_seconds,
        largest=LARGEST_MESSAGE,
        ours=ours,
    )
