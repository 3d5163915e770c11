# -*- test-case-name: tests.policy.test_channels -*-
"""The channels of a broker in which requests wait, and their names.

A queue of requests (`policy.queue_names`) is up to three channels, one for each priority that is configured. A
partition is one channel, whatever the priority; where the product has partitions of its own, it is none: its messages
wait in their endpoint's channels, and carry the partition as their key::

    openhqm-requests                  no endpoint, normal priority
    openhqm-requests._high            high priority; and ._low
    openhqm-requests.billing          endpoint billing
    openhqm-requests.billing._3       partition 3 of it
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from openhqm.messages import Priority, Submission
from openhqm.policy.queue_names import queue_name

ALL = (Priority.HIGH, Priority.NORMAL, Priority.LOW)
_SUFFIX = {Priority.HIGH: "._high", Priority.NORMAL: "", Priority.LOW: "._low"}


@attrs.frozen
class Channels:
    """Names of channels. ``requests`` is the request queue, ``prefix`` what the broker's name for it begins with.

    ``priorities`` are those that have a channel of their own, high first; a request of another one waits in the
    nearest. ``native_partitions``: the product keeps messages of one key in order.
    """

    requests: str
    prefix: str = ""
    priorities: Sequence[Priority] = ALL
    native_partitions: bool = False

    def of(self, submission: Submission) -> str:
        """The channel in which a submission waits."""
        if submission.partition is not None and not self.native_partitions:
            return self.prefix + queue_name(self.requests, submission.endpoint, submission.partition)
        queue = queue_name(self.requests, submission.endpoint)
        return self.prefix + queue + _SUFFIX[self._nearest(submission)]

    def key(self, submission: Submission) -> str | None:
        """The key of its message: messages with one key are worked on one at a time, in order."""
        return None if submission.partition is None else str(submission.partition)

    def group(self, queue: str) -> str:
        """The queue whose channels hold the messages of ``queue``: itself, or with native partitions its endpoint's."""
        return _without_partition(queue) if self.native_partitions else queue

    def names(self, group: str) -> Sequence[str]:
        """The channels that a group of queues waits in, high priority first."""
        if _without_partition(group) != group:
            return (self.prefix + group,)
        return tuple(self.prefix + group + _SUFFIX[each] for each in self.priorities)

    def _nearest(self, submission: Submission) -> Priority:
        """Within a partition the oldest goes first, whatever its priority."""
        wanted = Priority.NORMAL if submission.partition is not None else submission.priority
        rank = ALL.index(wanted)
        return min(self.priorities, key=lambda each: abs(ALL.index(each) - rank))


def _without_partition(queue: str) -> str:
    head, dot, last = queue.rpartition(".")
    return head if dot and last.startswith("_") and last[1:].isdigit() else queue
