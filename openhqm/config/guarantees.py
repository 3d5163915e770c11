# -*- test-case-name: tests.config.test_guarantees -*-
"""What the configured queue and each bridge keep, and what is required of them in vain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from openhqm.config.bridge_rules import foreign_channels
from openhqm.config.bridges import NONE, STRICT, Bridge
from openhqm.config.model import Settings
from openhqm.config.products import Products
from openhqm.errors import Complaint, ConfigurationError
from openhqm.interfaces import QueueTraits
from openhqm.policy.guarantees import Answer, describe, of_bridge, of_queue

Answers = Mapping[str, Answer]


def anything_required(settings: Settings) -> bool:
    """Whether a start has to wait until the product was asked what it keeps."""
    return any(each is not None for each in (settings.queue.required, *(each.required for each in settings.bridges)))


def refuse_in_vain(settings: Settings, products: Products, queue: Any) -> None:
    """`ConfigurationError` with each key that requires what is not kept.

    ``queue`` is an `IMessageQueue` that was probed: some products tell only then what they keep. One that could not be
    reached keeps nothing that is known.
    """
    asked = _asked(settings, *_answers(settings, products, queue.traits))
    away = queue.unavailable_reason
    found = []
    for key, required, answers in asked:
        if away is not None:
            found.append(Complaint(key, f"it is not known whether {required} can be kept: {away}"))
        elif not answers[required].kept:
            found.append(Complaint(key, f"{required} cannot be kept: {answers[required].why}"))
    if found:
        raise ConfigurationError(found)


def guarantees(settings: Settings, products: Products, traits: QueueTraits) -> list[str]:
    """The lines to print about the queue, and about each bridge by its name."""
    queue, bridges = _answers(settings, products, traits)
    found = describe("the queue", queue)
    for bridge, answers in bridges:
        found += describe(bridge.name, answers)
    return found


def _asked(
    settings: Settings, queue: Answers, bridges: Sequence[tuple[Bridge, Answers]]
) -> Sequence[tuple[str, str, Answers]]:
    """Each key that requires something, with that and the answers about it."""
    asked = [("queue.required", settings.queue.required, queue)]
    for index, (bridge, answers) in enumerate(bridges):
        asked.append((f"bridges.{index}.required", bridge.required, answers))
    return [(key, required, answers) for key, required, answers in asked if required is not None]


def _answers(
    settings: Settings, products: Products, traits: QueueTraits
) -> tuple[Answers, Sequence[tuple[Bridge, Answers]]]:
    queue = of_queue(settings.queue.type, traits, partitioned=settings.partitioning.enabled)
    return queue, [(bridge, _of_bridge(settings, products, bridge, queue)) for bridge in settings.bridges]


def _of_bridge(settings: Settings, products: Products, bridge: Bridge, queue: Answers) -> Answers:
    name = bridge.from_.broker
    channels = foreign_channels(settings, products, name)
    return of_bridge(
        settings.brokers[name].type,
        queue,
        ending=bridge.acknowledge == "ending",
        in_order=channels.in_order,
        keyed=bridge.order == STRICT or (bridge.order != NONE and (bridge.partition_key is not None or channels.keyed)),
        rests=bridge.acknowledge != "ending" or bridge.dead_letters is None or bridge.reply != NONE,
    )
