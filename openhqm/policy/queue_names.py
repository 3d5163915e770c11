# -*- test-case-name: tests.policy.test_queue_names -*-
"""The names of the queues in which requests wait: one for each endpoint, and one for each partition of it.

A slow or dead endpoint delays the requests in its own queues only. Names begin with that of the request queue::

    requests            no endpoint, no partition
    requests.billing    endpoint billing
    requests.billing._3 partition 3 of it
    requests.billing._backlog what came while it was away, where that goes apart
    requests.billing.@acme on behalf of the tenant acme, where that has a share of the workers
"""

from __future__ import annotations

from zlib import crc32

from openhqm.messages import Priority, Submission

MOST_WORKED_QUEUES = 1000
"""The most queues of requests that a configuration may have."""
BACKLOG = -1
"""In place of a partition: the queue of what bridges accepted while the endpoint was away. It has no order to keep."""
_BACKLOG_NAME = "backlog"
_SHARE = ".@"
MOST_QUEUES = MOST_WORKED_QUEUES + 200
"""The most queues that a process can know: those, the dead letters, and queues of endpoints that were removed."""


def queue_name(requests: str, endpoint: str | None = None, partition: int | None = None) -> str:
    """The queue for requests to ``endpoint`` and ``partition``. An endpoint's name does not begin with ``_``."""
    name = requests if endpoint is None else f"{requests}.{endpoint}"
    if partition is None:
        return name
    return f"{name}._{_BACKLOG_NAME if partition == BACKLOG else partition}"


def queue_of(requests: str, submission: Submission) -> str:
    """The queue in which a submission waits."""
    if submission.endpoint is not None or submission.partition is not None:
        requests = queue_name(requests, submission.endpoint, submission.partition)
    return requests if submission.share is None else share_of(requests, submission.share)


def share_of(queue: str, name: str | None) -> str:
    """The queue beside ``queue`` in which the requests of the tenant ``name`` wait; None: that queue itself."""
    return queue if name is None else f"{queue}{_SHARE}{name}"


def without_share(queue: str) -> tuple[str, str | None]:
    """The queue that a queue of `share_of` is beside, and the tenant. A tenant's name has no dot."""
    head, found, name = queue.rpartition(_SHARE)
    return (head, name) if found and "." not in name else (queue, None)


def priority_of(submission: Submission) -> Priority:
    """The priority with which a submission waits. A partition ignores priorities: its oldest request goes first."""
    return Priority.NORMAL if submission.partition is not None else submission.priority


def parts_of(requests: str, queue: str) -> tuple[str | None, int | None]:
    """The endpoint and the partition in the name of a queue."""
    queue, _ = without_share(queue)
    parts = queue.removeprefix(requests).split(".")[1:]
    last = parts.pop()[1:] if parts and parts[-1].startswith("_") else None
    partition = None if last is None else BACKLOG if last == _BACKLOG_NAME else int(last)
    return parts[0] if parts else None, partition


def holds_requests(requests: str, queue: str) -> bool:
    """Whether the messages in ``queue`` are requests, of which the result store keeps records."""
    return queue == requests or queue.startswith(requests + ".")


def partition_of(key: str, count: int) -> int:
    """The partition of a key, from 0 to ``count - 1``: the same one in every process and every version."""
    return crc32(key.encode("utf-8", "surrogatepass")) % count
