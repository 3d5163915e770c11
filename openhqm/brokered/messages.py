# -*- test-case-name: tests.brokered.test_brokered -*-
"""A request as a broker's message, and back.

The body is the request's envelope (docs/wire-format.md). What changes from one message of a request to the next
stands in headers, so that no envelope is encoded twice.
"""

from __future__ import annotations

from openhqm.codec import decode_request
from openhqm.interfaces import Message
from openhqm.interfaces.broker import REPLY_CHANNEL
from openhqm.queue.ledger import Incoming

GENERATION = "openhqm-generation"
ATTEMPTS = "openhqm-attempts"


def to_message(
    body: bytes, key: str | None, generation: int = 0, attempts: int = 0, reply_channel: str | None = None
) -> Message:
    """The message of a request."""
    headers = {}
    if generation:
        headers[GENERATION] = str(generation)
    if attempts:
        headers[ATTEMPTS] = str(attempts)
    if reply_channel is not None:
        headers[REPLY_CHANNEL] = reply_channel
    return Message(body, headers, key)


def same_message(incoming: Incoming, key: str | None, attempts: int) -> Message:
    """The message that was read, for its channel once more, after so many attempts."""
    return to_message(incoming.body, key, incoming.generation, attempts, incoming.reply_channel)


def from_message(message: Message, redeliveries: int) -> Incoming:
    """What a message says, without the request's number, which only the ledger knows. `UnreadableMessage`."""
    headers = message.headers
    return Incoming(
        -1,
        decode_request(message.body),
        message.body,
        _count(headers.get(GENERATION)),
        _count(headers.get(ATTEMPTS)),
        redeliveries,
        headers.get(REPLY_CHANNEL),
    )


def _count(text: str | None) -> int:
    """What another program may have written there is no number of ours."""
    return int(text) if text is not None and text.isascii() and text.isdigit() and len(text) < 10 else 0
