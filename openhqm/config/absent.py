# -*- test-case-name: tests.config.test_config -*-
"""Keys and values of the configuration contract that this build lacks: they are refused by name, never ignored."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from contextlib import suppress
from typing import Any

from openhqm.config.products import Products
from openhqm.config.structure import Text

KEYS = {
    "queue.spool": "the spool",
    "auth.api_keys": "API keys",
    "monitoring.redact": "redaction (no header is ever logged)",
    "monitoring.tracing": "tracing",
}


def asks_for_nothing(key: str, value: Any) -> bool:
    """Whether a setting of a missing feature leaves the feature off."""
    if isinstance(value, Text):
        with suppress(ValueError):
            value = json.loads(value)
    if isinstance(value, Mapping):
        return not value or value.get("enabled") in (False, "false")
    return value is None or value == []


def take_out(
    document: dict[str, Any], products: Products, variables: Collection[tuple[str, ...]]
) -> list[tuple[str, str]]:
    """Remove from ``document`` what this build does not have, and return each such key with the reason.

    A whole section of ``queue.connection`` may stand unused, as that of any other product may. ``variables`` are the
    keys that are from the environment, where one of them alone is no section.
    """
    refused: list[tuple[str, str]] = []
    for product in products.absent:
        holder, name = _holder(document, f"queue.connection.{product}")
        alone = any(key[:3] == ("queue", "connection", product) and len(key) > 3 for key in variables)
        if isinstance(holder.get(name), Mapping) and not alone:
            del holder[name]
    for key, feature in {**KEYS, **_keys_of_absent(products)}.items():
        holder, name = _holder(document, key)
        if name in holder and not asks_for_nothing(key, value := holder.pop(name)):
            shown = "" if isinstance(value, Mapping | list) else f" {value!r}"
            refused.append((key, f"not in this build{shown and ':'}{shown} ({feature})"))
    for key, values in {"queue.type": tuple(products.absent)}.items():
        holder, name = _holder(document, key)
        if isinstance(holder.get(name), str) and holder[name] in values:
            refused.append((key, f"{holder.pop(name)}: not in this build"))
    return refused


def _keys_of_absent(products: Products) -> dict[str, str]:
    """The keys about products that other builds have, each with what it is for."""
    return {
        f"queue.{key}": f"queue.type {name}"
        for name, short_forms in products.absent.items()
        for key in (f"connection.{name}", *short_forms)
    }


def _holder(document: dict[str, Any], key: str) -> tuple[dict[str, Any], str]:
    *path, name = key.split(".")
    holder: Any = document
    for part in path:
        holder = holder.get(part, {})
        if not isinstance(holder, dict):
            return {}, name
    return holder, name
