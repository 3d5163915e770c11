# -*- test-case-name: tests.testing.test_fake_broker -*-
"""The traits of the products that OpenHQM knows, for `openhqm.testing.FakeBroker` to behave like each of them."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import evolve

from openhqm.interfaces import Acks, BrokerTraits, DepthKind

_AMQP = BrokerTraits()
_SQS = BrokerTraits(
    lease_seconds=30.0,
    longest_lease_seconds=12 * 3600.0,
    largest_message=1024 * 1024,
    largest_batch=10,
    depth=DepthKind.APPROXIMATE,
)
_PUBSUB = BrokerTraits(lease_seconds=60.0, counts_redeliveries=False, depth=DepthKind.NONE)
_KAFKA = BrokerTraits(
    acks=Acks.PREFIX,
    requeues=False,
    counts_redeliveries=False,
    native_partitions=True,
    depth=DepthKind.APPROXIMATE,
)
_MQTT = BrokerTraits(acks=Acks.IN_ORDER, requeues=False, counts_redeliveries=False, keeps=1000, depth=DepthKind.NONE)


def _short(traits: BrokerTraits) -> BrokerTraits:
    """The same with leases that no handler can outlast without an extension, nor for long with them."""
    return evolve(traits, lease_seconds=1.0, longest_lease_seconds=10.0)


FORMS: Mapping[str, BrokerTraits] = {
    "amqp": _AMQP,
    "amqp, short lease": _short(_AMQP),
    "sqs": _SQS,
    "sqs, short lease": _short(_SQS),
    "pubsub": _PUBSUB,
    "pubsub, short lease": _short(_PUBSUB),
    "pubsub-ordered": evolve(_PUBSUB, native_partitions=True),
    "pubsub-ordered, short lease": _short(evolve(_PUBSUB, native_partitions=True)),
    "kafka": _KAFKA,
    "event hubs": evolve(_KAFKA, makes_channels=False, most_channels=10, depth=DepthKind.NONE),
    "mqtt": _MQTT,
    "mqtt, short lease": _short(_MQTT),
    "mqtt-single": evolve(_MQTT, competing_consumers=False),
}
"""Traits by the name of a form. ``short lease``: 1 s, and 10 s with all extensions."""
