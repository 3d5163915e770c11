# -*- test-case-name: tests.ingress.test_coalescing -*-
"""Reads ``metadata.coalesce``: that a request takes the place of an earlier one that has not begun."""

from __future__ import annotations

import math
from typing import Any

from openhqm.errors import InvalidRequest
from openhqm.messages import Coalescing

COALESCE = "coalesce"
"""The metadata that has it."""
MOST_KEY_CHARACTERS = 255
LONGEST_WAIT = 86400.0
WINDOWS = 10
"""The most wait, in windows, where it is not given."""
_MEMBERS = ("key", "window", "max_wait")
_SECONDS = {"type": "number", "exclusiveMinimum": 0, "maximum": LONGEST_WAIT}
COALESCE_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "key": {"type": "string", "minLength": 1, "maxLength": MOST_KEY_CHARACTERS},
        "window": _SECONDS,
        "max_wait": _SECONDS,
    },
    "required": ["key", "window"],
    "additionalProperties": False,
}


def read_coalescing(value: Any) -> Coalescing:
    """What ``value`` asks for. `InvalidRequest` that names the member."""
    if not isinstance(value, dict):
        raise InvalidRequest(f"metadata.{COALESCE}", f"must be an object with {', '.join(_MEMBERS)}")
    for name in value:
        if name not in _MEMBERS:
            raise InvalidRequest(f"metadata.{COALESCE}", f"has an unknown member; it has {', '.join(_MEMBERS)}")
    key = value.get("key")
    if not isinstance(key, str) or not 0 < len(key) <= MOST_KEY_CHARACTERS:
        raise InvalidRequest(f"metadata.{COALESCE}.key", f"must be a string of 1 to {MOST_KEY_CHARACTERS} characters")
    window = _seconds("window", value.get("window"))
    most = min(window * WINDOWS, LONGEST_WAIT) if "max_wait" not in value else _seconds("max_wait", value["max_wait"])
    if most < window:
        raise InvalidRequest(f"metadata.{COALESCE}.max_wait", "must not be shorter than the window")
    return Coalescing(key, window, most)


def _seconds(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InvalidRequest(f"metadata.{COALESCE}.{name}", "must be a number of seconds")
    if not 0 < value <= LONGEST_WAIT:
        raise InvalidRequest(f"metadata.{COALESCE}.{name}", f"must be above 0 and at most {LONGEST_WAIT:.0f} seconds")
    return float(value)
