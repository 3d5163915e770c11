# -*- test-case-name: tests.runtime.test_times -*-
"""Times as text: RFC 3339, in UTC."""

from __future__ import annotations

import re
import time
from datetime import datetime
from functools import lru_cache

# RFC 3339, section 5.6. The offset is required: without it, the time could be in any zone.
_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)\Z")


def rfc3339(moment: float) -> str:
    """``2026-02-07T10:30:00.125Z`` for seconds since the epoch."""
    return _to_the_millisecond(round(moment * 1000))


@lru_cache(maxsize=16)  # requests that are accepted together have the same one
def _to_the_millisecond(thousandths: int) -> str:
    return f"{_to_the_second(thousandths // 1000)}.{thousandths % 1000:03d}Z"


@lru_cache(maxsize=256)
def _to_the_second(second: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))


def parse_rfc3339(text: str) -> float:
    """The seconds since the epoch of an RFC 3339 time. Raises `ValueError`."""
    if _RFC3339.match(text) is None:
        raise ValueError("must be an RFC 3339 time with an offset, like 2026-02-07T10:30:00Z")
    return datetime.fromisoformat(text.upper().replace(" ", "T")).timestamp()
