# -*- test-case-name: tests.workers.test_answers -*-
"""How long a handler asks to wait before the next attempt, in each form in which it may have the number."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from email.utils import parsedate_to_datetime
from numbers import Real

LONGEST_DELAY_SECONDS = 30 * 86400.0
_LONGEST_TEXT = 64
_NUMBER = re.compile(r"[0-9]+(\.[0-9]*)?")


def delay_seconds(value: object, now: float) -> float:
    """The seconds that ``value`` stands for, at most `LONGEST_DELAY_SECONDS`. `ValueError` where it stands for none.

    It may be a number, a duration, a point in time with a zone, or the text of a field ``Retry-After``: seconds or a
    date (RFC 9110, section 10.2.3). ``now`` is in seconds since the epoch. A point in time that has passed is 0.
    """
    if isinstance(value, timedelta):
        seconds = value.total_seconds()
    elif isinstance(value, datetime) and value.tzinfo is not None:
        seconds = max(0.0, value.timestamp() - now)
    elif isinstance(value, str | bytes):
        seconds = _read(value if isinstance(value, str) else value.decode("latin-1"), now)
    elif isinstance(value, Real | Decimal) and not isinstance(value, bool):
        seconds = LONGEST_DELAY_SECONDS if isinstance(value, int) and value > LONGEST_DELAY_SECONDS else float(value)
    else:
        raise ValueError(f"a {type(value).__name__} is no delay")
    if not 0 <= seconds < math.inf:
        raise ValueError(f"{seconds:g} s is no delay")
    return min(seconds, LONGEST_DELAY_SECONDS)


def _read(text: str, now: float) -> float:
    text = text.strip()
    if len(text) > _LONGEST_TEXT:
        raise ValueError(f"a text of {len(text)} characters is no delay")
    if _NUMBER.fullmatch(text):
        return float(text)
    try:
        at = parsedate_to_datetime(text)
        # The oldest of the three formats has no zone, and means GMT (RFC 9110, section 5.6.7).
        return max(0.0, (at if at.tzinfo is not None else at.replace(tzinfo=UTC)).timestamp() - now)
    except (ValueError, TypeError, OverflowError, IndexError):
        raise ValueError(f"{text!r} is no delay") from None
