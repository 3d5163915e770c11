# -*- test-case-name: tests.test_backends -*-
"""How a `RabbitMQBroker` is made of what an operator has decided. Nothing here does I/O.

The client is imported when RabbitMQ is configured, and not before.
"""

from __future__ import annotations

import random
from functools import partial

from twisted.internet.interfaces import IReactorTime

from openhqm.config.model import Settings
from openhqm.config.products import ForeignChannels
from openhqm.interfaces import IForeignBroker
from openhqm.queue.backend import MadeBroker, RunCommit
from openhqm.rabbitmq.address import parse_address, queue_fault
from openhqm.rabbitmq.settings import RabbitMQSettings

FOREIGN = ForeignChannels(
    "queue",
    queue_fault,
    queue_fault,
    answers=True,
    unused=("prefix", "consumer_timeout_seconds", "lost_after_seconds"),
    without=("key", "qos", "retain"),
    exchanges=True,
)


def make(settings: Settings, clock: IReactorTime, run_commit: RunCommit) -> MadeBroker:
    """The broker that our queue is in. `ConfigurationError` where its package is missing."""
    from openhqm.rabbitmq.broker import RabbitMQBroker
    from openhqm.rabbitmq.connecting import check_installed

    check_installed()
    ours = settings.queue.of(RabbitMQSettings)
    broker = RabbitMQBroker(
        parse_address(ours.url),
        clock,
        random.random,
        seconds=ours.timeout_seconds,
        consumer_timeout=ours.consumer_timeout_seconds or None,
    )
    return MadeBroker(broker, ours.prefix, ours.lost_after_seconds)


def make_foreign(ours: RabbitMQSettings, clock: IReactorTime) -> IForeignBroker:
    """A broker that other programs use. `ConfigurationError` where its package is missing."""
    from openhqm.rabbitmq.broker import RabbitMQBroker
    from openhqm.rabbitmq.connecting import check_installed
    from openhqm.rabbitmq.foreign import RabbitMQForeignBroker

    check_installed()
    make = partial(RabbitMQBroker, parse_address(ours.url), clock, random.random, seconds=ours.timeout_seconds)
    return RabbitMQForeignBroker(lambda answered: make(consumer_timeout=None, answered=answered))
