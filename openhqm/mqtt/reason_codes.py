# -*- test-case-name: tests.mqtt.test_client -*-
"""Reason codes of MQTT 5 (section 2.4), and the return codes of 3.1.1 that have the same values."""

from __future__ import annotations

from typing import Any

from openhqm.errors import NotDurable

NO_SUBSCRIBERS = 0x10
REFUSED = 0x80
"""From here on a reason code is a failure."""


def granted(codes: list[Any], topic_filter: str) -> None:
    """`NotDurable` where a subscription is refused, or has QoS 0 only."""
    value = codes[0].value
    if value >= REFUSED:
        raise NotDurable(f"the broker refuses the subscription to {topic_filter}: {codes[0]}")
    if value < 1:
        raise NotDurable(f"the broker grants QoS 0 only for {topic_filter}, which may lose messages")
