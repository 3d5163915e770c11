# -*- test-case-name: tests.policy.test_queue_names -*-
"""In which queue a request waits: one for each endpoint, and one for each partition of it.

What is slow or dead holds up its own queue and no other. A queue is named after the request queue::

    requests            no endpoint, no partition
    requests.billing    endpoint billing
    requests.billing._3 partition 3 of it
"""

from __future__ import annotations

from zlib import crc32

from openhqm.messages import Priority, Submission

MOST_WORKED_QUEUES = 1000
"""How many a configuration may have workers for."""
MOST_QUEUES = MOST_WORKED_QUEUES + 200
"""How many a process can have to do with: the dead letters besides, and some that nobody works on any more."""


def queue_name(requests: str, endpoint: str | None = None, partition: int | None = None) -> str:
    """The queue for requests of ``endpoint`` and ``partition``. Names of endpoints do not begin with ``_``."""
    name = requests if endpoint is None else f"{requests}.{endpoint}"
    return name if partition is None else f"{name}._{partition}"


def queue_of(requests: str, submission: Submission) -> str:
    """The queue in which a submission waits."""
    return queue_name(requests, submission.endpoint, submission.partition)


def priority_of(submission: Submission) -> Priority:
    """The priority with which it waits there. Within a partition the oldest goes first, whatever its priority."""
    return Priority.NORMAL if submission.partition is not None else submission.priority


def parts_of(requests: str, queue: str) -> tuple[str | None, int | None]:
    """The endpoint and the partition that a queue of requests is named after."""
    parts = queue.removeprefix(requests).split(".")[1:]
    partition = int(parts.pop()[1:]) if parts and parts[-1].startswith("_") else None
    return parts[0] if parts else None, partition


def holds_requests(requests: str, queue: str) -> bool:
    """Whether the messages in ``queue`` are requests, which a result store keeps a record of."""
    return queue == requests or queue.startswith(requests + ".")


def partition_of(key: str, count: int) -> int:
    """The partition of a key, from 0: the same one in every process and every version."""
    return crc32(key.encode("utf-8", "surrogatepass")) % count
