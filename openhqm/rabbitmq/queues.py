# -*- test-case-name: tests.test_rabbitmq_parts -*-
"""The queues in RabbitMQ: their names and arguments, which everybody who declares one must say alike.

A quorum queue has no priorities before RabbitMQ 4, and two since. So a queue of ours is up to three of RabbitMQ's, one
for each priority; what its requests are delayed in are more of them, whose messages move on by themselves::

    openhqm.requests            normal priority
    openhqm.requests!high       high priority; and !low
    openhqm.requests.billing._3 a partition has one alone, with a single active consumer: in order, one at a time
    openhqm.delay.8000.openhqm.requests!low   what is to come into openhqm.requests!low 8000 ms later
"""

from __future__ import annotations

import re
from typing import Any

from openhqm.messages import Priority

_SUFFIX = {Priority.HIGH: "!high", Priority.NORMAL: "", Priority.LOW: "!low"}
_PARTITION = re.compile(r"\._\d+\Z")
LONGEST_TTL = 24 * 3600 * 1000
"""In milliseconds. What is delayed for longer takes several."""
SHORTEST_TTL = 200
"""In milliseconds. What is delayed for less is held where it arrives."""
DELIVERY_LIMIT = 1_000_000_000
"""Never reached: how often a message is lent is not for the broker to decide. Without a limit, RabbitMQ 3.10 puts what
is given back behind all others (https://www.rabbitmq.com/docs/quorum-queues#repeated-requeues); 4.0 has one of 20."""
DECLARE_SECONDS = 60.0
"""How long a delay queue may be published to after it was declared: being declared is what keeps it."""


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


def arguments(name: str) -> dict[str, Any]:
    """With what the lane ``name`` is declared."""
    found: dict[str, Any] = {"x-queue-type": "quorum", "x-delivery-limit": DELIVERY_LIMIT}
    if is_partition(name):
        found["x-single-active-consumer"] = True
    return found


def ttl_of(delay: float) -> int:
    """The longest time that a delay queue may keep a message that is to be delayed for ``delay`` ms; 0: none may.

    Queues are made for times of three significant bits (8 to 15 times a power of two), so that there are eight for each
    doubling and no more. What is left over is less than an eighth.
    """
    whole = min(int(delay), LONGEST_TTL)
    if whole < SHORTEST_TTL:
        return 0
    shift = max(0, whole.bit_length() - 4)
    return whole >> shift << shift


def delay_lane(prefix: str, target: str, ttl: int) -> tuple[str, dict[str, Any]]:
    """The queue that keeps messages for ``ttl`` ms on their way into ``target``, and its arguments.

    Its messages are dead-lettered, at least once: RabbitMQ lets go of one when the target has it. The queue goes away
    when nobody has declared it for longer than anything in it could have been kept.
    """
    return f"{prefix}delay.{ttl}.{target}", {
        "x-queue-type": "quorum",
        "x-message-ttl": ttl,
        "x-expires": ttl + int(5 * DECLARE_SECONDS * 1000),
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": target,
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
    }
