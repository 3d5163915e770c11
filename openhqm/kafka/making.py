# -*- test-case-name: tests.test_backends -*-
"""How a `KafkaBroker` is made of what an operator has decided. Nothing here does I/O.

The client is imported when Kafka is configured, and not before.
"""

from __future__ import annotations

import random

from twisted.internet.interfaces import IReactorTime

from openhqm.config.model import Settings
from openhqm.config.products import ForeignChannels
from openhqm.interfaces import IForeignBroker
from openhqm.kafka.errors import check_installed
from openhqm.kafka.settings import KafkaSettings, check_connection, topic_fault
from openhqm.queue.backend import MadeBroker, RunCommit

FOREIGN = ForeignChannels(
    "topic",
    topic_fault,
    topic_fault,
    unused=("consumer_group", "prefix", "partitions", "replication", "lost_after_seconds"),
    without=("qos", "retain", "expiry"),
    check=check_connection,
    in_order=True,
    keyed=True,
)


def make(settings: Settings, clock: IReactorTime, run_commit: RunCommit) -> MadeBroker:
    """The broker that our queue is in. `ConfigurationError` where its package is missing."""
    from openhqm.kafka.broker import KafkaBroker

    check_installed()
    ours = settings.queue.of(KafkaSettings)
    broker = KafkaBroker(
        ours.properties,
        clock,
        random.random,
        group=ours.consumer_group,
        seconds=ours.timeout_seconds,
        largest=ours.largest_message,
        partitions=ours.partitions,
        replication=ours.replication,
    )
    return MadeBroker(broker, ours.prefix, ours.lost_after_seconds)


def make_foreign(ours: KafkaSettings, clock: IReactorTime) -> IForeignBroker:
    """A broker that other programs use. `ConfigurationError` where its package is missing."""
    from openhqm.kafka.broker import KafkaBroker
    from openhqm.kafka.foreign import KafkaForeignBroker

    check_installed(key="brokers")
    broker = KafkaBroker(
        ours.properties,
        clock,
        random.random,
        group=ours.consumer_group,
        seconds=ours.timeout_seconds,
        largest=ours.largest_message,
        ours=False,
    )
    return KafkaForeignBroker(broker)
