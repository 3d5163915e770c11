# -*- test-case-name: tests.policy.test_channels -*-
"""The channels of a broker in which requests wait, and their names.

The requests of an endpoint wait in up to three channels, one for each priority that is configured::

    openhqm-requests                  no endpoint, normal priority
    openhqm-requests._high            high priority; and ._low
    openhqm-requests.billing          endpoint billing

A partition has no channel of its own. It has at most one message in the broker at a time (`openhqm.brokered.outbox`),
so any product keeps its order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs

from openhqm.messages import Priority, Submission
from openhqm.policy.queue_names import priority_of, queue_name, queue_of, without_share

ALL = (Priority.HIGH, Priority.NORMAL, Priority.LOW)
_SUFFIX = {Priority.HIGH: "._high", Priority.NORMAL: "", Priority.LOW: "._low"}


@attrs.frozen
class Channels:
    """Names of channels. ``requests`` is the request queue, ``prefix`` what the broker's name for it begins with.

    ``priorities`` are those that have a channel of their own, high first; a request of another priority waits in the
    nearest.
    """

    requests: str
    prefix: str = ""
    priorities: Sequence[Priority] = ALL
    _suffixes: Mapping[Priority, str] = attrs.field(init=False, repr=False, eq=False)

    @_suffixes.default
    def _(self) -> Mapping[Priority, str]:
        """What the name of a channel ends with, for every priority of a request."""
        return {each: _SUFFIX[_nearest(each, self.priorities)] for each in ALL}

    def of(self, submission: Submission) -> str:
        """The channel in which a submission waits."""
        suffix = self._suffixes[priority_of(submission)]
        return self.prefix + queue_name(self.requests, submission.endpoint) + suffix

    def line(self, submission: Submission) -> str | None:
        """The queue whose requests are worked on one at a time, in order; None where order does not matter."""
        return None if submission.partition is None else queue_of(self.requests, submission)

    def names(self, queue: str) -> Sequence[str]:
        """The channels that hold the requests of a queue, and of its partitions; high priority first."""
        group = self.prefix + group_of(queue)
        return tuple(group + _SUFFIX[each] for each in self.priorities)


def _nearest(priority: Priority, priorities: Sequence[Priority]) -> Priority:
    return min(priorities, key=lambda each: abs(ALL.index(each) - ALL.index(priority)))


def group_of(queue: str) -> str:
    """The queue without its partition and its tenant: the queues of one group share their channels."""
    queue, _ = without_share(queue)
    head, dot, last = queue.rpartition(".")
    return head if dot and last.startswith("_") and last[1:].isdigit() else queue


def key_of(submission: Submission) -> str | None:
    """The key that its message carries, for products that keep messages of one key together."""
    return None if submission.partition is None else f"{submission.endpoint or ''}._{submission.partition}"
