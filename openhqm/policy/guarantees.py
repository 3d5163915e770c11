# -*- test-case-name: tests.policy.test_guarantees -*-
"""What is kept of a request: by a queue, and by a bridge into it. The documentation's matrix is made of these answers.

``queue.required`` and ``required`` of a bridge are refused at start where the answer is no, and ``--check`` prints each
answer with its reason.
"""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from openhqm.interfaces import QueueTraits

AT_LEAST_ONCE = "at_least_once"
ORDERED_PER_KEY = "ordered_per_key"
ORDERED = "ordered"
OF_A_QUEUE = (AT_LEAST_ONCE, ORDERED_PER_KEY, ORDERED)
OF_A_BRIDGE = (AT_LEAST_ONCE, ORDERED_PER_KEY)
"""What can be required. Each of the others includes the first."""
IN_WORDS: Mapping[str, str] = {
    AT_LEAST_ONCE: "at-least-once",
    ORDERED_PER_KEY: "in order within a key",
    ORDERED: "in order within a priority",
}


@attrs.frozen
class Answer:
    """Whether something is kept, and why, as the end of a sentence."""

    kept: bool
    why: str


def of_queue(product: str, traits: QueueTraits, *, partitioned: bool) -> Mapping[str, Answer]:
    """What a queue in ``product`` keeps. ``partitioned``: requests have a partition key."""
    if not traits.durable:
        lost = Answer(False, f"what waits is lost when {product} or the result store ends")
        return dict.fromkeys(OF_A_QUEUE, lost)
    return {
        AT_LEAST_ONCE: Answer(
            True,
            "the reply and the end of its request are one step"
            if traits.atomic_settle
            else "the reply is in the result store before the message is acknowledged",
        ),
        ORDERED_PER_KEY: _partitions(partitioned),
        ORDERED: Answer(True, f"{product} delivers the oldest request first")
        if traits.ordered
        else Answer(False, f"{product} keeps the order within a partition alone"),
    }


def of_bridge(
    product: str, queue: Mapping[str, Answer], *, ending: bool, in_order: bool, keyed: bool, rests: bool = True
) -> Mapping[str, Answer]:
    """What a bridge from ``product`` into a ``queue`` keeps.

    ``ending``: a message is acknowledged when its request has ended, and not when it is accepted. ``in_order``: the
    product delivers messages of a key in the order in which they were published. ``keyed``: they have a partition key.
    ``rests``: a request, its reply or its failure may be here alone. Where none is, the queue may forget.
    """
    if not queue[AT_LEAST_ONCE].kept:
        if rests:
            return dict.fromkeys(OF_A_BRIDGE, queue[AT_LEAST_ONCE])
        kept = Answer(True, f"a message stays in {product} until its request has ended or its failure is published")
        late = Answer(False, "what comes again after a kill may come after what was published later")
        return {AT_LEAST_ONCE: kept, ORDERED_PER_KEY: late}
    when = "its request has ended" if ending else "its request is durable here"
    order = queue[ORDERED_PER_KEY]
    if order.kept and not in_order:
        order = Answer(False, f"{product} does not promise to deliver in the order of publishing")
    elif order.kept and not keyed:
        order = Answer(False, "no partition_key says which messages belong together")
    return {
        AT_LEAST_ONCE: Answer(True, f"{product} is told that a message was received when {when}"),
        ORDERED_PER_KEY: order,
    }


def describe(what: str, answers: Mapping[str, Answer]) -> list[str]:
    """A line for each answer: ``telemetry is at-least-once: kafka is told ...``."""
    return [f"{what} is {'' if each.kept else 'not '}{IN_WORDS[name]}: {each.why}" for name, each in answers.items()]


def _partitions(partitioned: bool) -> Answer:
    if partitioned:
        return Answer(True, "requests of one partition are worked on one at a time")
    return Answer(False, "partitioning.enabled is false")
