# -*- test-case-name: tests.test_backends -*-
"""How a `PubSubBroker` is made of what an operator has decided. Nothing here does I/O.

The client is imported when Pub/Sub is configured, and not before.
"""

from __future__ import annotations

import os
import random

from twisted.internet.interfaces import IReactorTime

from openhqm.config.model import Settings
from openhqm.config.products import ForeignChannels
from openhqm.interfaces import IForeignBroker
from openhqm.pubsub.names import subscription_fault, topic_fault
from openhqm.pubsub.settings import PubSubSettings, check_project
from openhqm.queue.backend import MadeBroker, RunCommit

FOREIGN = ForeignChannels(
    "subscription",
    subscription_fault,
    topic_fault,
    covers=lambda subscription, topic: False,  # which topic a subscription is of, only Pub/Sub knows
    unused=("prefix", "create", "retention_seconds", "dead_letter_topic", "lost_after_seconds"),
    without=("qos", "retain", "expiry"),
    keyed=True,
    check=check_project,
)


def make(settings: Settings, clock: IReactorTime, run_commit: RunCommit) -> MadeBroker:
    """The broker that our queue is in. `ConfigurationError` where its package is missing."""
    from openhqm.pubsub.broker import Address, PubSubBroker

    ours = settings.queue.of(PubSubSettings)
    broker = PubSubBroker(
        Address.of(ours, os.environ, "queue.type"),
        clock,
        random.random,
        ours.wanted(),
        seconds=ours.timeout_seconds,
        makes=ours.create,
    )
    return MadeBroker(broker, ours.prefix, ours.lost_after_seconds)


def make_foreign(ours: PubSubSettings, clock: IReactorTime) -> IForeignBroker:
    """A broker that other programs use. `ConfigurationError` where its package is missing."""
    from openhqm.pubsub.broker import Address, PubSubBroker
    from openhqm.pubsub.foreign import PubSubForeignBroker

    broker = PubSubBroker(
        Address.of(ours, os.environ, "brokers"),
        clock,
        random.random,
        ours.wanted(own=False),
        seconds=ours.timeout_seconds,
        makes=False,
    )
    return PubSubForeignBroker(broker, clock)
