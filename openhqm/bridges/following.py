# -*- test-case-name: tests.bridges.test_bridge -*-
"""What joins a message to its request in the log."""

from __future__ import annotations

from twisted.logger import Logger

from openhqm.interfaces import Message, Properties
from openhqm.messages import Acceptance

_log = Logger()


def tell_accepted(bridge: str, message: Message, accepted: Acceptance) -> None:
    """Log which request the message is. Who calls this asks `is_debug` before: it is a line for each message."""
    about = message.properties or Properties()
    _log.debug(
        "bridge {name} {what} a message of {where}",
        name=bridge,
        what="recognised" if accepted.replayed else "accepted",
        where=about.topic if about.position is None else f"{about.topic} at {about.position}",
        correlation_id=accepted.correlation_id,
    )
