# -*- test-case-name: tests.sqs.test_settings -*-
"""The names of queues in SQS: letters, digits, "-" and "_", at most 80, and ".fifo" where the queue is one.

https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/quotas-queues.html
"""

from __future__ import annotations

import re

FIFO = ".fifo"
LONGEST_NAME = 80
DOT = "--"
"""What stands for a dot of a channel's name."""
_NAME = re.compile(r"[A-Za-z0-9_-]+(\.fifo)?\Z")
_URL = re.compile(r"https?://[^/\s]+/\S*?([A-Za-z0-9_-]{1,80}(?:\.fifo)?)\Z")


def is_url(channel: str) -> bool:
    """Whether a channel is named by the URL of its queue."""
    return channel.startswith(("https://", "http://"))


def is_fifo(channel: str) -> bool:
    """Whether the channel of a name, or of a URL, is a FIFO queue."""
    return channel.endswith(FIFO)


def queue_fault(name: str) -> str | None:
    """What keeps ``name`` from being that of a queue, or its URL; None: nothing."""
    if is_url(name):
        return None if _URL.match(name) else "is not the URL of a queue: https://sqs.REGION.amazonaws.com/ACCOUNT/NAME"
    if not _NAME.match(name):
        return "is not the name of a queue, which has letters, digits, '-' and '_', and may end with .fifo"
    return f"has more than {LONGEST_NAME} characters" if len(name) > LONGEST_NAME else None


def queue_of(channel: str, fifo: bool) -> str:
    """The name of the queue that one of our channels is in."""
    return channel.replace(".", DOT) + (FIFO if fifo else "")
