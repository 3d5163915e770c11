# -*- test-case-name: tests.bridges.test_bridge -*-
"""A message that failed for good, as it is published for those who look after it."""

from __future__ import annotations

from openhqm.interfaces import Message, Properties

ERROR, BRIDGE, TOPIC, POSITION = "openhqm-error", "openhqm-bridge", "openhqm-topic", "openhqm-position"
CORRELATION_ID = "openhqm-correlation-id"
LONGEST_ERROR = 1000


def failed_message(bridge: str, message: Message, reason: str, correlation_id: str | None) -> Message:
    """The message as it came, with its key, and with the reason, the bridge and where it lay in headers of ours.

    ``correlation_id`` is that of its request; None: it became none.
    """
    about = message.properties or Properties()
    headers = {**message.headers, ERROR: " ".join(reason.split())[:LONGEST_ERROR], BRIDGE: bridge, TOPIC: about.topic}
    if about.position is not None:
        headers[POSITION] = about.position
    headers.pop(CORRELATION_ID, None)  # of another request, where it failed before and was published again
    if correlation_id is not None:
        headers[CORRELATION_ID] = correlation_id
    return Message(message.body, headers, message.key, Properties(content_type=about.content_type))
