# -*- test-case-name: tests.ingress.test_message_size -*-
"""Whether the queue takes a message as long as the one that a request makes: where it does not, a 413 says so.

What counts is the envelope that is stored, and not the body that came: it has the headers and the metadata in it, and
content that is not JSON in base64. It is encoded only where it could be too long at all.
"""

from __future__ import annotations

from openhqm.codec import request_size
from openhqm.errors import MessageTooLarge
from openhqm.messages import Submission

GROWTH = 6
"""No byte that came takes more of an envelope: base64 makes four of three, a quotation mark is written with two, a
number such as 1e15 with 18 for its four, and a host stands in three header fields.
"""
OWN_BYTES = 2048
"""More than an envelope has of its own: its members and their names, and what frames up to 100 headers."""


def may_exceed(received: int, limit: int) -> bool:
    """Whether what was read from ``received`` bytes can make a message of more than ``limit`` bytes at all."""
    return GROWTH * received + OWN_BYTES > limit


def check_size(submission: Submission, received: int, limit: int) -> None:
    """`MessageTooLarge` where the message of ``submission`` is longer than ``limit`` bytes.

    ``received`` is how many bytes it was read from, header fields that are kept included.
    """
    if not may_exceed(received, limit):
        return
    size = request_size(submission)
    if size > limit:
        raise MessageTooLarge(size, limit)
