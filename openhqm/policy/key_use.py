# -*- test-case-name: tests.policy.test_key_use -*-
"""When API keys were used last: what is written beside the file of keys."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping

SUFFIX = ".used"
MOST_BYTES = 1024 * 1024


def read_use(text: str | bytes) -> dict[str, int]:
    """When each key was used, by its id, in seconds since 1970. What is none of that is left out: it opens nothing."""
    try:
        document = json.loads(text)
        found = document["used"].items()
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return {}
    return {id: at for id, at in found if type(at) is int and 0 <= at < 1 << 40}


def write_use(before: Mapping[str, int], now: Mapping[str, int], known: Collection[str]) -> str:
    """The file of what was written before, and what was seen since. Of keys that are not ``known`` nothing is kept."""
    later = {id: max(before.get(id, 0), now.get(id, 0)) for id in sorted(known) if id in before or id in now}
    return json.dumps({"used": later}, indent=1) + "\n"
