# -*- test-case-name: tests.config.test_config -*-
"""What the configuration contract knows and this build does not have: refused by name, never passed over."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from openhqm.config.structure import Text

BACKENDS = ("kafka", "sqs", "mqtt", "azure_eventhubs", "gcp_pubsub", "custom")

SECTIONS = {
    "bridges": "more pipelines in one process",
    "tenants": "tenants",
    "rate_limit": "rate limits",
    "callbacks": "signed callbacks",
    "admin": "the admin listener",
}

KEYS = {
    "server.trusted_proxies": "X-Forwarded-For",
    "queue.spool": "the spool",
    "auth.api_keys": "API keys",
    "auth.jwt": "JSON web tokens",
    "monitoring.redact": "redaction (no header is ever logged)",
    "monitoring.tracing": "tracing",
    **{f"queue.connection.{backend}": f"queue.type {backend}" for backend in BACKENDS},
    "queue.kafka_bootstrap_servers": "queue.type kafka",
    "queue.sqs_region": "queue.type sqs",
    "queue.sqs_queue_url": "queue.type sqs",
    "queue.mqtt_host": "queue.type mqtt",
}

VALUES = {
    "queue.type": dict.fromkeys(BACKENDS),
    "worker.executor": {"process": None},
    "auth.type": dict.fromkeys(("api_key", "jwt", "any")),
}


def asks_for_nothing(key: str, value: Any) -> bool:
    """Whether a setting of an absent feature leaves it switched off."""
    if isinstance(value, Text):
        with suppress(ValueError):
            value = json.loads(value)
    if isinstance(value, Mapping):
        return not value or value.get("enabled") in (False, "false")
    return value is None or value == []


def take_out(document: dict[str, Any]) -> list[tuple[str, str]]:
    """Remove from ``document`` whatever this build does not have; each key with the words about it."""
    refused: list[tuple[str, str]] = []
    for key, feature in {**SECTIONS, **KEYS}.items():
        holder, name = _holder(document, key)
        if name in holder and not asks_for_nothing(key, value := holder.pop(name)):
            shown = "" if isinstance(value, Mapping | list) else f" {value!r}"
            refused.append((key, f"not in this build{shown and ':'}{shown} ({feature})"))
    for key, values in VALUES.items():
        holder, name = _holder(document, key)
        if isinstance(holder.get(name), str) and holder[name] in values:
            refused.append((key, f"{holder.pop(name)}: not in this build"))
    return refused


def _holder(document: dict[str, Any], key: str) -> tuple[dict[str, Any], str]:
    *path, name = key.split(".")
    holder: Any = document
    for part in path:
        holder = holder.get(part, {})
        if not isinstance(holder, dict):
            return {}, name
    return holder, name
