# -*- test-case-name: tests.pubsub.test_messages -*-
"""A message as Pub/Sub carries it: data, attributes from text to text, and an ordering key.

https://cloud.google.com/pubsub/docs/reference/rest/v1/PubsubMessage, and the limits:
https://cloud.google.com/pubsub/quotas#resource_limits.
"""

from __future__ import annotations

import msgspec

from openhqm.interfaces import Message

MOST_BYTES = 10_000_000
"""Of a message with all that it has, and of a publish request."""
LARGEST_MESSAGE = 9_800_000
"""Of a body: the attributes of a message have their room beside it."""
MOST_ATTRIBUTES = 100
LONGEST_NAME = 256
LONGEST_VALUE = 1024
LONGEST_KEY = 1024
RESERVED = "goog"
"""What the names of the service's own attributes begin with."""


class PubsubMessage(msgspec.Struct, rename="camel", omit_defaults=True):
    """One message, sent or received. JSON has ``data`` in base64."""

    data: bytes = b""
    attributes: dict[str, str] = {}
    ordering_key: str = ""
    message_id: str = ""


class ReceivedMessage(msgspec.Struct, rename="camel"):
    """``delivery_attempt`` is 0 where the subscription has no dead-letter policy: then nothing counts."""

    ack_id: str
    message: PubsubMessage
    delivery_attempt: int = 0


class PullResponse(msgspec.Struct, rename="camel"):
    """What a pull answers. A member that is missing is empty."""

    received_messages: list[ReceivedMessage] = []


class PublishResponse(msgspec.Struct, rename="camel"):
    """The ids of what was published, in the order of the request."""

    message_ids: list[str] = []


_encoder = msgspec.json.Encoder()
read_pull = msgspec.json.Decoder(PullResponse).decode
read_publish = msgspec.json.Decoder(PublishResponse).decode


def fault(message: Message) -> str | None:
    """Why Pub/Sub would refuse the message, and everything in the same request with it; None: nothing."""
    if len(message.body) > LARGEST_MESSAGE:
        return f"Pub/Sub takes no message of more than {LARGEST_MESSAGE} bytes"
    if not message.body and not message.headers:
        return "Pub/Sub takes no message that has neither a body nor a header"
    if len(message.headers) > MOST_ATTRIBUTES:
        return f"Pub/Sub takes no message with more than {MOST_ATTRIBUTES} headers"
    try:
        if message.key is not None and len(message.key.encode()) > LONGEST_KEY:
            return f"Pub/Sub takes no ordering key of more than {LONGEST_KEY} bytes"
        for name, value in message.headers.items():
            if not name or len(name.encode()) > LONGEST_NAME or name.startswith(RESERVED):
                return f"Pub/Sub takes no header called {name[:80]!r}"
            if len(value.encode()) > LONGEST_VALUE:
                return f"Pub/Sub takes no header of more than {LONGEST_VALUE} bytes, as {name[:80]!r} is"
    except UnicodeEncodeError:
        return "Pub/Sub takes no header that is not Unicode"
    return None


def to_json(message: Message) -> bytes:
    """The message, for a publish request."""
    return _encoder.encode(PubsubMessage(message.body, dict(message.headers), message.key or ""))


def from_received(received: PubsubMessage) -> Message:
    """The message of a pull. No ordering key is no key."""
    return Message(received.data, received.attributes, received.ordering_key or None)
