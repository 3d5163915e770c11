# -*- test-case-name: tests.kafka.test_broker -*-
"""What every client of librdkafka is told, whatever it is for."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

_COMMON = {
    "client.id": "openhqm",
    "allow.auto.create.topics": False,
    "topic.metadata.propagation.max.ms": 1000,
    "topic.metadata.refresh.interval.ms": 60_000,  # more often than an idle connection is closed
    "socket.keepalive.enable": True,
    "socket.timeout.ms": 10_000,
    "connections.max.idle.ms": 180_000,
    "reconnect.backoff.ms": 50,
    "reconnect.backoff.max.ms": 1000,
}


def common(properties: Mapping[str, Any]) -> dict[str, Any]:
    """``properties`` and those that each client has."""
    return {**_COMMON, **properties, "logger": _quiet_logger()}


def _quiet_logger() -> logging.Logger:
    """librdkafka writes into stderr otherwise. What matters of it comes as an error, too."""
    logger = logging.getLogger("openhqm.kafka")
    logger.propagate = False
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())
    return logger
