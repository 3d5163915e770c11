# -*- test-case-name: tests.test_backends -*-
"""How MQTT is made of the settings, and how the topics of other programs are named in it.

The client is imported when MQTT is configured, and not before.
"""

from __future__ import annotations

import random

from twisted.internet.interfaces import IReactorTime

from openhqm.config.model import Settings
from openhqm.config.products import ForeignChannels
from openhqm.interfaces import IForeignBroker
from openhqm.mqtt.address import covers, filter_fault, topic_fault
from openhqm.mqtt.connecting import check_installed
from openhqm.mqtt.settings import MQTTSettings
from openhqm.queue.backend import MadeBroker, RunCommit

FOREIGN = ForeignChannels(
    "topics",
    filter_fault,
    topic_fault,
    covers,
    one_reader=True,
    answers=True,
    unused=("prefix", "keeps", "message_expiry_seconds", "lost_after_seconds"),
    without=("key",),
    in_order=True,
    answers_by_topic=True,
)


def make(settings: Settings, clock: IReactorTime, run_commit: RunCommit) -> MadeBroker:
    """The broker in which our queue is. `ConfigurationError` where paho is missing."""
    from openhqm.mqtt.broker import MQTTBroker

    check_installed()
    ours = settings.queue.of(MQTTSettings)
    broker = MQTTBroker(
        ours.address,
        ours.client_id,
        clock,
        random.random,
        seconds=ours.timeout_seconds,
        keeps=ours.keeps,
        expiry=ours.message_expiry_seconds or None,
    )
    return MadeBroker(broker, ours.prefix, ours.lost_after_seconds)


def make_foreign(ours: MQTTSettings, clock: IReactorTime) -> IForeignBroker:
    """A broker of other programs. `ConfigurationError` where paho is missing."""
    from openhqm.mqtt.foreign import MQTTForeignBroker

    check_installed()
    return MQTTForeignBroker(
        ours.address,
        ours.client_id,
        clock,
        random.random,
        seconds=ours.timeout_seconds,
        status_topic=ours.status_topic,
        largest=ours.largest_message,
    )
