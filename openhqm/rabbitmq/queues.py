# -*- test-case-name: tests.rabbitmq.test_parts -*-
"""The queues in RabbitMQ: their names and arguments, which everybody who declares one must say alike.

A quorum queue has no priorities before RabbitMQ 4, and two since. So a queue of ours is up to three of RabbitMQ's, one
for each priority::

    openhqm.requests            normal priority
    openhqm.requests!high       high priority; and !low
    openhqm.requests.billing._3 a partition has one alone, with a single active consumer: in order, one at a time

What is delayed passes through some of the delay queues, which all queues share. Each keeps a message for its time, and
each time is twice the one before::

    openhqm.delay!125           the last one of every message: from here it goes to where it was published to
    openhqm.delay!250           from here to the exchange openhqm.delay!125, and so on

The exchange of the same name decides by a bit of the message's header whether it waits there or goes on below.
"""

from __future__ import annotations

import re
from typing import Any

from openhqm.messages import Priority

_SUFFIX = {Priority.HIGH: "!high", Priority.NORMAL: "", Priority.LOW: "!low"}
_PARTITION = re.compile(r"\._\d+\Z")
NO_LIMIT = 2**31 - 1
"""Deliveries. With none, 3.10 puts what is given back behind all others; 4.0 has 20, unless told otherwise."""
STEP_MS = 125
"""How long the shortest delay queue keeps a message."""
LEVELS = 26
"""RabbitMQ keeps no message for 2**32 ms or more."""
MOST_STEPS = 2**LEVELS - 1
LONGEST_DELAY = MOST_STEPS * STEP_MS / 1000.0
"""In seconds."""


def is_partition(queue: str) -> bool:
    """Whether it is worked off in order."""
    return _PARTITION.search(queue) is not None


def lanes(prefix: str, queue: str) -> tuple[str, ...]:
    """The queues in RabbitMQ that stand for ``queue``, in the order in which they are worked off."""
    if is_partition(queue):
        return (prefix + queue,)
    return tuple(prefix + queue + suffix for suffix in _SUFFIX.values())


def lane(prefix: str, queue: str, priority: Priority) -> str:
    """The one of them for ``priority``."""
    return prefix + queue if is_partition(queue) else prefix + queue + _SUFFIX[priority]


def queue_of_lane(prefix: str, lane: str) -> tuple[str, Priority]:
    """The queue and the priority that the lane stands for."""
    for priority, suffix in _SUFFIX.items():
        if suffix and lane.endswith(suffix):
            return lane[len(prefix) : -len(suffix)], priority
    return lane[len(prefix) :], Priority.NORMAL


def arguments(name: str) -> dict[str, Any]:
    """With what the lane ``name`` is declared: the same on every server, or an upgrade of it would refuse us."""
    # 4.x drops what was lent twenty times, unless told otherwise; how often is not for the broker to decide.
    found: dict[str, Any] = {"x-queue-type": "quorum", "x-delivery-limit": NO_LIMIT}
    if is_partition(name):
        found["x-single-active-consumer"] = True
    return found


def steps_of(delay: float) -> int:
    """How many times `STEP_MS` the delay queues keep what is to be delayed for ``delay`` ms; 0: it is not worth it.

    Always odd, for every message leaves by the last one. It comes out early by less than two steps.
    """
    steps = min(int(delay / STEP_MS), MOST_STEPS)
    return 0 if steps < 2 else steps - 1 | 1


def delay_queue(prefix: str, level: int) -> str:
    """The delay queue, and the exchange before it, for ``2 ** level`` steps."""
    return f"{prefix}delay!{STEP_MS << level}"


def delay_arguments(prefix: str, level: int) -> dict[str, Any]:
    """With what that queue is declared.

    Messages go on by being dead-lettered, at least once: RabbitMQ lets go of one when the next queue has it. There is
    no x-expires: being declared does not keep a quorum queue from expiring, and it would take its messages with it.
    """
    return {
        "x-queue-type": "quorum",
        "x-message-ttl": STEP_MS << level,
        "x-dead-letter-exchange": delay_queue(prefix, level - 1) if level else "",
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
    }


def level_of(steps: int) -> int:
    """Where a message that waits for ``steps`` begins."""
    return steps.bit_length() - 1


def waits(level: int, here: bool) -> dict[str, int]:
    """The header of a message that waits at that level, or does not."""
    return {f"openhqm-wait-{level}": int(here)}


def delay_headers(steps: int) -> dict[str, Any]:
    """What leads a message through the delay queues that together keep it for ``steps``."""
    found: dict[str, Any] = {}
    for level in range(steps.bit_length()):
        found |= waits(level, bool(steps >> level & 1))
    return found
