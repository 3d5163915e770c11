# -*- test-case-name: tests.policy.test_outcome -*-
"""What a target's response means for the request: done, to be retried, or failed."""

from __future__ import annotations

import enum
import re
from collections.abc import Collection, Iterable
from datetime import UTC
from email.utils import parsedate_to_datetime

import attrs

RETRY_ON: frozenset[int] = frozenset((408, 425, 429, 500, 502, 503, 504))
LONGEST_RETRY_AFTER = 3600.0
NOT_A_SUCCESS: frozenset[int] = frozenset(range(300, 600))
SERVER_ERRORS: frozenset[int] = frozenset(range(500, 600))
_STATUSES = re.compile(r"([3-5][0-9]{2})(?:-([3-5][0-9]{2}))?")


class Verdict(enum.Enum):
    """DONE: the request is complete. RETRY: another attempt may succeed. FAILED: none will."""

    DONE = "done"
    RETRY = "retry"
    FAILED = "failed"


@attrs.frozen
class Outcome:
    """A verdict, and how many seconds the target asked to wait before the next attempt (0: it did not ask)."""

    verdict: Verdict
    not_before: float = 0.0


def read_statuses(values: Iterable[int | str]) -> frozenset[int]:
    """Status codes from 300 to 599, given one by one (404) or as ranges (``500-599``). Raises `ValueError`."""
    found: set[int] = set()
    for value in values:
        match = _STATUSES.fullmatch(str(value))
        if match is None or int(match[1]) > int(match[2] or match[1]):
            raise ValueError(f"must be status codes from 300 to 599, or ranges such as 500-599, not {value!r}")
        found.update(range(int(match[1]), int(match[2] or match[1]) + 1))
    return frozenset(found)


def judge(
    status: int,
    retry_on: Collection[int],
    retry_after: str | None,
    retry_field: str | None,
    now: float,
    failures: Collection[int] = NOT_A_SUCCESS,
) -> Outcome:
    """The outcome of an attempt whose response has this ``status``.

    ``retry_on`` are the status codes that are retried. ``retry_field`` is the response's field ``OpenHQM-Retry``:
    ``never`` overrides them. ``retry_after`` is the field of that name, in seconds or as a date (RFC 9110, section
    10.2.3). Of the others, ``failures`` are those with which the request fails. By default they are all but 2xx: a
    redirect is not followed, so it is not a success.
    """
    if 200 <= status < 300 or (status not in failures and status not in retry_on):
        return Outcome(Verdict.DONE)
    if status not in retry_on or (retry_field or "").strip().lower() == "never":
        return Outcome(Verdict.FAILED)
    return Outcome(Verdict.RETRY, seconds_of(retry_after, now))


def seconds_of(retry_after: str | None, now: float) -> float:
    """The seconds of a ``Retry-After`` field, at most an hour; 0 where it is missing or invalid."""
    text = (retry_after or "").strip()
    if text.isascii() and text.isdigit():
        seconds = float(text) if len(text) < 10 else LONGEST_RETRY_AFTER
    else:
        try:
            at = parsedate_to_datetime(text)
            # The oldest of the three formats has no zone, and means GMT (RFC 9110, section 5.6.7).
            seconds = (at if at.tzinfo is not None else at.replace(tzinfo=UTC)).timestamp() - now
        except (ValueError, TypeError, OverflowError, IndexError):
            return 0.0
    return min(max(seconds, 0.0), LONGEST_RETRY_AFTER)
